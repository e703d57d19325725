// bfloat16, as far as CuPy's headers name it.
#pragma once

#include "kernel.h"

struct __nv_bfloat16 {
  unsigned short bits;

  __nv_bfloat16() = default;
  __nv_bfloat16(float v) {
    unsigned wide = __float_as_uint(v);
    unsigned rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
    bits = (unsigned short)(v == v ? rounded : 0x7fffu);
  }
  operator float() const { return __uint_as_float(unsigned(bits) << 16); }
};

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 v) { return v.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) {
  __nv_bfloat16 v;
  v.bits = bits;
  return v;
}
inline bool __hisnan(__nv_bfloat16 v) { return float(v) != float(v); }
inline bool __hisinf(__nv_bfloat16 v) { return (v.bits & 0x7fff) == 0x7f80; }
