// What runtime.cpp (fibers, barriers) and checks.cpp (memory) tell each other.
#pragma once

#include "runtime.h"

namespace cuda_on_cpu {

constexpr unsigned max_block = 1024;  // threads; CUDA's own limit
constexpr size_t stack_bytes = 64 << 10;

// The thread that runs, and the time by its clocks.
struct Now {
  unsigned block;   // number of the block in the grid
  unsigned thread;  // number of the thread in the block
  // One more at every block barrier and every new block of a launch: accesses of one block with
  // different epochs are ordered by a barrier.
  unsigned epoch;
  unsigned block_start;  // epoch in which the block began
  // Vector clocks within the warp: clock[lane] is the last time of `lane` that this thread knows
  // to have passed. Only __syncwarp hands times on: shuffles and votes order no memory.
  const unsigned* clock;
};
extern Now now;

extern unsigned char* stacks;  // max_block stacks in one piece

struct Memory {
  unsigned char *begin, *end;
};
// The shared library of the kernels, and the __shared__ variables in it.
struct Library {
  Memory code, shared;
};
extern Library library;

void begin_checks(const Launch&, Memory dynamic_shared);
void end_checks(Launch*);
bool checking();

// Ends the launch; the addresses are those of the two accesses that collide.
[[noreturn]] void fail_at(const char* message, const void* code, uint64_t other_code = 0);
uint64_t code_offset(const void* code);

}  // namespace cuda_on_cpu
