// What the generated code of a captured step is written with.
//
// Everything is a plain loop that the compiler vectorises; nothing allocates. The usual functions of
// floats are those of the kernels. Calls of the C library keep loops scalar, but for those that
// glibc has for whole vectors too (GRADLITE_MVEC is its minor version: `vector_functions`).
#include <cstdlib>
#include <cstring>

#include "float_math.h"

typedef signed char i8;
typedef short i16;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
// LOOP stands ahead of a loop whose steps do not meet in memory, UNROLLED of one over registers, to
// be unrolled before the compiler decides what lives in memory, and LOOP_FOR_max and _min of one for
// the extreme `t` of numbers and whether one of them is `nan`.
#if defined(__clang__)
#define LOOP _Pragma("clang loop vectorize(assume_safety)")
#define UNROLLED _Pragma("clang loop unroll(full)")
// The lanes of OpenMP's own max begin here with the least finite number, which is larger than -inf.
// (Of a name in front of < clang remembers which of the types' variables it was the first time.)
#define NUMBERS bool, i8, i16, int, i64, u8, u16, u32, u64, float, double
#pragma omp declare reduction(largest : NUMBERS : omp_out = omp_in > omp_out ? omp_in : omp_out) \
    initializer(omp_priv = omp_orig)
#pragma omp declare reduction(least : NUMBERS : omp_out = omp_out > omp_in ? omp_in : omp_out) \
    initializer(omp_priv = omp_orig)
#undef NUMBERS
#define LOOP_FOR_max _Pragma("omp simd reduction(largest:t) reduction(|:nan)")
#define LOOP_FOR_min _Pragma("omp simd reduction(least:t) reduction(|:nan)")
#else
#define LOOP _Pragma("GCC ivdep")
#define UNROLLED _Pragma("GCC unroll 32")
#define LOOP_FOR_max _Pragma("omp simd reduction(max:t) reduction(|:nan)")
#define LOOP_FOR_min _Pragma("omp simd reduction(min:t) reduction(|:nan)")
#endif
#define NEVER_INLINE __attribute__((noinline)) static

template <class To, class From>
static inline To bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits() between different sizes");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}

// The upper half of a float, rounded to the nearest even one; computed in float.
struct bfloat16_t {
  u16 half;
  bfloat16_t() = default;
  bfloat16_t(float x) {
    const u32 whole = bits<u32>(x), rounded = whole + 0x7fffu + ((whole >> 16) & 1u);
    half = x == x ? u16(rounded >> 16) : u16((whole >> 16) | 0x40u);
  }
  operator float() const { return bits<float>(u32(half) << 16); }
  bfloat16_t& operator+=(float x) { return *this = bfloat16_t(float(*this) + x); }
};

// ----------------------------------------------------------------------------- functions
#if defined(GRADLITE_MVEC) && !defined(__clang__)
#define OF_DOUBLES(name, ...)                                                                \
  __attribute__((simd("notinbranch"), const, nothrow)) double name(__VA_ARGS__);
#define OF_FLOATS(name, ...)                                                                 \
  __attribute__((simd("notinbranch"), const, nothrow)) float name(__VA_ARGS__);
extern "C" {
OF_FLOATS(sinf, float) OF_FLOATS(cosf, float) OF_FLOATS(powf, float, float)
OF_DOUBLES(sin, double) OF_DOUBLES(cos, double) OF_DOUBLES(pow, double, double)
OF_DOUBLES(exp, double) OF_DOUBLES(log, double)
#if GRADLITE_MVEC >= 35
OF_FLOATS(tanf, float) OF_FLOATS(asinf, float) OF_FLOATS(acosf, float) OF_FLOATS(atanf, float)
OF_FLOATS(sinhf, float) OF_FLOATS(coshf, float) OF_FLOATS(asinhf, float) OF_FLOATS(acoshf, float)
OF_FLOATS(atanhf, float) OF_FLOATS(exp2f, float) OF_FLOATS(log2f, float) OF_FLOATS(log10f, float)
OF_FLOATS(atan2f, float, float) OF_FLOATS(hypotf, float, float)
OF_DOUBLES(tan, double) OF_DOUBLES(asin, double) OF_DOUBLES(acos, double) OF_DOUBLES(atan, double)
OF_DOUBLES(sinh, double) OF_DOUBLES(cosh, double) OF_DOUBLES(asinh, double)
OF_DOUBLES(acosh, double) OF_DOUBLES(atanh, double) OF_DOUBLES(exp2, double)
OF_DOUBLES(log2, double) OF_DOUBLES(log10, double) OF_DOUBLES(tanh, double)
OF_DOUBLES(log1p, double) OF_DOUBLES(expm1, double) OF_DOUBLES(atan2, double, double)
OF_DOUBLES(hypot, double, double)
#endif
}
#endif

template <class T>
static inline T f_max(T a, T b) {
  return a > b || a != a ? a : b;
}
template <class T>
static inline T f_min(T a, T b) {
  return a < b || a != a ? a : b;
}
template <class T>
static inline T f_clip(T x, T low, T high) {
  x = x < low ? low : x;
  return x > high ? high : x;
}

static inline float f_exp(float x) { return float_math::exp(x); }
static inline float f_expm1(float x) { return float_math::expm1(x); }
static inline float f_log(float x) { return float_math::log(x); }
static inline float f_log1p(float x) { return float_math::log1p(x); }
static inline float f_tanh(float x) { return float_math::tanh(x); }
// The standard normal distribution's cdf as 1 / (1 + e^(x R(x²))), R that of backends/special.py
// times -2. At the lower bound of x the power is 2^128, an infinity, and the result 0.
static inline float f_normal_cdf(float x) {
  float bounded = float_math::between(x, -22.54f, 20.0f);
  float z = float_math::between(bounded * bounded, -1.0f, 36.0f);
  float p = -3.51234286e-9f;
  p = p * z + 2.64526705e-7f;
  p = p * z - 7.92948867e-6f;
  p = p * z + 1.10612389e-4f;
  p = p * z + 6.51899609e-5f;
  p = p * z - 7.26661682e-2f;
  p = p * z - 1.59576988f;
  float t = p * bounded, n = float_math::octaves(t);
  float power = (1.0f + float_math::expm1_in_octave(float_math::within_octave(t, n))) *
                float_math::power_of_two((int)n);
  float result = 1.0f / (1.0f + power);
  return x != x ? x : result;
}
static inline double f_exp(double x) { return __builtin_exp(x); }
static inline double f_tanh(double x) { return __builtin_tanh(x); }
static inline double f_log(double x) { return __builtin_log(x); }
static inline double f_log1p(double x) { return __builtin_log1p(x); }
static inline double f_expm1(double x) { return __builtin_expm1(x); }
static inline float f_sin(float x) { return __builtin_sinf(x); }
static inline double f_sin(double x) { return __builtin_sin(x); }
static inline float f_cos(float x) { return __builtin_cosf(x); }
static inline double f_cos(double x) { return __builtin_cos(x); }
static inline float f_pow(float x, float y) { return __builtin_powf(x, y); }
static inline double f_pow(double x, double y) { return __builtin_pow(x, y); }
static inline float f_sqrt(float x) { return __builtin_sqrtf(x); }
static inline double f_sqrt(double x) { return __builtin_sqrt(x); }
static inline float f_abs(float x) { return __builtin_fabsf(x); }
static inline double f_abs(double x) { return __builtin_fabs(x); }
static inline int f_abs(int x) { return x < 0 ? -x : x; }
static inline i64 f_abs(i64 x) { return x < 0 ? -x : x; }
static inline float f_floor(float x) { return __builtin_floorf(x); }
static inline double f_floor(double x) { return __builtin_floor(x); }
static inline float f_ceil(float x) { return __builtin_ceilf(x); }
static inline double f_ceil(double x) { return __builtin_ceil(x); }
static inline float f_rint(float x) { return __builtin_rintf(x); }
static inline double f_rint(double x) { return __builtin_rint(x); }
static inline float f_trunc(float x) { return __builtin_truncf(x); }
static inline double f_trunc(double x) { return __builtin_trunc(x); }
static inline float f_copysign(float x, float y) { return __builtin_copysignf(x, y); }
static inline double f_copysign(double x, double y) { return __builtin_copysign(x, y); }
#define OF_ONE(name)                                                      \
  static inline float f_##name(float x) { return __builtin_##name##f(x); } \
  static inline double f_##name(double x) { return __builtin_##name(x); }
#define OF_TWO(name)                                                                            \
  static inline float f_##name(float x, float y) { return __builtin_##name##f(x, y); }           \
  static inline double f_##name(double x, double y) { return __builtin_##name(x, y); }
OF_ONE(tan) OF_ONE(asin) OF_ONE(acos) OF_ONE(atan) OF_ONE(sinh) OF_ONE(cosh)
OF_ONE(asinh) OF_ONE(acosh) OF_ONE(atanh) OF_ONE(exp2) OF_ONE(log2) OF_ONE(log10)
OF_TWO(atan2) OF_TWO(hypot) OF_TWO(fmod)

// As NumPy has them: the remainder has the divisor's sign, and whole numbers have 0 for it and
// for the quotient where the divisor is 0.
template <class T>
static inline T f_divided(T x, T y, T& rest) {
  rest = f_fmod(x, y);
  if (y == T(0)) return x / y;
  T quotient = (x - rest) / y;
  if (rest == T(0)) {
    rest = f_copysign(T(0), y);
  } else if ((y < T(0)) != (rest < T(0))) {
    rest += y;
    quotient -= T(1);
  }
  if (quotient == T(0)) return f_copysign(T(0), x / y);
  const T whole = f_floor(quotient);
  return quotient - whole > T(0.5) ? whole + T(1) : whole;
}
static inline float f_remainder(float x, float y) { float r; f_divided(x, y, r); return r; }
static inline double f_remainder(double x, double y) { double r; f_divided(x, y, r); return r; }
static inline float f_floor_divide(float x, float y) { float r; return f_divided(x, y, r); }
static inline double f_floor_divide(double x, double y) { double r; return f_divided(x, y, r); }
template <class T>
static inline T f_fmod(T x, T y) {
  return y == 0 || (y < 0 && T(y + 1) == 0) ? T(0) : T(x % y);
}
template <class T>
static inline T f_remainder(T x, T y) {
  const T rest = f_fmod(x, y);
  return rest != 0 && (rest < 0) != (y < 0) ? T(rest + y) : rest;
}
template <class T>
static inline T f_floor_divide(T x, T y) {
  if (y == 0) return T(0);
  if (y < 0 && T(y + 1) == 0) return T(0 - x);  // the smallest number has no opposite
  const T quotient = T(x / y);
  return quotient * y != x && (x < 0) != (y < 0) ? T(quotient - 1) : quotient;
}
static inline bool f_invert(bool x) { return !x; }
template <class T>
static inline T f_invert(T x) {
  return T(~x);
}
template <class T>
static inline T f_fmax(T x, T y) {
  return x >= y || y != y ? x : y;
}
template <class T>
static inline T f_fmin(T x, T y) {
  return x <= y || y != y ? x : y;
}
template <class T>
static inline T f_logaddexp(T x, T y) {
  const T high = x > y ? x : y, apart = x > y ? y - x : x - y;
  return x == y ? x + T(0.693147180559945309417232121458) : x != x ? x : y != y ? y
                : high + f_log1p(f_exp(apart));
}
template <class T>
static inline T f_sign(T x) {
  return x != x ? x : T((x > 0) - (x < 0));
}
template <class T>
static inline bool f_isfinite(T x) {
  return x - x == T(0);
}
template <class T>
static inline bool f_isinf(T x) {
  return x == x && !f_isfinite(x);
}
static inline bool f_signbit(float x) { return __builtin_signbit(x); }
static inline bool f_signbit(double x) { return __builtin_signbit(x); }

// ------------------------------------------------------------------------------- threads
// Who runs chunks of work on several threads, and how many there are.
static void (*run_chunks)(void (*)(void*, i64), void*, i64);
static const int* how_many;
extern "C" void gradlite_use(void* run, const int* count) {
  run_chunks = (decltype(run_chunks))run;
  how_many = count;
}
static inline int threads() { return how_many ? *(const volatile int*)how_many : 1; }

// What is worth a second thread: so many multiplications, some 60 us of them.
static constexpr i64 SHARED = 1 << 22;

// Call body(0), ..., body(chunks - 1), in any order and perhaps at once, where it is worth it.
template <class Body>
static inline void parallel(bool worth, i64 chunks, const Body& body) {
  if (!worth || chunks < 2 || threads() < 2) {
    for (i64 i = 0; i < chunks; i++) body(i);
    return;
  }
  run_chunks(
      [](void* context, i64 i) {
        const Body own = *(const Body*)context;  // in registers, where no store changes it
        own(i);
      },
      (void*)&body, chunks);
}

// Memory of this thread's own, of which nothing is left after the next call for the same purpose.
template <int PURPOSE = 0>
static inline char* scratch(i64 bytes) {
  static thread_local struct Room {
    char* at = nullptr;
    i64 size = 0;
    ~Room() { free(at); }
  } room;
  if (room.size < bytes) {
    free(room.at);
    room.size = (bytes + 4095) & ~i64(4095);
    room.at = (char*)aligned_alloc(64, room.size);
  }
  return room.at;
}

// ------------------------------------------------------------------------------- vectors
// A vector as wide as the processor's registers: wider ones would live in memory.
#if defined(__AVX512F__)
static constexpr int WIDE = 64;
#elif defined(__AVX__)
static constexpr int WIDE = 32;
#else
static constexpr int WIDE = 16;
#endif
template <class T>
struct Vector {
  static constexpr int lanes = WIDE / sizeof(T);
  typedef T type __attribute__((vector_size(WIDE), aligned(sizeof(T))));
};

// A long sum is made of the sums of so many numbers each. One after another, each number would be
// rounded to what the sum has grown to, and the error would grow with their count.
static constexpr i64 RUN = 256;
