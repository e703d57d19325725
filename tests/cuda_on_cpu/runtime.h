// CUDA C++ for an ordinary C++ compiler: everything a kernel file may name.
//
// A kernel file is compiled after this header and unmodified. runtime.cpp runs one fiber per CUDA
// thread, one block at a time, on one OS thread; checks.cpp watches every memory access.
// Left out on purpose, so that a use is a compile error: __activemask, cooperative groups,
// textures.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>
#include <utility>

using std::size_t;

#define __global__ inline  // only the kernels in the table of module.py are compiled
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Nothing else in a kernel file is thread_local, so the block of these variables is shared memory,
// which runtime.cpp poisons before every block. (g++ ignores sections in templates.)
#define __shared__ static thread_local

// ---- vector types ---------------------------------------------------------------------------

#define CUDA_ON_CPU_VECTORS(T, name, align2, align4)                 \
  struct name##1 { T x; };                                           \
  struct alignas(align2) name##2 { T x, y; };                        \
  struct name##3 { T x, y, z; };                                     \
  struct alignas(align4) name##4 { T x, y, z, w; };                  \
  inline name##2 make_##name##2(T x, T y) { return {x, y}; }         \
  inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; } \
  inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
CUDA_ON_CPU_VECTORS(signed char, char, 2, 4)
CUDA_ON_CPU_VECTORS(unsigned char, uchar, 2, 4)
CUDA_ON_CPU_VECTORS(short, short, 4, 8)
CUDA_ON_CPU_VECTORS(unsigned short, ushort, 4, 8)
CUDA_ON_CPU_VECTORS(int, int, 8, 16)
CUDA_ON_CPU_VECTORS(unsigned, uint, 8, 16)
CUDA_ON_CPU_VECTORS(long long, longlong, 16, 16)
CUDA_ON_CPU_VECTORS(unsigned long long, ulonglong, 16, 16)
CUDA_ON_CPU_VECTORS(float, float, 8, 16)
CUDA_ON_CPU_VECTORS(double, double, 16, 16)
#undef CUDA_ON_CPU_VECTORS

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

// ---- what runtime.cpp and checks.cpp offer --------------------------------------------------

namespace cuda_on_cpu {

enum class Meeting : int { syncwarp, shuffle, ballot };

// One launch, as module.py fills it in. The order of the fields is module.py's too.
struct Launch {
  unsigned grid[3], block[3];
  unsigned shared_bytes, region_count;
  unsigned exits_arrive;  // whether a barrier waits for no thread that has returned, as CUDA's
  const uint64_t* regions;  // four numbers each: address, bytes, bytes per cell, read-only
  uint64_t seed, access_limit;
  uint64_t switches, accesses;  // out
  uint64_t code[2];             // out: where a fault happened, and where its other half did
  char fault[512];              // out
};

struct Votes {
  int all, any, count;
};

int run(void (*body)(void*), void* argument, Launch*);
Votes block_barrier(int predicate, int line);
// Meets the other lanes of `mask`; gives what lane `source` brought, or the ballot.
uint64_t warp_meeting(unsigned mask, Meeting, uint64_t value, int source, int line);
int lane();
void* dynamic_shared();
void note_atomic(const void* address, unsigned bytes);
[[noreturn]] void fail(const char* message);

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a shuffle of more than 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  return bits;
}

template <class T>
T shuffle(unsigned mask, T value, int source, int line) {
  uint64_t bits = warp_meeting(mask, Meeting::shuffle, to_bits(value), source, line);
  T result;
  memcpy(&result, &bits, sizeof result);
  return result;
}

}  // namespace cuda_on_cpu

#define DYNAMIC_SHARED(type, name) \
  type* name = reinterpret_cast<type*>(cuda_on_cpu::dynamic_shared())

// ---- barriers, shuffles, votes --------------------------------------------------------------
// The line of the call tells two barriers apart: threads that meet in different ones are divergent.

#define CUDA_ON_CPU_LINE int line = __builtin_LINE()
constexpr unsigned CUDA_ON_CPU_ALL = 0xffffffffu;

inline void __syncthreads(CUDA_ON_CPU_LINE) { cuda_on_cpu::block_barrier(0, line); }
inline int __syncthreads_or(int predicate, CUDA_ON_CPU_LINE) {
  return cuda_on_cpu::block_barrier(predicate, line).any;
}
inline int __syncthreads_and(int predicate, CUDA_ON_CPU_LINE) {
  return cuda_on_cpu::block_barrier(predicate, line).all;
}
inline int __syncthreads_count(int predicate, CUDA_ON_CPU_LINE) {
  return cuda_on_cpu::block_barrier(predicate, line).count;
}
inline void __syncwarp(unsigned mask = CUDA_ON_CPU_ALL, CUDA_ON_CPU_LINE) {
  cuda_on_cpu::warp_meeting(mask, cuda_on_cpu::Meeting::syncwarp, 0, 0, line);
}

// A source outside the lane's own group of `width` gives the lane's own value back.
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_ON_CPU_LINE) {
  int own = cuda_on_cpu::lane(), source = own ^ lanes;
  bool inside = source / width <= own / width;
  return cuda_on_cpu::shuffle(mask, value, inside ? source : own, line);
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_LINE) {
  int own = cuda_on_cpu::lane(), source = own + int(delta);
  bool inside = source / width == own / width;
  return cuda_on_cpu::shuffle(mask, value, inside ? source : own, line);
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, CUDA_ON_CPU_LINE) {
  int own = cuda_on_cpu::lane(), source = own - int(delta);
  bool inside = source >= own / width * width;
  return cuda_on_cpu::shuffle(mask, value, inside ? source : own, line);
}
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_CPU_LINE) {
  int group = cuda_on_cpu::lane() / width * width;
  return cuda_on_cpu::shuffle(mask, value, group + (source & (width - 1)), line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_CPU_LINE) {
  using cuda_on_cpu::Meeting;
  return unsigned(cuda_on_cpu::warp_meeting(mask, Meeting::ballot, predicate != 0, 0, line));
}
inline int __any_sync(unsigned mask, int predicate, CUDA_ON_CPU_LINE) {
  return __ballot_sync(mask, predicate, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, CUDA_ON_CPU_LINE) {
  return __ballot_sync(mask, !predicate, line) == 0;
}

// Blocks run one after another, so a fence has nothing to order.
inline void __threadfence() {}
inline void __threadfence_block() {}

// ---- atomics --------------------------------------------------------------------------------
// Fibers switch at barriers only, so a plain update is atomic; the checks are told that it is
// meant.

#define CUDA_ON_CPU_ATOMIC(T, name, ...)                                   \
  __attribute__((no_sanitize_thread)) inline T name(T* address, T value) { \
    cuda_on_cpu::note_atomic(address, sizeof(T));                          \
    T old = *address;                                                      \
    *address = __VA_ARGS__;                                                \
    return old;                                                            \
  }
#define CUDA_ON_CPU_ATOMICS(T)                  \
  CUDA_ON_CPU_ATOMIC(T, atomicAdd, old + value) \
  CUDA_ON_CPU_ATOMIC(T, atomicExch, value)
#define CUDA_ON_CPU_INTEGER_ATOMICS(T)                                                     \
  CUDA_ON_CPU_ATOMICS(T)                                                                   \
  CUDA_ON_CPU_ATOMIC(T, atomicMax, value > old ? value : old)                              \
  CUDA_ON_CPU_ATOMIC(T, atomicMin, value < old ? value : old)                              \
  CUDA_ON_CPU_ATOMIC(T, atomicAnd, old& value)                                             \
  CUDA_ON_CPU_ATOMIC(T, atomicOr, old | value)                                             \
  __attribute__((no_sanitize_thread)) inline T atomicCAS(T* address, T compare, T value) { \
    cuda_on_cpu::note_atomic(address, sizeof(T));                                          \
    T old = *address;                                                                      \
    if (old == compare) *address = value;                                                  \
    return old;                                                                            \
  }
CUDA_ON_CPU_ATOMICS(float)
CUDA_ON_CPU_ATOMIC(double, atomicAdd, old + value)  // CUDA has no atomicExch of a double
CUDA_ON_CPU_INTEGER_ATOMICS(int)
CUDA_ON_CPU_INTEGER_ATOMICS(unsigned)
CUDA_ON_CPU_INTEGER_ATOMICS(unsigned long long)
// Wraps to 0 past `value`: the ticket of the last block to finish.
CUDA_ON_CPU_ATOMIC(unsigned, atomicInc, old >= value ? 0u : old + 1)

// ---- arithmetic that <cmath> lacks ----------------------------------------------------------

template <class T>
T __ldg(const T* address) {
  return *address;
}

using std::isfinite;
using std::isinf;
using std::isnan;

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float __expf(float x) { return expf(x); }
inline float __logf(float x) { return logf(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
inline float __fsqrt_rn(float x) { return sqrtf(x); }
inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
inline float __fadd_rn(float x, float y) { return x + y; }
inline float __fmul_rn(float x, float y) { return x * y; }
inline float __fdiv_rn(float x, float y) { return x / y; }
inline double __dadd_rn(double x, double y) { return x + y; }
inline double __dmul_rn(double x, double y) { return x * y; }

inline unsigned __umulhi(unsigned x, unsigned y) { return unsigned(uint64_t(x) * y >> 32); }
inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) {
  return (unsigned long long)((unsigned __int128)x * y >> 64);
}
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }

template <class To, class From>
To cuda_on_cpu_bits(From value) {
  static_assert(sizeof(To) == sizeof(From), "as many bits");
  To result;
  memcpy(&result, &value, sizeof result);
  return result;
}
inline int __float_as_int(float x) { return cuda_on_cpu_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu_bits<unsigned>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu_bits<float>(x); }
inline long long __double_as_longlong(double x) { return cuda_on_cpu_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return cuda_on_cpu_bits<double>(x); }

// As fmax and fmin do, max and min of floating point numbers leave out a NaN.
template <class T, class U>
std::common_type_t<T, U> max(T x, U y) {
  using C = std::common_type_t<T, U>;
  if constexpr (std::is_floating_point<C>::value)
    return std::fmax(C(x), C(y));
  else
    return C(x) > C(y) ? C(x) : C(y);
}
template <class T, class U>
std::common_type_t<T, U> min(T x, U y) {
  using C = std::common_type_t<T, U>;
  if constexpr (std::is_floating_point<C>::value)
    return std::fmin(C(x), C(y));
  else
    return C(x) < C(y) ? C(x) : C(y);
}

inline void __trap() { cuda_on_cpu::fail("__trap()"); }
#undef assert
#define assert(condition) ((condition) ? (void)0 : cuda_on_cpu::fail("device assert: " #condition))
