// Random numbers by counter: what gradlite/random.py promises for (seed, offset), value by value.
// The n values of a draw begin at block `offset`; see Draw::at for `state`.
#include "philox.cuh"

// Calls body(block, first, count) for every block of a draw of n values, `count` of them from
// value `first` on.
template <int PER_BLOCK, class Body>
DEVICE void for_each_block(const Draw& draw, i64 n, Body body) {
  for (i64 b = thread_index(); b * PER_BLOCK < n; b += thread_count()) {
    const i64 first = b * PER_BLOCK, left = n - first;
    body(draw.block(b), first, int(left < PER_BLOCK ? left : PER_BLOCK));
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
  for_each_block<Uniform<scalar_t>::PER_BLOCK>(
      Draw::at(state, seed, offset), n, [=](const Block& block, i64 first, int count) {
#pragma unroll
        for (int l = 0; l < Uniform<scalar_t>::PER_BLOCK; l++) {
          if (l < count) out[first + l] = narrow(Uniform<scalar_t>::of(block, l));
        }
      });
}

// Box and Muller's two normals of two integers below 1 / unit, in float64.
DEVICE void box_muller(double a, double b, double unit, double& cosine, double& sine) {
  const double radius = math::sqrt(-2.0 * math::log((a + 1.0) * unit));
#if GRADLITE_ON_CPU
  const double angle = b * (6.283185307179586476925 * unit);
  cosine = radius * math::cos(angle);
  sine = radius * math::sin(angle);
#else
  ::sincospi(b * (2.0 * unit), &sine, &cosine);
  cosine *= radius;
  sine *= radius;
#endif
}

KERNEL(random_normal)
(scalar_t* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  constexpr bool DOUBLE = sizeof(scalar_t) == 8;
  constexpr int PER_BLOCK = DOUBLE ? 4 : 8;
  for_each_block<PER_BLOCK>(
      Draw::at(state, seed, offset), n, [=](const Block& block, i64 first, int count) {
        for (int l = 0; l < count; l += 2) {
          double cosine, sine;
          if (DOUBLE) {
            const u64 a = l ? block.word[2] : block.word[0], b = l ? block.word[3] : block.word[1];
            box_muller(double(a >> 11), double(b >> 11), 0x1p-53, cosine, sine);
          } else {
            box_muller(block.lane32(l), block.lane32(l + 1), 0x1p-32, cosine, sine);
          }
          out[first + l] = narrow(acc_t(cosine));
          if (l + 1 < count) out[first + l + 1] = narrow(acc_t(sine));
        }
      });
}

// Integers from `low` on: the upper half of word * width; a width of 0 stands for 2^64.
KERNEL(random_integers)
(i64* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n, i64 low,
 i64 width) {
  for_each_block<4>(Draw::at(state, seed, offset), n,
                    [=](const Block& block, i64 first, int count) {
#pragma unroll
                      for (int l = 0; l < 4; l++) {
                        const u64 word = block.word[l];
                        const u64 value = width ? multiply_high(word, u64(width)) : word;
                        if (l < count) out[first + l] = i64(u64(low) + value);
                      }
                    });
}

// The words themselves: the keys of a permutation.
KERNEL(random_words)
(u64* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  for_each_block<4>(Draw::at(state, seed, offset), n,
                    [=](const Block& block, i64 first, int count) {
#pragma unroll
                      for (int l = 0; l < 4; l++) {
                        if (l < count) out[first + l] = block.word[l];
                      }
                    });
}

// True where the lane is below the threshold, which is 2^32 times the probability.
KERNEL(random_mask)
(bool* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n,
 i64 threshold) {
  for_each_block<8>(Draw::at(state, seed, offset), n,
                    [=](const Block& block, i64 first, int count) {
#pragma unroll
                      for (int l = 0; l < 8; l++) {
                        if (l < count) out[first + l] = u64(block.lane32(l)) < u64(threshold);
                      }
                    });
}
