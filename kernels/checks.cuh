// Indices and values that a kernel checks, because the host would have to wait to look at them.
#pragma once
#include "common.cuh"

DEVICE void note(i64* place, i64 value) {
#if defined(GRADLITE_NATIVE)
  *place = value;
#else  // many threads may come here
  atomicExch(reinterpret_cast<u64*>(place), u64(value));
#endif
}

// A value that is none of those that a place is for, whatever it is (`asserts.REFUSED`).
DEVICE void refuse(i64* errors) { note(errors, 2); }

// Where the n-th kind of number is noted that an op's kernels look at (`Launcher.errors`).
DEVICE i64* kind(i64* errors, int n) { return errors + 3 * n; }

// The index counted from the front, or -1 for one that is not valid.
DEVICE i64 checked(i64 index, i64 lowest, i64 size, i64* errors) {
  if (index >= lowest && index < size) return index < 0 ? index + size : index;
  note(errors + 1, index);
  note(errors + 2, size);
  note(errors, 1);
  return -1;
}
