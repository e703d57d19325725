// Operands of elementwise kernels that broadcast: element (i / inner) % size of one stands beside
// element i of the result.
#pragma once
#include "common.cuh"

// There are fewer than 2^31 elements: a GPU divides numbers of 32 bits several times as fast.
DEVICE u32 place_of(u32 i, u32 inner, u32 size) { return i / inner % size; }

// Which element of an operand stands beside one of the result.
struct Places {
  i64 inner, size;
  __device__ i64 of(i64 i) const {
    if (inner == 1 && i < size) return i;
    return place_of(u32(i), u32(inner), u32(size));
  }
};

struct Operand {
  const scalar_t* data;
  i64 inner, size;
  __device__ bool whole(i64 n) const { return inner == 1 && size == n; }
  __device__ acc_t at(i64 i) const { return widen(data[Places{inner, size}.of(i)]); }
};

DEVICE Operand or_else(Operand operand, Operand other) { return operand.data ? operand : other; }

// function(results, in(i)...) leaves in results[k] what out[k][i] becomes, for i < n.
template <int COUNT, class Function, class... In>
DEVICE void map(i64 n, scalar_t* const (&out)[COUNT], Function function, const In&... in) {
#if defined(GRADLITE_NATIVE)
  for (int k = 0; k < COUNT; k++) {
    if (!out[k]) continue;
    if ((in.whole(n) && ...)) {
      const auto result = [=](auto... values) {
        acc_t results[COUNT];
        function(results, values...);
        return results[k];
      };
      elementwise(n, out[k], result, in.data...);
      continue;
    }
    for (i64 i = 0; i < n; i++) {
      acc_t results[COUNT];
      function(results, in.at(i)...);
      out[k][i] = narrow(results[k]);
    }
  }
#else
  i64 done = 0;
  bool packed = (in.whole(n) && ...) && aligned(in.data...);
  for (int k = 0; k < COUNT; k++) packed = packed && aligned(out[k]);
  if (packed) {
    done = n / LANES * LANES;
    ROLLED
    for (i64 p = thread_index(); p < n / LANES; p += thread_count()) {
      Pack packs[COUNT];
      const auto each = [&](auto... given) {
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          acc_t results[COUNT];
          function(results, widen(given.lane[l])...);
#pragma unroll
          for (int k = 0; k < COUNT; k++) packs[k].lane[l] = narrow(results[k]);
        }
      };
      each(reinterpret_cast<const Pack*>(in.data)[p]...);
#pragma unroll
      for (int k = 0; k < COUNT; k++) {
        if (out[k]) reinterpret_cast<Pack*>(out[k])[p] = packs[k];
      }
    }
  }
  ROLLED
  for (i64 i = done + thread_index(); i < n; i += thread_count()) {
    acc_t results[COUNT];
    function(results, in.at(i)...);
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
      if (out[k]) out[k][i] = narrow(results[k]);
    }
  }
#endif
}
