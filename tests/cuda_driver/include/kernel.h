// Ahead of a program's kernels: CUDA's names, as far as they are those of tests/cuda_on_cpu.
#pragma once

#define __CUDACC_VER_MAJOR__ 12
#define __CUDA_ARCH__ 900
#define __CUDACC_RTC__
#include "../../cuda_on_cpu/launch.h"

// A row of the table for a kernel that is named by an expression: an instance of a template.
#define CUDA_DRIVER_NAMED(text, ...)                                 \
  {text, cuda_on_cpu::signature(&__VA_ARGS__), 1024, "",             \
   [](cuda_on_cpu::Launch* how, void** arguments) {                  \
     return cuda_on_cpu::launch(&__VA_ARGS__, how, arguments);       \
   }}
