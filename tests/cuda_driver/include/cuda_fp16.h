// Half precision, as far as CuPy's headers name it.
#pragma once

#include "kernel.h"

struct __half_raw {
  unsigned short x;
};

struct half {
  _Float16 value;

  half() = default;
  half(float v) : value(_Float16(v)) {}
  half(const __half_raw& raw) { memcpy(&value, &raw, sizeof value); }
  operator float() const { return float(value); }
  operator __half_raw() const {
    __half_raw raw;
    memcpy(&raw, &value, sizeof raw);
    return raw;
  }
};
typedef half __half;

inline unsigned short __half_as_ushort(half v) { return __half_raw(v).x; }
inline half __ushort_as_half(unsigned short bits) { return half(__half_raw{bits}); }
inline half __float2half(float v) { return half(v); }
inline float __half2float(half v) { return float(v); }
