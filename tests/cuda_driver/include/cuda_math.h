// Functions of CUDA's that CuPy's kernels call and tests/cuda_on_cpu has no use for.
#pragma once

#include "kernel.h"

using std::signbit;

inline double sinpi(double x) { return sin(M_PI * std::fmod(x, 2.0)); }
inline double cospi(double x) { return cos(M_PI * std::fmod(x, 2.0)); }
inline double rcbrt(double x) { return 1 / cbrt(x); }
inline double normcdf(double x) { return 0.5 * erfc(-x * M_SQRT1_2); }
