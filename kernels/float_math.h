// Functions of floats for compilers of the CPU: free of branches and calls, so that the loops they
// stand in become vectors.
//
// Arguments are reduced as Cody and Waite do it (Software Manual for the Elementary Functions,
// 1980); the polynomials are our own minimax fits (Remez's exchange), their coefficients rounded
// one after another to floats, the later ones fitted again each time. Errors, in units in the last
// place, are below 1 for exp and log, 1.5 for expm1, log1p and erf, 2.5 for tanh and 5 for erfc,
// denormal results included; infinities and NaNs are as in the C library.
//
// Where a compiler may regroup sums (-fassociative-math), it takes fused multiply-adds to keep
// the order that these functions need.
#pragma once

// Half precision, to keep numbers in. clang has _Float16 on x86-64 from its version 15 on, or where
// the processor computes in it, and g++ on ARM from 13 on; they have had __fp16 for long.
#if defined(__clang__) && !defined(__FLT16_MANT_DIG__)
#define _Float16 __fp16
#elif defined(__aarch64__) && !defined(__clang__) && __GNUC__ < 13
#define _Float16 __fp16
#endif

namespace float_math {

#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define FLOAT_MATH_FUSES 1
#else
#define FLOAT_MATH_FUSES 0
#endif
#define FLOAT_MATH static inline __attribute__((always_inline))

template <class To, class From>
FLOAT_MATH To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From), "bits_as between different sizes");
  To to;
  __builtin_memcpy(&to, &from, sizeof to);
  return to;
}

// a b + c
FLOAT_MATH float fused(float a, float b, float c) {
#if FLOAT_MATH_FUSES
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

FLOAT_MATH double fused(double a, double b, double c) {
#if FLOAT_MATH_FUSES
  return __builtin_fma(a, b, c);
#else
  return a * b + c;
#endif
}

// A square, or 0 for a denormal one whose root is lost when eps is added to it: processors take
// twice as long for the roots of denormal numbers. Eps hides those of which it is 2^24 or 2^53 times.
template <class T>
FLOAT_MATH T unless_hidden(T square, T eps) {
  constexpr bool IS_FLOAT = sizeof(T) == 4;
  constexpr T NORMAL = IS_FLOAT ? T(1.17549435e-38) : T(2.2250738585072014e-308);
  constexpr T LARGE = IS_FLOAT ? T(2e-12) : T(2e-138);
  const T least = eps > LARGE ? NORMAL : T(0);
  return square < least ? T(0) : square;
}

// c[0] x^n + c[1] x^(n - 1) + ... + c[n]
FLOAT_MATH float polynomial(float, float c) { return c; }
template <class... More>
FLOAT_MATH float polynomial(float x, float c, float next, More... more) {
  return polynomial(x, fused(c, x, next), more...);
}

// 2^n for a normal result
FLOAT_MATH float power_of_two(int n) { return bits_as<float>(unsigned(n + 127) << 23); }

// The whole number nearest to x / ln 2.
FLOAT_MATH float octaves(float x) { return __builtin_rintf(x * 1.44269504f); }

// x - n ln 2, ln 2 in two parts of which n times the first is exact.
FLOAT_MATH float within_octave(float x, float n) {
  return fused(n, 2.12194440e-4f, fused(n, -0.693359375f, x));
}

// x between a negative and a positive bound, compared as whole numbers, for which compilers have
// instructions; NaNs become one of the bounds.
FLOAT_MATH float between(float x, float low, float high) {
  const unsigned word = bits_as<unsigned>(x), lowest = bits_as<unsigned>(low);
  const int raised = int(word > lowest ? lowest : word), highest = bits_as<int>(high);
  return bits_as<float>(raised > highest ? highest : raised);
}

// exp(r) - 1 for |r| <= ln(2) / 2, with the accuracy that a sum with 1 needs.
FLOAT_MATH float expm1_in_octave(float r) {
  const float p = polynomial(r, 1.38389028e-3f, 8.36919248e-3f, 4.16681021e-2f, 1.66665167e-1f,
                             4.99999940e-1f);
  return fused(p, r * r, r);
}

// exp(high + low) for -240 < high < 89, low a correction to the last place of high. 2^n is applied
// in two halves, so that denormal results are right, and the second not by a plain product, whose
// factors a compiler might multiply with others of the caller's: 0 times infinity is NaN.
FLOAT_MATH float exp_of_sum(float high, float low) {
#if defined(__clang__)
#pragma clang fp reassociate(off)
#endif
  const float n = octaves(high), rest = expm1_in_octave(within_octave(high, n) + low);
  const int whole = int(n), half = whole >> 1;
  const float first = power_of_two(half), second = power_of_two(whole - half);
  return fused(fused(rest, first, first), second, 0.0f);
}

FLOAT_MATH float exp(float x) {
  const float result = exp_of_sum(between(x, -104.0f, 89.0f), 0.0f);
  return x == x ? result : x;
}

// exp(r) - 1 for |r| <= ln(2) / 2
FLOAT_MATH float expm1_of_rest(float r) {
  const float p = polynomial(r, 1.50460750e-4f, 1.39305426e-3f, 8.34150985e-3f, 4.16665114e-2f,
                             1.66666359e-1f, 0.5f);
  return fused(p, r * r, r);
}

FLOAT_MATH float expm1(float x) {
  const float bounded = between(x, -20.0f, 89.0f);
  const float n = octaves(bounded), rest = expm1_of_rest(within_octave(bounded, n));
  const float half = power_of_two(int(n) - 1);  // 2^128 is no float
  const float result = fused(rest, half, half - 0.5f);
  return __builtin_fabsf(x) > 1e-20f ? result + result : x;  // half of a denormal is rounded
}

// log1p(f) + n ln 2 for sqrt(1/2) <= 1 + f <= sqrt(2)
FLOAT_MATH float log_of_parts(float f, float n) {
  const float square = f * f;
  const float p = polynomial(f, -7.64164478e-2f, 1.27662241e-1f, -1.31594554e-1f, 1.42009482e-1f,
                             -1.66233346e-1f, 2.00012609e-1f, -2.50008225e-1f, 3.33333313e-1f);
  const float tail = fused(-0.5f, square, fused(p * f, square, n * -2.12194440e-4f));
  return fused(n, 0.693359375f, tail + f);
}

// x = 2^n m with m from sqrt(1/2) to sqrt(2): the number whose upper nine bits are n, and m.
FLOAT_MATH int octave_bits(float x) { return bits_as<int>(x) - 0x3f3504f3; }
FLOAT_MATH float mantissa(int octave) {
  return bits_as<float>((octave & 0x7fffff) + 0x3f3504f3);
}

// What a logarithm is where its argument `x` is no positive finite number.
FLOAT_MATH float log_or_special(float x, float result) {
  const float finite = x < __builtin_inff() ? result : x;
  return x > 0.0f ? finite : x == 0.0f ? -__builtin_inff() : __builtin_nanf("");
}

FLOAT_MATH float log(float x) {
  const bool denormal = x < 1.17549435e-38f;
  const int octave = octave_bits(denormal ? x * 8388608.0f : x);
  const int n = (octave >> 23) - (denormal ? 23 : 0);
  return log_or_special(x, log_of_parts(mantissa(octave) - 1.0f, float(n)));
}

FLOAT_MATH float log1p(float x) {
  const float sum = 1.0f + x;
  const int octave = octave_bits(sum), n = octave >> 23;
  // (1 + x) / 2^n - 1 without the rounding of 1 + x, which is x itself where that matters not.
  const float scale = power_of_two(n < 64 ? -n : 0);
  const float f = n < 64 ? fused(x, scale, scale - 1.0f) : mantissa(octave) - 1.0f;
  return __builtin_copysignf(log_or_special(sum, log_of_parts(f, float(n))), x);
}

// From exp(2 |x|) - 1, which keeps the relative accuracy around 0.
FLOAT_MATH float tanh(float x) {
  const float twice = 2.0f * __builtin_fabsf(x), bounded = twice > 20.0f ? 20.0f : twice;
  const float n = octaves(bounded), scale = power_of_two(int(n));
  const float e = fused(expm1_of_rest(within_octave(bounded, n)), scale, scale - 1.0f);
  return __builtin_copysignf(e / (e + 2.0f), x);
}

// erfc(|x|) = exp(-x^2) P(s) / (1 + |x| / 2) with s = |x| / (2 + |x|): a relative of the form of
// Shepherd and Laframboise (Mathematics of Computation 36, 1981) that is exact at 0. P is fitted
// for |x| < 10.2, from where on the result is 0. `bell` becomes exp(-x^2).
FLOAT_MATH float erfc_of_magnitude(float x, float& bell) {
  const float magnitude = __builtin_fabsf(x), a = magnitude > 11.0f ? 11.0f : magnitude;
  const float w = 1.0f / fused(0.5f, a, 1.0f), s = 0.5f * a * w, square = a * a;
  const float p = polynomial(s, 3.49452645e-2f, -1.62949264e-1f, 2.64527887e-1f, -1.68922588e-1f,
                             8.98153633e-2f, -1.22659937e-1f, -9.35262591e-2f, 2.11101174e-1f,
                             4.86515403e-1f, -1.25675893f, 1.0f);
  bell = exp_of_sum(-square, fused(-a, a, square));
  return p * w * bell;
}
FLOAT_MATH float erfc_of_magnitude(float x) {
  float bell;
  return erfc_of_magnitude(x, bell);
}

FLOAT_MATH float erfc(float x) {
  const float right = erfc_of_magnitude(x);
  return x < 0.0f ? 2.0f - right : right;
}

FLOAT_MATH float erf(float x) {
  const float p = polynomial(x * x, -6.34851865e-4f, 5.05770370e-3f, -2.68072877e-2f,
                             1.12828650e-1f, -3.76125902e-1f, 1.28379166e-1f);
  const float outside = __builtin_copysignf(1.0f - erfc_of_magnitude(x), x);
  return __builtin_fabsf(x) < 0.85f ? fused(p, x, x) : outside;
}

}  // namespace float_math
