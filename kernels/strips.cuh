// Reductions over the middle dimension of (outer, n, inner), without transposing: a block takes a
// strip of neighbours in `inner`, which it reads without gaps, and its rows share the n steps.
//
//     for_each_strip(outer, n, inner, [&](auto strip) {
//       const auto total = strip.sum([=](i64 at) { return widen(x[at]); });
//       strip.map(y, [=](i64 at, acc_t total) { return widen(x[at]) / total; }, total);
//     });
//
// Blocks have (32, 8) threads.
#pragma once
#include "team.cuh"

#if defined(GRADLITE_NATIVE)

// What a reduction gives: a value for each neighbour.
constexpr int STRIP = 64;
struct Values {
  acc_t of[STRIP];
};

struct Strip {
  i64 first, n, inner;
  int width;

  template <class Function, class... More>
  Values max(Function function, const More&... more) const {
    Values top;
    for (int t = 0; t < STRIP; t++) top.of[t] = -infinity();
    for (i64 i = 0, at = first; i < n; i++, at += inner) {
      for (int t = 0; t < width; t++) {
        top.of[t] = math::larger(function(at + t, more.of[t]...), top.of[t]);
      }
    }
    return top;
  }

  template <class Function, class... More>
  Values sum(Function function, const More&... more) const {
    Values total = {};
    for (i64 i = 0, at = first; i < n; i++, at += inner) {
      for (int t = 0; t < width; t++) total.of[t] += function(at + t, more.of[t]...);
    }
    return total;
  }

  template <class Function, class... More>
  Values values(Function function, const More&... more) const {
    Values result = {};
    for (int t = 0; t < width; t++) result.of[t] = function(more.of[t]...);
    return result;
  }

  template <class Function, class... More>
  void map(scalar_t* out, Function function, const More&... more) const {
    for (i64 i = 0, at = first; i < n; i++, at += inner) {
      INDEPENDENT
      for (int t = 0; t < width; t++) out[at + t] = narrow(function(at + t, more.of[t]...));
    }
  }
};

template <class Body>
DEVICE void for_each_strip(i64 outer, i64 n, i64 inner, Body body) {
  for (i64 o = 0; o < outer; o++) {
    for (i64 left = 0; left < inner; left += STRIP) {
      const i64 width = inner - left < STRIP ? inner - left : STRIP;
      body(Strip{o * n * inner + left, n, inner, int(width)});
    }
  }
}

#else

// One neighbour of the strip; its eight threads get the same value.
struct Strip {
  i64 first, n, inner;
  bool inside;

  template <class Function>
  __device__ acc_t max(Function function) const {
    acc_t top = -infinity();
    for_mine([&](i64 at) { top = math::larger(function(at), top); });
    return combine<Max>(top);
  }

  template <class Function, class... More>
  __device__ acc_t sum(Function function, const More&... more) const {
    acc_t total = 0;
    for_mine([&](i64 at) { total += function(at, more...); });
    return combine<Sum>(total);
  }

  template <class Function, class... More>
  __device__ acc_t values(Function function, const More&... more) const {
    return function(more...);
  }

  template <class Function, class... More>
  __device__ void map(scalar_t* out, Function function, const More&... more) const {
    for_mine([&](i64 at) { out[at] = narrow(function(at, more...)); });
  }

 private:
  template <class Function>
  __device__ void for_mine(Function function) const {
    if (!inside) return;
    for (i64 i = threadIdx.y; i < n; i += 8) function(first + i * inner);
  }

  template <class Operation>
  static __device__ acc_t combine(acc_t value) {
    __shared__ acc_t parts[8][32];
    parts[threadIdx.y][threadIdx.x] = value;
    __syncthreads();
    acc_t result = parts[0][threadIdx.x];
#pragma unroll
    for (int k = 1; k < 8; k++) result = Operation::of(result, parts[k][threadIdx.x]);
    __syncthreads();  // before the next reduction writes there again
    return result;
  }
};

template <class Body>
DEVICE void for_each_strip(i64 outer, i64 n, i64 inner, Body body) {
  const i64 across = (inner + 31) / 32;
  for (i64 s = blockIdx.x; s < outer * across; s += gridDim.x) {
    const i64 o = s / across, position = s % across * 32 + threadIdx.x;
    body(Strip{o * n * inner + position, n, inner, position < inner});
  }
}

#endif
