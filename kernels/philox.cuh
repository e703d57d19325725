// Philox4x64-10 (Salmon, Moraes, Dror and Shaw, SC 2011), word for word numpy.random.Philox.
//
// gradlite/random.py says what a stream is: block b of the stream of a seed is what the function
// gives for the key (seed, 0) and the counter (b + 1, 0, 0, 0). A draw begins at some block, its
// own blocks counted from 0 here; the lanes of a block are numbered from the lowest bits up.
#pragma once
#include "common.cuh"

struct Block {
  u64 word[4];

  // The l-th 32 bits; written so that no thread's words need an address.
  __device__ u32 lane32(int l) const {
    const u64 low = l & 4 ? word[2] : word[0], high = l & 4 ? word[3] : word[1];
    return u32((l & 2 ? high : low) >> (l & 1 ? 32 : 0));
  }
  __device__ u32 lane16(int l) const { return lane32(l >> 1) >> (l & 1 ? 16 : 0) & 0xffffu; }
};

// The words of several blocks, one after another: lanes are numbered on from block to block.
struct Words {
  const u64* word;

  __device__ u32 lane32(int l) const { return u32(word[l >> 1] >> 32 * (l & 1)); }
  __device__ u32 lane16(int l) const { return u32(word[l >> 2] >> 16 * (l & 3)) & 0xffffu; }
};

DEVICE u64 multiply_high(u64 a, u64 b) {
#if GRADLITE_ON_CPU
  return u64((unsigned __int128)(a) * b >> 64);
#else
  return __umul64hi(a, b);
#endif
}

// ROUNDS at once: 10, or 1 where the registers for the keys of all rounds are wanted elsewhere.
template <int ROUNDS>
DEVICE Block philox(u64 counter0, u64 counter1, u64 key) {
  u64 x0 = counter0, x1 = counter1, x2 = 0, x3 = 0, key0 = key, key1 = 0;
#pragma unroll ROUNDS
  for (int round = 0; round < 10; round++) {
    const u64 high0 = multiply_high(0xD2E7470EE14C6C93ull, x0), low0 = 0xD2E7470EE14C6C93ull * x0;
    const u64 high1 = multiply_high(0xCA5A826395121157ull, x2), low1 = 0xCA5A826395121157ull * x2;
    x0 = high1 ^ x1 ^ key0;
    x1 = low1;
    x2 = high0 ^ x3 ^ key1;
    x3 = low0;
    key0 += 0x9E3779B97F4A7C15ull;
    key1 += 0xBB67AE8584CAA73Bull;
  }
  return Block{{x0, x1, x2, x3}};
}

// A draw: the blocks of the stream of `seed` from `first` on.
struct Draw {
  u64 seed, first;

  // Where `state` {seed, offset} is given, the seed comes from there and `offset` counts from the
  // offset there: what a captured step draws depends on the state at its replay.
  static __device__ Draw at(const u64* state, i64 seed, i64 offset) {
    return state ? Draw{state[0], state[1] + u64(offset)} : Draw{u64(seed), u64(offset)};
  }
  template <int ROUNDS = 10>
  __device__ Block block(i64 index) const {
    const u64 counter = first + u64(index) + 1;
    return philox<ROUNDS>(counter, counter <= first ? 1 : 0, seed);  // carried, as NumPy does
  }
};
