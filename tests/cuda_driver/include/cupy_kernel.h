// Ahead of CuPy's kernels: what they include, precompiled.
#pragma once

#include "kernel.h"
#include "cuda_math.h"

#include <cupy/complex.cuh>
#include <cupy/carray.cuh>
#include <cupy/atomics.cuh>
#include <cupy/math_constants.h>
