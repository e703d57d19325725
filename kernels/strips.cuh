// Reductions over the middle dimension of (outer, n, inner), without transposing: a block takes a
// strip of neighbours in `inner`, which it reads without gaps, and its rows share the n steps.
//
//     for_each_strip(outer, n, inner, [&](auto strip) {
//       const auto total = strip.sum([=](i64 at) { return widen(x[at]); });
//       strip.map(y, [=](i64 at, acc_t total) { return widen(x[at]) / total; }, total);
//     });
//
// Where strips are too few to fill a GPU, each is cut into parts of its steps, by two launches. The
// first leaves in `partials` what each part has, with `leave`; in the second, `with_partials` takes
// it from there, and maps the steps of a part again.
//
// Blocks have (w, h) threads: w neighbours, w a power of two, and h rows.
#pragma once
#include "team.cuh"

// Of some of the steps: the largest value, and the sum of exp(value - largest).
template <class Value>
struct Seen {
  Value top, total;
};

#if defined(GRADLITE_NATIVE)

// What a reduction gives: a value for each neighbour.
constexpr int STRIP = 64;
struct Values {
  acc_t of[STRIP];
};

struct Strip {
  i64 first, n, inner;
  int width;
  i64 neighbour, neighbours, part, parts;

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

  template <class Function>
  Seen<Values> seen(Function function) const {
    const Values top = max(function);
    return {top, sum([=](i64 at, acc_t top) { return math::exp(function(at) - top); }, top)};
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

  void leave(acc_t* partials, int k, const Values& value) const {
    acc_t* to = partials + (k * parts + part) * neighbours + neighbour;
    for (int t = 0; t < width; t++) to[t] = value.of[t];
  }

  // The strip of all parts' values.
  Strip of_partials() const { return {neighbour, parts, neighbours, width, 0, 0, 0, 1}; }
};

template <class Body>
DEVICE void for_each_strip(i64 outer, i64 n, i64 inner, i64 parts, Body body) {
  const i64 size = (n + parts - 1) / parts;
  for (i64 o = 0; o < outer; o++) {
    for (i64 left = 0; left < inner; left += STRIP) {
      const i64 width = inner - left < STRIP ? inner - left : STRIP;
      for (i64 part = 0; part < parts; part++) {
        const i64 steps = math::larger(i64(0), math::smaller(size, n - part * size));
        body(Strip{(o * n + part * size) * inner + left, steps, inner, int(width),
                   o * inner + left, outer * inner, part, parts});
      }
    }
  }
}

#else

// One neighbour of the strip; all threads that it has get the same value.
struct Strip {
  i64 first, n, inner;
  bool inside;
  i64 neighbour, neighbours, part, parts;

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

  // In one pass: the sum so far is scaled down to the largest value yet.
  template <class Function>
  __device__ Seen<acc_t> seen(Function function) const {
    constexpr int AT_ONCE = 8;
    acc_t top = -infinity(), total = 0;
    if (inside) {
      const int rows = blockDim.y;
      ROLLED
      for (i64 i = threadIdx.y; i < n; i += rows * AT_ONCE) {
        acc_t values[AT_ONCE], most = top;
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) {
          const i64 step = i + rows * k;
          values[k] = step < n ? function(first + step * inner) : -infinity();
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) most = math::larger(values[k], most);
        const acc_t base = most == -infinity() ? acc_t(0) : most;  // nothing is seen yet
        total *= math::exp(top - base);
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) total += math::exp(values[k] - base);
        top = most;
      }
    }
    const acc_t all = combine<Max>(top);
    return {all, combine<Sum>(total == 0 ? acc_t(0) : total * math::exp(top - all))};
  }

  template <class Function, class... More>
  __device__ acc_t values(Function function, const More&... more) const {
    return function(more...);
  }

  template <class Function, class... More>
  __device__ void map(scalar_t* out, Function function, const More&... more) const {
    for_mine([&](i64 at) { out[at] = narrow(function(at, more...)); });
  }

  __device__ void leave(acc_t* partials, int k, acc_t value) const {
    if (inside && threadIdx.y == 0) partials[(k * parts + part) * neighbours + neighbour] = value;
  }

  // The strip of all parts' values.
  __device__ Strip of_partials() const {
    return {neighbour, parts, neighbours, inside, 0, 0, 0, 1};
  }

 private:
  template <class Function>
  __device__ void for_mine(Function function) const {
    if (!inside) return;
#pragma unroll 4
    for (i64 i = threadIdx.y; i < n; i += blockDim.y) function(first + i * inner);
  }

  template <class Operation>
  static __device__ acc_t combine(acc_t value) {
    if (blockDim.y == 1) return value;
    __shared__ acc_t parts[256];
    parts[threadIdx.y * blockDim.x + threadIdx.x] = value;
    __syncthreads();
    acc_t result = parts[threadIdx.x];
    for (int k = 1; k < int(blockDim.y); k++) {
      result = Operation::of(result, parts[k * blockDim.x + threadIdx.x]);
    }
    __syncthreads();  // before the next reduction writes there again
    return result;
  }
};

template <class Body>
DEVICE void for_each_strip(i64 outer, i64 n, i64 inner, i64 parts, Body body) {
  const i64 width = blockDim.x, across = (inner + width - 1) / width, strips = outer * across;
  const i64 size = parts == 1 ? n : (n + parts - 1) / parts;
  for (i64 s = blockIdx.x; s < strips * parts; s += gridDim.x) {
    // Strips that lie beside each other one after another: they share pages of memory.
    const i64 part = parts == 1 ? 0 : s / strips, strip = s - part * strips;
    const i64 o = outer == 1 ? 0 : strip / across;
    const i64 position = (strip - o * across) * width + threadIdx.x;
    const i64 steps = math::larger(i64(0), math::smaller(size, n - part * size));
    body(Strip{(o * n + part * size) * inner + position, steps, inner, position < inner,
               o * inner + position, outer * inner, part, parts});
  }
}

#endif

template <class Body>
DEVICE void for_each_strip(i64 outer, i64 n, i64 inner, Body body) {
  for_each_strip(outer, n, inner, 1, body);
}

// The sum over all steps of a strip: of function(at), or of what the parts have left.
template <class Strip, class Function>
DEVICE auto strip_sum(const Strip& strip, const acc_t* partials, Function function) {
  return partials ? strip.of_partials().sum([=](i64 at) { return partials[at]; })
                  : strip.sum(function);
}

// The largest of all steps' values, and the sum of exp(value - largest).
template <class Strip, class Function>
DEVICE auto strip_seen(const Strip& strip, const acc_t* partials, Function function) {
  if (!partials) return strip.seen(function);
  const auto all = strip.of_partials();
  const acc_t* totals = partials + strip.parts * strip.neighbours;
  const auto top = all.max([=](i64 at) { return partials[at]; });
  const auto total = all.sum(
      [=](i64 at, acc_t top) { return totals[at] * math::exp(partials[at] - top); }, top);
  return decltype(strip.seen(function)){top, total};
}
