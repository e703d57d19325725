// Random numbers by counter: what gradlite/random.py promises for (seed, offset), value by value.
// The n values of a draw begin at block `offset`; see Draw::at for `state`.
#include "philox.cuh"

template <class T, int N>
struct __attribute__((aligned(N * sizeof(T)))) Values {
  T value[N];
};

#if !defined(GRADLITE_NATIVE)
// Stores the 32 bytes of block b of every thread of a warp, 16 at a time. Of two threads' blocks both
// store halves of the first, then of the second: memory takes 32 bytes as fast as half of them.
template <class T, int HALF>
DEVICE void store_both(T* out, i64 b, const Values<T, HALF>& low, const Values<T, HALF>& high) {
  typedef Values<u32, 4> Words;
  const bool odd = threadIdx.x & 1;
  const Words mine = bit_cast<Words>(odd ? high : low), other = bit_cast<Words>(odd ? low : high);
  Words theirs;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    theirs.value[k] = __shfl_xor_sync(0xffffffffu, other.value[k], 1);
  }
  Words* to = reinterpret_cast<Words*>(out + (odd ? b - 1 : b) * 2 * HALF) + odd;
  to[0] = odd ? theirs : mine;
  to[2] = odd ? mine : theirs;
}
#endif

// out[i] for the n values of a draw, N of them to a block: fill(block, values) makes those of one.
template <int N, class T, class Fill>
DEVICE void draw_blocks(const Draw& draw, i64 n, T* out, Fill fill) {
  i64 done = 0;
#if !defined(GRADLITE_NATIVE)
  if (aligned(out)) {
    done = n / N / 32 * 32;  // by whole warps
    ROLLED
    for (i64 b = thread_index(); b < done; b += thread_count()) {
      T values[N];
      fill(draw.block(b), values);
      constexpr int AT_ONCE = N * sizeof(T) < 16 ? N : 16 / sizeof(T);
      Values<T, AT_ONCE> packs[N / AT_ONCE];
#pragma unroll
      for (int l = 0; l < N; l++) packs[l / AT_ONCE].value[l % AT_ONCE] = values[l];
      if constexpr (N > AT_ONCE) {
        store_both(out, b, packs[0], packs[1]);
      } else {
        reinterpret_cast<Values<T, N>*>(out)[b] = packs[0];
      }
    }
  }
#endif
  ROLLED
  for (i64 b = done + thread_index(); b * N < n; b += thread_count()) {
    T values[N];
    fill(draw.block(b), values);
#pragma unroll
    for (int l = 0; l < N; l++) {
      if (b * N + l < n) out[b * N + l] = values[l];
    }
  }
}

// Uniform in [0, 1): as many bits as the type holds exactly.
template <class T>
struct Uniform;
template <>
struct Uniform<half_t> {
  static constexpr int PER_BLOCK = 16;
  static __device__ acc_t of(const Block& b, int l) { return acc_t(b.lane16(l) >> 5) * 0x1p-11f; }
};
template <>
struct Uniform<bfloat16_t> {
  static constexpr int PER_BLOCK = 16;
  static __device__ acc_t of(const Block& b, int l) { return acc_t(b.lane16(l) >> 8) * 0x1p-8f; }
};
template <>
struct Uniform<float> {
  static constexpr int PER_BLOCK = 8;
  static __device__ acc_t of(const Block& b, int l) { return acc_t(b.lane32(l) >> 8) * 0x1p-24f; }
};
template <>
struct Uniform<double> {
  static constexpr int PER_BLOCK = 4;
  static __device__ acc_t of(const Block& b, int l) { return acc_t(b.word[l] >> 11) * 0x1p-53; }
};

KERNEL(random_uniform)
(scalar_t* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  constexpr int PER_BLOCK = Uniform<scalar_t>::PER_BLOCK;
  draw_blocks<PER_BLOCK>(
      Draw::at(state, seed, offset), n, out, [](const Block& block, scalar_t* values) {
#pragma unroll
        for (int l = 0; l < PER_BLOCK; l++) values[l] = narrow(Uniform<scalar_t>::of(block, l));
      });
}

struct Normals {
  double cosine, sine;
};

// Box and Muller's two normals of two integers below 1 / unit, in float64.
CALLED Normals box_muller(double a, double b, double unit) {
  const double radius = math::sqrt(-2.0 * math::log((a + 1.0) * unit));
#if GRADLITE_ON_CPU
  const double angle = b * (6.283185307179586476925 * unit);
  return {radius * math::cos(angle), radius * math::sin(angle)};
#else
  double cosine, sine;
  ::sincospi(b * (2.0 * unit), &sine, &cosine);
  return {radius * cosine, radius * sine};
#endif
}

KERNEL(random_normal)
(scalar_t* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  constexpr bool DOUBLE = sizeof(scalar_t) == 8;
  constexpr int PER_BLOCK = DOUBLE ? 4 : 8;
  draw_blocks<PER_BLOCK>(
      Draw::at(state, seed, offset), n, out, [](const Block& block, scalar_t* values) {
#pragma unroll
        for (int l = 0; l < PER_BLOCK; l += 2) {
          const Normals two =
              DOUBLE ? box_muller(double(block.word[l] >> 11), double(block.word[l + 1] >> 11),
                                  0x1p-53)
                     : box_muller(block.lane32(l), block.lane32(l + 1), 0x1p-32);
          values[l] = narrow(acc_t(two.cosine));
          values[l + 1] = narrow(acc_t(two.sine));
        }
      });
}

// Integers from `low` on: the upper half of word * width; a width of 0 stands for 2^64.
KERNEL(random_integers)
(i64* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n, i64 low,
 i64 width) {
  draw_blocks<4>(Draw::at(state, seed, offset), n, out, [=](const Block& block, i64* values) {
#pragma unroll
    for (int l = 0; l < 4; l++) {
      const u64 word = block.word[l];
      values[l] = i64(u64(low) + (width ? multiply_high(word, u64(width)) : word));
    }
  });
}

// The words themselves: the keys of a permutation.
KERNEL(random_words)
(u64* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  draw_blocks<4>(Draw::at(state, seed, offset), n, out, [](const Block& block, u64* values) {
#pragma unroll
    for (int l = 0; l < 4; l++) values[l] = block.word[l];
  });
}

// True where the lane is below the threshold, which is 2^32 times the probability.
KERNEL(random_mask)
(bool* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n,
 i64 threshold) {
  draw_blocks<8>(Draw::at(state, seed, offset), n, out, [=](const Block& block, bool* values) {
#pragma unroll
    for (int l = 0; l < 8; l++) values[l] = u64(block.lane32(l)) < u64(threshold);
  });
}
