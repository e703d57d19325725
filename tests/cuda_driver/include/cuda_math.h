// Functions of CUDA's that CuPy's kernels call and tests/cuda_on_cpu has no use for.
#pragma once

#include "kernel.h"

// CUDA's have these names for float as well as for double; in C `abs` is that of integers.
using std::abs, std::signbit;
using std::acos, std::acosh, std::asin, std::asinh, std::atan, std::atan2, std::atanh, std::cbrt;
using std::ceil, std::cos, std::cosh, std::erf, std::erfc, std::exp, std::exp2, std::expm1;
using std::floor, std::fmod, std::hypot, std::lgamma, std::log, std::log10, std::log1p, std::log2;
using std::pow, std::rint, std::round, std::sin, std::sinh, std::sqrt, std::tan, std::tanh;
using std::tgamma, std::trunc;

inline double sinpi(double x) { return sin(M_PI * std::fmod(x, 2.0)); }
inline double cospi(double x) { return cos(M_PI * std::fmod(x, 2.0)); }
inline double rcbrt(double x) { return 1 / cbrt(x); }
inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
inline double cyl_bessel_i0(double x) { return std::cyl_bessel_i(0.0, std::fabs(x)); }
inline double cyl_bessel_i1(double x) {
  return std::copysign(std::cyl_bessel_i(1.0, std::fabs(x)), x);
}

// By bisection of erfc, which keeps its digits where erf is next to 1.
inline double erfcinv(double y) {
  if (!(y >= 0 && y <= 2)) return NAN;
  if (y == 0 || y == 2) return y == 0 ? INFINITY : -INFINITY;
  double low = -6, high = 28;
  for (int i = 0; i < 100; i++) {
    double middle = 0.5 * (low + high);
    (erfc(middle) > y ? low : high) = middle;
  }
  return 0.5 * (low + high);
}
inline double erfinv(double x) { return x < 0 ? -erfcinv(1 + x) : erfcinv(1 - x); }
inline double normcdfinv(double p) { return -M_SQRT2 * erfcinv(2 * p); }
