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

// out[i] for the n values of a draw, N of them to a block of UNITS units: make(block, u, values)
// makes those of unit u.
#if defined(GRADLITE_NATIVE)
template <int N, int UNITS, class T, class Make>
DEVICE void draw_blocks(const Draw& draw, i64 n, T* __restrict__ out, Make make) {
  constexpr int BLOCKS = 8, VALUES = N * BLOCKS, EACH = N / UNITS;
  for (i64 i = 0; i < n; i += VALUES) {
    u64 words[4 * BLOCKS];
    for (int b = 0; b < BLOCKS; b++) {
      const Block block = draw.block(i / N + b);
      for (int w = 0; w < 4; w++) words[4 * b + w] = block.word[w];
    }
    const Words several{words};
    if (i + VALUES <= n) {
      for (int u = 0; u < UNITS * BLOCKS; u++) make(several, u, out + i + u * EACH);
    } else {
      T values[VALUES];
      for (int u = 0; u < UNITS * BLOCKS; u++) make(several, u, values + u * EACH);
      for (int k = 0; k < n - i; k++) out[i + k] = values[k];
    }
  }
}
#else
template <int N, int UNITS, class T, class Make>
DEVICE void draw_blocks(const Draw& draw, i64 n, T* out, Make make) {
  const auto fill = [&](const Block& block, T* values) {
#pragma unroll
    for (int u = 0; u < UNITS; u++) make(block, u, values + u * (N / UNITS));
  };
  i64 done = 0;
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
#endif

// Uniform in [0, 1): as many bits as the type holds exactly.
template <class T>
struct Uniform;
template <>
struct Uniform<half_t> {
  static constexpr int PER_BLOCK = 16;
  template <class Lanes>
  static __device__ acc_t of(const Lanes& lanes, int l) {
    return acc_t(lanes.lane16(l) >> 5) * 0x1p-11f;
  }
};
template <>
struct Uniform<bfloat16_t> {
  static constexpr int PER_BLOCK = 16;
  template <class Lanes>
  static __device__ acc_t of(const Lanes& lanes, int l) {
    return acc_t(lanes.lane16(l) >> 8) * 0x1p-8f;
  }
};
template <>
struct Uniform<float> {
  static constexpr int PER_BLOCK = 8;
  template <class Lanes>
  static __device__ acc_t of(const Lanes& lanes, int l) {
    return acc_t(lanes.lane32(l) >> 8) * 0x1p-24f;
  }
};
template <>
struct Uniform<double> {
  static constexpr int PER_BLOCK = 4;
  template <class Lanes>
  static __device__ acc_t of(const Lanes& lanes, int l) {
    return acc_t(lanes.word[l] >> 11) * 0x1p-53;
  }
};

KERNEL(random_uniform)
(scalar_t* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  constexpr int PER_BLOCK = Uniform<scalar_t>::PER_BLOCK;
  draw_blocks<PER_BLOCK, PER_BLOCK>(
      Draw::at(state, seed, offset), n, out, [](const auto& lanes, int u, scalar_t* values) {
        values[0] = narrow(Uniform<scalar_t>::of(lanes, u));
      });
}

struct Normals {
  double cosine, sine;
};

// Box and Muller's two normals of two integers below 1 / unit, in float64.
#if GRADLITE_ON_CPU
// Free of branches and calls, so that loops become vectors; the radius and both factors are within
// 2 units in the last place.
DEVICE Normals box_muller(double a, double b, double unit) {
  // log((a + 1) unit) = k log(2) + log(m), m around 1; s is m's (m - 1) / (m + 1), and log(m)
  // twice the series of its inverse hyperbolic tangent.
  constexpr u64 ROOT_OF_HALF = 0x3fe6a09e667f3bcdull;
  const u64 bits = bit_cast<u64>((a + 1.0) * unit);
  const u64 k = (bits - ROOT_OF_HALF + (1024ull << 52)) >> 52;  // plus 1024
  const double f = bit_cast<double>(bits - ((k - 1024) << 52)) - 1.0;
  const double s = f / (f + 2.0), ss = s * s;
  double series = 1.0 / 21;
#pragma unroll
  for (int n = 19; n > 1; n -= 2) series = series * ss + 1.0 / n;
  const double exponent = bit_cast<double>(k | 0x4330000000000000ull) - (0x1p52 + 1024);
  const double logarithm =
      exponent * 0.693147180559945309417 + (2.0 * s + 2.0 * s * (ss * series));
  const double radius = math::sqrt(-2.0 * logarithm);
  // The angle is q quarters of a turn and r, at most an eighth.
  const double quarters = b * (4.0 * unit), q = math::floor(quarters + 0.5);
  const double r = (quarters - q) * 1.57079632679489661923, rr = r * r;
  double sine = 1.0, cosine = 1.0;
#pragma unroll
  for (int n = 16; n > 0; n -= 2) {
    sine = 1.0 - sine * (rr * (1.0 / (n * (n + 1))));
    cosine = 1.0 - cosine * (rr * (1.0 / (n * (n - 1))));
  }
  sine *= r;
  const u64 quadrant = bit_cast<u64>(q + 0x1p52);
  const double x = quadrant & 1 ? sine : cosine, y = quadrant & 1 ? cosine : sine;
  return {radius * bit_cast<double>(bit_cast<u64>(x) ^ ((quadrant + 1) & 2) << 62),
          radius * bit_cast<double>(bit_cast<u64>(y) ^ (quadrant & 2) << 62)};
}
#else
CALLED Normals box_muller(double a, double b, double unit) {
  const double radius = math::sqrt(-2.0 * math::log((a + 1.0) * unit));
  double cosine, sine;
  ::sincospi(b * (2.0 * unit), &sine, &cosine);
  return {radius * cosine, radius * sine};
}
#endif

KERNEL(random_normal)
(scalar_t* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  constexpr bool DOUBLE = sizeof(scalar_t) == 8;
  constexpr int PER_BLOCK = DOUBLE ? 4 : 8;
  draw_blocks<PER_BLOCK, PER_BLOCK / 2>(
      Draw::at(state, seed, offset), n, out, [](const auto& lanes, int u, scalar_t* values) {
        const int l = 2 * u;
        const Normals two = DOUBLE ? box_muller(double(lanes.word[l] >> 11),
                                                double(lanes.word[l + 1] >> 11), 0x1p-53)
                                   : box_muller(lanes.lane32(l), lanes.lane32(l + 1), 0x1p-32);
        values[0] = narrow(acc_t(two.cosine));
        values[1] = narrow(acc_t(two.sine));
      });
}

// Integers from `low` on: the upper half of word * width; a width of 0 stands for 2^64.
KERNEL(random_integers)
(i64* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n, i64 low,
 i64 width) {
  draw_blocks<4, 4>(
      Draw::at(state, seed, offset), n, out, [=](const auto& lanes, int u, i64* values) {
        const u64 word = lanes.word[u];
        values[0] = i64(u64(low) + (width ? multiply_high(word, u64(width)) : word));
      });
}

// The words themselves: the keys of a permutation.
KERNEL(random_words)
(u64* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n) {
  draw_blocks<4, 4>(
      Draw::at(state, seed, offset), n, out,
      [](const auto& lanes, int u, u64* values) { values[0] = lanes.word[u]; });
}

// True where the lane is below the threshold, which is 2^32 times the probability.
KERNEL(random_mask)
(bool* __restrict__ out, const u64* __restrict__ state, i64 seed, i64 offset, i64 n,
 i64 threshold) {
  draw_blocks<8, 8>(
      Draw::at(state, seed, offset), n, out, [=](const auto& lanes, int u, bool* values) {
        values[0] = u64(lanes.lane32(u)) < u64(threshold);
      });
}
