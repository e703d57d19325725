// Elementwise ops of two and three operands: those that choose between them, and sums with a
// product in them; what their gradients are, all operands' in one pass.
//
// Operands have the shape of the result. A gradient that is not wanted has a null pointer, and so
// has an operand that is then not read.
#include "common.cuh"

// function(results, in[i]...) leaves in results[k] what out[k][i] becomes, for i < n.
template <int COUNT, class Function, class... In>
DEVICE void elementwise_to(i64 n, scalar_t* const (&out)[COUNT], Function function,
                           const In*... in) {
#if defined(GRADLITE_NATIVE)
  for (int k = 0; k < COUNT; k++) {
    scalar_t* to = out[k];
    if (!to) continue;
    INDEPENDENT
    for (i64 i = 0; i < n; i++) {
      acc_t results[COUNT];
      function(results, widen(in[i])...);
      to[i] = narrow(results[k]);
    }
  }
#else
  i64 done = 0;
  bool packed = aligned(in...);
  for (int k = 0; k < COUNT; k++) packed = packed && aligned(out[k]);
  if (packed) {
    done = n / LANES * LANES;
    ROLLED
    for (i64 p = thread_index(); p < n / LANES; p += thread_count()) {
      Pack packs[COUNT];
      const auto map = [&](auto... given) {
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          acc_t results[COUNT];
          function(results, widen(given.lane[l])...);
#pragma unroll
          for (int k = 0; k < COUNT; k++) packs[k].lane[l] = narrow(results[k]);
        }
      };
      map(reinterpret_cast<const Pack*>(in)[p]...);
#pragma unroll
      for (int k = 0; k < COUNT; k++) {
        if (out[k]) reinterpret_cast<Pack*>(out[k])[p] = packs[k];
      }
    }
  }
  ROLLED
  for (i64 i = done + thread_index(); i < n; i += thread_count()) {
    acc_t results[COUNT];
    function(results, widen(in[i])...);
#pragma unroll
    for (int k = 0; k < COUNT; k++) {
      if (out[k]) out[k][i] = narrow(results[k]);
    }
  }
#endif
}

// -------------------------------------------------------------------------------- choices
KERNEL(where_backward)
(const scalar_t* __restrict__ grad, const bool* __restrict__ condition,
 scalar_t* __restrict__ dx, scalar_t* __restrict__ dy, i64 n) {
  if (dx) {
    INDEPENDENT
    for (i64 i = thread_index(); i < n; i += thread_count()) {
      dx[i] = condition[i] ? grad[i] : narrow(0);
    }
  }
  if (dy) {
    INDEPENDENT
    for (i64 i = thread_index(); i < n; i += thread_count()) {
      dy[i] = condition[i] ? narrow(0) : grad[i];
    }
  }
}

// Bounds that are not there are infinite. A NaN stays one, and gets no gradient.
KERNEL(clamp_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 n, double low, double high) {
  elementwise(
      n, y,
      [=](acc_t v) {
        v = v < acc_t(low) ? acc_t(low) : v;
        return v > acc_t(high) ? acc_t(high) : v;
      },
      x);
}

KERNEL(clamp_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, scalar_t* __restrict__ dx,
 i64 n, double low, double high) {
  elementwise(
      n, dx,
      [=](acc_t slope, acc_t v) {
        return (v >= acc_t(low)) & (v <= acc_t(high)) ? slope : acc_t(0);
      },
      grad, x);
}

// ------------------------------------------------------------------- sums with a product in them
// out may be x.
KERNEL(addcmul_forward)
(const scalar_t* x, const scalar_t* a, const scalar_t* b, scalar_t* out, i64 n, double value) {
  elementwise(
      n, out,
      [=](acc_t v, acc_t first, acc_t second) { return v + first * second * acc_t(value); }, x,
      a, b);
}

KERNEL(addcmul_backward)
(const scalar_t* __restrict__ grad, const scalar_t* a, const scalar_t* b,
 scalar_t* __restrict__ da, scalar_t* __restrict__ db, i64 n, double value) {
  scalar_t* const out[2] = {da, db};
  elementwise_to<2>(
      n, out,
      [=](acc_t* results, acc_t slope, acc_t first, acc_t second) {
        results[0] = slope * (second * acc_t(value));
        results[1] = slope * (first * acc_t(value));
      },
      grad, a ? a : b, b ? b : a);
}

KERNEL(addcdiv_forward)
(const scalar_t* x, const scalar_t* a, const scalar_t* b, scalar_t* out, i64 n, double value) {
  elementwise(
      n, out,
      [=](acc_t v, acc_t first, acc_t second) { return v + first / second * acc_t(value); }, x,
      a, b);
}

KERNEL(addcdiv_backward)
(const scalar_t* __restrict__ grad, const scalar_t* a, const scalar_t* b,
 scalar_t* __restrict__ da, scalar_t* __restrict__ db, i64 n, double value) {
  scalar_t* const out[2] = {da, db};
  elementwise_to<2>(
      n, out,
      [=](acc_t* results, acc_t slope, acc_t first, acc_t second) {
        results[0] = slope * (acc_t(value) / second);
        results[1] = -slope * (first * acc_t(value) / (second * second));
      },
      grad, a ? a : b, b ? b : a);
}

// From the nearer end.
struct Between {
  __device__ acc_t operator()(acc_t start, acc_t end, acc_t weight) const {
    const acc_t apart = end - start;
    return math::abs(weight) < acc_t(0.5) ? start + apart * weight : end - apart * (1 - weight);
  }
};

// The weight is `number` where there are none. out may be x.
KERNEL(lerp_forward)
(const scalar_t* x, const scalar_t* end, const scalar_t* weight, scalar_t* out, i64 n,
 double number) {
  if (weight) {
    elementwise(n, out, Between{}, x, end, weight);
  } else {
    elementwise(
        n, out, [=](acc_t a, acc_t b) { return Between{}(a, b, acc_t(number)); }, x, end);
  }
}

KERNEL(lerp_backward)
(const scalar_t* __restrict__ grad, const scalar_t* x, const scalar_t* end,
 const scalar_t* weight, scalar_t* __restrict__ dx, scalar_t* __restrict__ dend,
 scalar_t* __restrict__ dweight, i64 n) {
  scalar_t* const out[3] = {dx, dend, dweight};
  elementwise_to<3>(
      n, out,
      [=](acc_t* results, acc_t slope, acc_t a, acc_t b, acc_t w) {
        results[0] = slope * (1 - w);
        results[1] = slope * w;
        results[2] = slope * (b - a);
      },
      grad, x ? x : grad, end ? end : grad, weight ? weight : grad);
}

// y = slope x, the slope being 1 above 0, and elsewhere as far from `lower` to `upper` as is drawn.
KERNEL(rrelu_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ draws, scalar_t* __restrict__ y,
 scalar_t* __restrict__ slope, i64 n, double lower, double upper) {
  scalar_t* const out[2] = {y, slope};
  elementwise_to<2>(
      n, out,
      [=](acc_t* results, acc_t value, acc_t draw) {
        const acc_t drawn = widen(narrow(draw * acc_t(upper - lower) + acc_t(lower)));
        results[1] = value <= 0 ? drawn : acc_t(1);
        results[0] = value * results[1];
      },
      x, draws);
}

// ------------------------------------------------------------------------------- triangles
// Of matrices (rows, columns) what lies on the diagonal that is moved by `diagonal` and below
// (`lower`), or on it and above; 0 elsewhere.
KERNEL(triangle)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 n, i64 rows, i64 columns,
 i64 diagonal, i64 lower) {
#if defined(GRADLITE_NATIVE)
  for (i64 row = 0; row < n / columns; row++) {
    const i64 edge = row % rows + diagonal;
    INDEPENDENT
    for (i64 c = 0; c < columns; c++) {
      y[row * columns + c] = (lower ? c <= edge : c >= edge) ? x[row * columns + c] : narrow(0);
    }
  }
#else
  // There are fewer than 2^31 elements: a GPU divides numbers of 32 bits several times as fast.
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const u32 row = u32(i) / u32(columns), c = u32(i) - row * u32(columns);
    const i64 edge = i64(row % u32(rows)) + diagonal;
    y[i] = (lower ? c <= edge : c >= edge) ? x[i] : narrow(0);
  }
#endif
}
