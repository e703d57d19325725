// What every kernel shares: storage types, mathematics, vector access and the names of kernels.
//
// A kernel file is compiled once per storage dtype, with GRADLITE_DTYPE = f16, bf16, f32 or f64:
// `scalar_t` is what lies in memory, `acc_t` what is computed with (float; double for f64).
// Three compilers read the same text:
//   CUDA                   NVRTC or nvcc, for a GPU
//   GRADLITE_CPU_THREADS   a C++ compiler, one fiber per CUDA thread, for the tests
//   GRADLITE_NATIVE        a C++ compiler, one thread that is the whole grid, for the CPU
#pragma once

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#if defined(GRADLITE_NATIVE)
#define __global__
#define __device__ inline
#define __forceinline__ __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#include "float_math.h"
#endif

// Ahead of a loop that many threads share: four copies of its body take more registers and twice as
// long to compile, and it is the other threads that hide the memory's latency.
#if defined(GRADLITE_NATIVE)
#define ROLLED
#else
#define ROLLED _Pragma("unroll 1")
#endif

// Ahead of a loop whose steps do not meet in memory, for the vectoriser of a CPU compiler.
#if !defined(GRADLITE_NATIVE)
#define INDEPENDENT
#elif defined(__clang__)
#define INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define INDEPENDENT _Pragma("GCC ivdep")
#endif

#if defined(GRADLITE_NATIVE) || defined(GRADLITE_CPU_THREADS)
#define GRADLITE_ON_CPU 1
#define DEVICE static inline
#define CALLED DEVICE
#else
#define GRADLITE_ON_CPU 0
#define DEVICE static __device__ __forceinline__
#define CALLED static __device__ __noinline__
#define DYNAMIC_SHARED(type, name)                         \
  extern __shared__ __align__(16) unsigned char name##_[]; \
  type* name = reinterpret_cast<type*>(name##_)
#endif

// ------------------------------------------------------------------------------ storage types
// Plain structs, because the system's headers for half precision are not everywhere.
struct half_t {
  u16 bits;
};
struct bfloat16_t {
  u16 bits;
};

template <class To, class From>
DEVICE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From), "bit_cast between different sizes");
  union Both {
    From from;
    To to;
  } both = {from};
  return both.to;
}

#if GRADLITE_ON_CPU
DEVICE float half_of(u16 bits) {
  _Float16 half;
  __builtin_memcpy(&half, &bits, sizeof half);
  return float(half);
}
DEVICE u16 bits_of_half(float value) {
  const _Float16 half = _Float16(value);
  u16 bits;
  __builtin_memcpy(&bits, &half, sizeof bits);
  return bits;
}
#endif

DEVICE float widen(float value) { return value; }
DEVICE double widen(double value) { return value; }
DEVICE float widen(bfloat16_t value) { return bit_cast<float>(u32(value.bits) << 16); }
DEVICE float widen(half_t value) {
#if GRADLITE_ON_CPU
  return half_of(value.bits);
#else
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
#endif
}

// Rounding is to nearest, ties to even.
template <class T>
struct Narrow {
  static __device__ T of(T value) { return value; }
};
template <>
struct Narrow<bfloat16_t> {
  static __device__ bfloat16_t of(float value) {
    u32 bits = bit_cast<u32>(value);
    u32 rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return bfloat16_t{value == value ? u16(rounded) : u16((bits >> 16) | 0x40u)};
  }
};
template <>
struct Narrow<half_t> {
  static __device__ half_t of(float value) {
#if GRADLITE_ON_CPU
    return half_t{bits_of_half(value)};
#else
    u16 bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return half_t{bits};
#endif
  }
};

#define GRADLITE_TYPES_f16 half_t, float
#define GRADLITE_TYPES_bf16 bfloat16_t, float
#define GRADLITE_TYPES_f32 float, float
#define GRADLITE_TYPES_f64 double, double
template <class Storage, class Compute>
struct Types {
  typedef Storage storage;
  typedef Compute compute;
};
#define GRADLITE_PASTE_(a, b) a##b
#define GRADLITE_PASTE(a, b) GRADLITE_PASTE_(a, b)
typedef Types<GRADLITE_PASTE(GRADLITE_TYPES_, GRADLITE_DTYPE)>::storage scalar_t;
typedef Types<GRADLITE_PASTE(GRADLITE_TYPES_, GRADLITE_DTYPE)>::compute acc_t;

DEVICE scalar_t narrow(acc_t value) { return Narrow<scalar_t>::of(value); }

// ------------------------------------------------------------------------------------- kernels
// KERNEL(softmax_forward)(...) defines softmax_forward_f32 (and so on). Scalars among the
// parameters are i64 or double, which is what a Python int and a Python float arrive as.
//
// A file may define BLOCKS before it includes this: how many blocks a multiprocessor must have
// room for. The compiler then takes the registers that this leaves. Without, it may keep values
// in memory to make room for more blocks: KERNEL_BLOCKS says it for one kernel.
#if defined(BLOCKS)
#define GRADLITE_BOUNDS(threads) __launch_bounds__(threads, BLOCKS)
#else
#define GRADLITE_BOUNDS(threads) __launch_bounds__(threads)
#endif
#define GRADLITE_NAME_(name, dtype) name##_##dtype
#define GRADLITE_NAME(name, dtype) GRADLITE_NAME_(name, dtype)
#define GRADLITE_KERNEL(name, bounds) \
  extern "C" __global__ void bounds GRADLITE_NAME(name, GRADLITE_DTYPE)
#define KERNEL_OF(name, threads) GRADLITE_KERNEL(name, GRADLITE_BOUNDS(threads))
#define KERNEL_BLOCKS(name, blocks) GRADLITE_KERNEL(name, __launch_bounds__(256, blocks))
#define KERNEL(name) KERNEL_OF(name, 256)

// The place of this thread among all threads of the launch, and their number.
#if defined(GRADLITE_NATIVE)
DEVICE constexpr i64 thread_index() { return 0; }
DEVICE constexpr i64 thread_count() { return 1; }
#else
DEVICE i64 thread_index() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE i64 thread_count() { return i64(gridDim.x) * blockDim.x; }
#endif

// --------------------------------------------------------------------------------- mathematics
namespace math {
#if defined(GRADLITE_NATIVE)
#if FLOAT_MATH_FUSES
using float_math::erf;
using float_math::erfc;
using float_math::exp;
using float_math::expm1;
using float_math::log;
using float_math::log1p;
using float_math::tanh;
#else
DEVICE float exp(float x) { return __builtin_expf(x); }
DEVICE float expm1(float x) { return __builtin_expm1f(x); }
DEVICE float log(float x) { return __builtin_logf(x); }
DEVICE float log1p(float x) { return __builtin_log1pf(x); }
DEVICE float tanh(float x) { return __builtin_tanhf(x); }
DEVICE float erf(float x) { return __builtin_erff(x); }
DEVICE float erfc(float x) { return __builtin_erfcf(x); }
#endif
DEVICE float sqrt(float x) { return __builtin_sqrtf(x); }
DEVICE float floor(float x) { return __builtin_floorf(x); }
DEVICE float rint(float x) { return __builtin_rintf(x); }
DEVICE float pow(float x, float y) { return __builtin_powf(x, y); }
DEVICE float sin(float x) { return __builtin_sinf(x); }
DEVICE float cos(float x) { return __builtin_cosf(x); }
DEVICE float abs(float x) { return __builtin_fabsf(x); }
DEVICE float copysign(float x, float y) { return __builtin_copysignf(x, y); }
DEVICE double exp(double x) { return __builtin_exp(x); }
DEVICE double expm1(double x) { return __builtin_expm1(x); }
DEVICE double log(double x) { return __builtin_log(x); }
DEVICE double log1p(double x) { return __builtin_log1p(x); }
DEVICE double tanh(double x) { return __builtin_tanh(x); }
DEVICE double erf(double x) { return __builtin_erf(x); }
DEVICE double erfc(double x) { return __builtin_erfc(x); }
DEVICE double sqrt(double x) { return __builtin_sqrt(x); }
DEVICE double floor(double x) { return __builtin_floor(x); }
DEVICE double rint(double x) { return __builtin_rint(x); }
DEVICE double pow(double x, double y) { return __builtin_pow(x, y); }
DEVICE double sin(double x) { return __builtin_sin(x); }
DEVICE double cos(double x) { return __builtin_cos(x); }
DEVICE double abs(double x) { return __builtin_fabs(x); }
DEVICE double copysign(double x, double y) { return __builtin_copysign(x, y); }
#else
DEVICE float exp(float x) { return ::expf(x); }
DEVICE float expm1(float x) { return ::expm1f(x); }
DEVICE float log(float x) { return ::logf(x); }
DEVICE float log1p(float x) { return ::log1pf(x); }
DEVICE float tanh(float x) { return ::tanhf(x); }
DEVICE float erf(float x) { return ::erff(x); }
DEVICE float erfc(float x) { return ::erfcf(x); }
DEVICE float sqrt(float x) { return ::sqrtf(x); }
DEVICE float floor(float x) { return ::floorf(x); }
DEVICE float rint(float x) { return ::rintf(x); }
DEVICE float pow(float x, float y) { return ::powf(x, y); }
DEVICE float sin(float x) { return ::sinf(x); }
DEVICE float cos(float x) { return ::cosf(x); }
DEVICE float abs(float x) { return ::fabsf(x); }
DEVICE float copysign(float x, float y) { return ::copysignf(x, y); }
// A hundred instructions each: copies of them in unrolled loops take the registers that are there,
// and the run-time compiler seconds.
CALLED double exp(double x) { return ::exp(x); }
CALLED double expm1(double x) { return ::expm1(x); }
CALLED double log(double x) { return ::log(x); }
CALLED double log1p(double x) { return ::log1p(x); }
CALLED double tanh(double x) { return ::tanh(x); }
CALLED double erf(double x) { return ::erf(x); }
CALLED double erfc(double x) { return ::erfc(x); }
DEVICE double sqrt(double x) { return ::sqrt(x); }
DEVICE double floor(double x) { return ::floor(x); }
DEVICE double rint(double x) { return ::rint(x); }
CALLED double pow(double x, double y) { return ::pow(x, y); }
CALLED double sin(double x) { return ::sin(x); }
CALLED double cos(double x) { return ::cos(x); }
DEVICE double abs(double x) { return ::fabs(x); }
DEVICE double copysign(double x, double y) { return ::copysign(x, y); }
#endif
template <class T>
DEVICE T larger(T a, T b) {
  return a > b ? a : b;  // b when either is NaN
}
// NaN when either is, as the maximum of arrays has it.
template <class T>
DEVICE T larger_or_nan(T a, T b) {
  return a > b || a != a ? a : b;
}
// The number where one of two is NaN, which a GPU has an instruction for.
#if defined(GRADLITE_NATIVE)
template <class T>
DEVICE T larger_number(T a, T b) {
  return a > b || b != b ? a : b;
}
#else
DEVICE float larger_number(float a, float b) { return ::fmaxf(a, b); }
DEVICE double larger_number(double a, double b) { return ::fmax(a, b); }
#endif
template <class T>
DEVICE T smaller(T a, T b) {
  return a < b ? a : b;
}
// 0 for NaN.
template <class T>
DEVICE T sign(T x) {
  return x > T(0) ? T(1) : x < T(0) ? T(-1) : T(0);
}
// 1 / x to two units in the last place, and 0 for |x| > 2^126; a division takes ten instructions.
DEVICE float reciprocal(float x) {
#if GRADLITE_ON_CPU
  return 1.0f / x;
#else
  return __fdividef(1.0f, x);
#endif
}
DEVICE double reciprocal(double x) { return 1.0 / x; }
// a b + c, rounded once where the processor can.
#if defined(GRADLITE_NATIVE)
using float_math::fused;
#else
DEVICE acc_t fused(acc_t a, acc_t b, acc_t c) { return a * b + c; }
#endif
// What a product, a b rounded, has lost to the rounding; 0 where nothing is fused.
DEVICE float lost(float a, float b, float product) {
#if GRADLITE_ON_CPU
  return a * b - product;
#else
  return __fmaf_rn(a, b, -product);
#endif
}
// a b, not regrouped with what it is multiplied by where a CPU compiler may do that.
DEVICE float product(float a, float b) {
#if defined(GRADLITE_NATIVE) && defined(__clang__)
#pragma clang fp reassociate(off)
  return a * b;
#elif defined(GRADLITE_NATIVE) && FLOAT_MATH_FUSES
  return __builtin_fmaf(a, b, 0.0f);
#else
  return a * b;
#endif
}
DEVICE double product(double a, double b) {
#if defined(GRADLITE_NATIVE) && defined(__clang__)
#pragma clang fp reassociate(off)
  return a * b;
#elif defined(GRADLITE_NATIVE) && FLOAT_MATH_FUSES
  return __builtin_fma(a, b, 0.0);
#else
  return a * b;
#endif
}
// a b, rounded before anything is added to it.
DEVICE float rounded_product(float a, float b) {
#if GRADLITE_ON_CPU
  return product(a, b);
#else
  return __fmul_rn(a, b);
#endif
}
DEVICE double rounded_product(double a, double b) {
#if GRADLITE_ON_CPU
  return product(a, b);
#else
  return __dmul_rn(a, b);
#endif
}
template <class T>
DEVICE T sigmoid(T x) {
  return reciprocal(T(1) + exp(-x));
}
}  // namespace math

DEVICE acc_t infinity() { return acc_t(bit_cast<float>(0x7f800000u)); }

// ------------------------------------------------------------------------------- vector access
// 16 bytes at a time where all pointers allow it, and element by element elsewhere.
constexpr int LANES = 16 / sizeof(scalar_t);
struct __attribute__((aligned(16))) Pack {
  scalar_t lane[LANES];
};

DEVICE bool aligned(const void* pointer) { return (u64(pointer) & 15u) == 0; }
template <class... More>
DEVICE bool aligned(const void* pointer, const More*... more) {
  return aligned(pointer) && aligned(more...);
}

template <class Function, class... Packs>
DEVICE Pack map_lanes(Function function, Packs... packs) {
  Pack result;
#pragma unroll
  for (int l = 0; l < LANES; l++) result.lane[l] = narrow(function(widen(packs.lane[l])...));
  return result;
}

// out[i] = function(in[i], ...) for i < n, by all threads of the launch. `out` may be one of `in`.
template <class Function, class... In>
DEVICE void elementwise(i64 n, scalar_t* out, Function function, const In*... in) {
  i64 done = 0;
#if !defined(GRADLITE_NATIVE)  // there the compiler finds the vectors itself
  if (aligned(out, in...)) {
    done = n / LANES * LANES;
    ROLLED
    for (i64 p = thread_index(); p < n / LANES; p += thread_count()) {
      reinterpret_cast<Pack*>(out)[p] =
          map_lanes(function, reinterpret_cast<const Pack*>(in)[p]...);
    }
  }
#endif
  ROLLED
  for (i64 i = done + thread_index(); i < n; i += thread_count()) {
    out[i] = narrow(function(widen(in[i])...));
  }
}
