// Teams: the threads that work on one row together.
//
// A row kernel is written once, for any team:
//
//     for_each_row(rows, [&](auto team, i64 row) {
//       acc_t total = 0;
//       for (i64 c = team.rank(); c < columns; c += team.size()) total += widen(x[c]);
//       total = team.sum(total);   // every member gets the same total
//       ...
//     });
//
// On a GPU the launch decides: blocks of (32, w) threads give w warps, each a team of its own for
// short rows; blocks of (n, 1) threads are one team each. With for_each_row<FewLanes> a team may
// also be 1, 2, 4, 8 or 16 lanes of a warp, in blocks of (lanes, w). On the CPU a team is one
// thread, and the loop a serial one that the compiler vectorises.
#pragma once
#include "common.cuh"

// A value as it is, also for a CPU compiler that may regroup the sum it goes into.
DEVICE acc_t settled(acc_t value) {
#if defined(GRADLITE_NATIVE)
  __asm__("" : "+m"(value));
#endif
  return value;
}

#if defined(GRADLITE_NATIVE)

struct SerialTeam {
  static constexpr i64 rank() { return 0; }
  static constexpr i64 size() { return 1; }
  static void sync() {}
  template <class T>
  static T sum(T value) {
    return value;
  }
  template <class T>
  static T max(T value) {
    return value;
  }
  template <class T>
  static T max_or_nan(T value) {
    return value;
  }
};

typedef SerialTeam RowTeam, FewLanes;

template <class Team = RowTeam, class Body>
DEVICE void for_each_row(i64 rows, Body body) {
  for (i64 row = 0; row < rows; row++) body(Team(), row);
}

template <class Body>
DEVICE void for_each_short_row(i64 rows, Body body) {
  for_each_row(rows, body);
}

template <class Body>
DEVICE void for_each_block(i64 count, Body body) {
  for (i64 i = 0; i < count; i++) body(SerialTeam(), i);
}

#else

struct Sum {
  template <class T>
  static __device__ T of(T a, T b) {
    return a + b;
  }
};
struct Max {
  template <class T>
  static __device__ T of(T a, T b) {
    return math::larger(a, b);
  }
};

struct MaxOrNan {
  template <class T>
  static __device__ T of(T a, T b) {
    return math::larger_or_nan(a, b);
  }
};

// The same result in each of some lanes of a warp, a power of two that lie together in `mask`; all
// of them must come here.
template <class Operation, class T>
DEVICE T reduce_lanes(T value, u32 mask, u32 lanes) {
#pragma unroll
  for (u32 offset = 16; offset > 0; offset >>= 1) {
    if (offset < lanes) value = Operation::of(value, __shfl_xor_sync(mask, value, int(offset)));
  }
  return value;
}

// The same in every lane of a warp.
template <class Operation, class T>
DEVICE T reduce_warp(T value) {
  return reduce_lanes<Operation>(value, 0xffffffffu, 32);
}

// One block of (n, 1) threads, n a multiple of 32.
struct BlockTeam {
  __device__ i64 rank() const { return threadIdx.x; }
  __device__ i64 size() const { return blockDim.x; }
  __device__ void sync() const { __syncthreads(); }
  template <class T>
  __device__ T sum(T value) const {
    return across_warps<Sum>(reduce_warp<Sum>(value), T(0));
  }
  template <class T>
  __device__ T max(T value) const {
    return across_warps<Max>(reduce_warp<Max>(value), value);
  }

 protected:
  template <class Operation, class T>
  static __device__ T across_warps(T value, T neutral) {
    __shared__ T parts[32];
    const u32 lane = threadIdx.x & 31u, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    if (lane == 0) parts[warp] = value;
    __syncthreads();
    // Every warp reduces the parts, so that the result needs no second trip through memory.
    value = reduce_warp<Operation>(lane < warps ? parts[lane] : neutral);
    __syncthreads();  // before the next reduction writes there again
    return value;
  }
};

// One warp of a block of (32, w) threads, or a block of (n, 1): asked at run time, because bodies
// of loops are long, and two of each take the compiler twice as long.
struct RowTeam : BlockTeam {
  static __device__ bool is_warp() { return blockDim.y > 1; }
  __device__ void sync() const {
    if (is_warp()) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
  template <class T>
  __device__ T sum(T value) const {
    value = reduce_warp<Sum>(value);
    return is_warp() ? value : across_warps<Sum>(value, T(0));
  }
  template <class T>
  __device__ T max(T value) const {
    const T neutral = value;
    value = reduce_warp<Max>(value);
    return is_warp() ? value : across_warps<Max>(value, neutral);
  }
};

// The same, or a few lanes that lie together in a warp. Other lanes of it may be at other rows.
struct FewLanes : RowTeam {
  u32 size_, mask;  // the team's lanes
  __device__ FewLanes() : size_(blockDim.x) {
    mask = size_ < 32 ? ((1u << size_) - 1) << (threadIdx.y * size_ & 31u) : 0xffffffffu;
  }
  __device__ void sync() const {
    if (is_warp()) {
      __syncwarp(mask);
    } else {
      __syncthreads();
    }
  }
  template <class T>
  __device__ T sum(T value) const {
    value = reduce_lanes<Sum>(value, mask, size_);
    return is_warp() ? value : across_warps<Sum>(value, T(0));
  }
  template <class T>
  __device__ T max(T value) const {
    const T neutral = value;
    value = reduce_lanes<Max>(value, mask, size_);
    return is_warp() ? value : across_warps<Max>(value, neutral);
  }
  template <class T>
  __device__ T max_or_nan(T value) const {
    const T neutral = value;
    value = reduce_lanes<MaxOrNan>(value, mask, size_);
    return is_warp() ? value : across_warps<MaxOrNan>(value, neutral);
  }
};

template <class Team = RowTeam, class Body>
DEVICE void for_each_row(i64 rows, Body body) {
  const i64 stride = i64(gridDim.x) * blockDim.y;
  for (i64 row = i64(blockIdx.x) * blockDim.y + threadIdx.y; row < rows; row += stride) {
    body(Team(), row);
  }
}

// Eight lanes of a warp, the others of which are at other rows.
struct EightLanes {
  u32 mask = 0xffu << (threadIdx.y * 8 & 31u);

  __device__ i64 rank() const { return threadIdx.x; }
  __device__ i64 size() const { return 8; }
  template <class T>
  __device__ T sum(T value) const {
    return reduce_lanes<Sum>(value, mask, 8);
  }
};

// For many rows of a few packs: a warp has four at a time, in blocks of (8, 32) threads.
template <class Body>
DEVICE void for_each_short_row(i64 rows, Body body) {
  const EightLanes team;
  for (i64 row = i64(blockIdx.x) * 32 + threadIdx.y; row < rows; row += i64(gridDim.x) * 32) {
    body(team, row);
  }
}

// The same with a block of (n, 1) threads for each, always.
template <class Body>
DEVICE void for_each_block(i64 count, Body body) {
  for (i64 i = blockIdx.x; i < count; i += gridDim.x) body(BlockTeam(), i);
}

#endif
