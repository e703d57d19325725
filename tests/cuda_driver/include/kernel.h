// Ahead of a program's kernels: CUDA's names, as far as they are those of tests/cuda_on_cpu.
#pragma once

#define __CUDACC_VER_MAJOR__ 12
#define __CUDA_ARCH__ 900
#define __CUDACC_RTC__
#include "../../cuda_on_cpu/launch.h"
