// Elementwise ops of two and three operands: those that choose between them, and sums with a
// product in them; what their gradients are, all operands' in one pass.
//
// Operands are broadcast (operands.cuh). A gradient that is not wanted has a null pointer, and so
// has an operand that is then not read.
#include "operands.cuh"

// -------------------------------------------------------------------------------- choices
KERNEL(where_backward)
(const scalar_t* __restrict__ grad, const bool* __restrict__ condition,
 scalar_t* __restrict__ dx, scalar_t* __restrict__ dy, i64 n, i64 grad_inner, i64 grad_size,
 i64 inner, i64 size) {
  const Places slopes{grad_inner, grad_size}, conditions{inner, size};
  ROLLED
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const bool holds = condition[conditions.of(i)];
    const scalar_t slope = grad[slopes.of(i)];
    if (dx) dx[i] = holds ? slope : narrow(0);
    if (dy) dy[i] = holds ? narrow(0) : slope;
  }
}

// Bounds that are not there are infinite. A NaN stays one, and gets no gradient.
// y may be x.
KERNEL(clamp_forward)
(const scalar_t* x, scalar_t* y, i64 n, double low, double high) {
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

// Whether x and y are apart by no more than atol + rtol |y|, every step of which is rounded as in
// arrays of the dtype.
KERNEL(is_close)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, bool* __restrict__ result, i64 n,
 double rtol, double atol, i64 equal_nan, i64 x_inner, i64 x_size, i64 y_inner, i64 y_size) {
  const Operand left{x, x_inner, x_size}, right{y, y_inner, y_size};
  const auto rounded = [](acc_t value) { return widen(narrow(value)); };
  ROLLED
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const acc_t v = left.at(i), w = right.at(i);
    const acc_t apart = rounded(math::abs(v - w));
    const acc_t share = rounded(math::rounded_product(acc_t(rtol), math::abs(w)));
    const acc_t most = rounded(acc_t(atol) + share);
    const bool nans = equal_nan && v != v && w != w;
    result[i] = v == w || nans || (apart < infinity() && apart <= most);
  }
}

// Bounds of which one may have no array, and is then read as x. A NaN among the three is the result.
KERNEL(clamp_between_forward)
(const scalar_t* x, const scalar_t* low, const scalar_t* high, scalar_t* __restrict__ y, i64 n,
 i64 x_inner, i64 x_size, i64 low_inner, i64 low_size, i64 high_inner, i64 high_size) {
  scalar_t* const out[1] = {y};
  const Operand value{x, x_inner, x_size};
  const bool alone = !high;
  map(
      n, out,
      [=](acc_t* to, acc_t v, acc_t least, acc_t most) {
        const acc_t above = least > v || least != least ? least : v;
        to[0] = !alone && (most < above || most != most) ? most : above;
      },
      value, or_else({low, low_inner, low_size}, value),
      or_else({high, high_inner, high_size}, value));
}

// Where the bounds cross, the upper one has the gradient.
KERNEL(clamp_between_backward)
(const scalar_t* __restrict__ grad, const scalar_t* x, const scalar_t* low, const scalar_t* high,
 scalar_t* __restrict__ dx, scalar_t* __restrict__ dlow, scalar_t* __restrict__ dhigh, i64 n,
 i64 grad_inner, i64 grad_size, i64 x_inner, i64 x_size, i64 low_inner, i64 low_size,
 i64 high_inner, i64 high_size) {
  scalar_t* const out[3] = {dx, dlow, dhigh};
  const Operand value{x, x_inner, x_size};
  const bool alone = !high;
  map(
      n, out,
      [=](acc_t* to, acc_t slope, acc_t v, acc_t least, acc_t most) {
        to[0] = v >= least && v <= most ? slope : acc_t(0);
        to[1] = v < least && (alone || least < most) ? slope : acc_t(0);
        to[2] = v > most || most < least ? slope : acc_t(0);
      },
      Operand{grad, grad_inner, grad_size}, value, or_else({low, low_inner, low_size}, value),
      or_else({high, high_inner, high_size}, value));
}

// ------------------------------------------------------------------- sums with a product in them
// out may be x.
KERNEL(add_scaled_forward)
(const scalar_t* x, const scalar_t* y, scalar_t* out, i64 n, double alpha, i64 x_inner, i64 x_size,
 i64 y_inner, i64 y_size) {
  scalar_t* const to[1] = {out};
  map(
      n, to, [=](acc_t* result, acc_t v, acc_t w) { result[0] = v + acc_t(alpha) * w; },
      Operand{x, x_inner, x_size}, Operand{y, y_inner, y_size});
}

// out may be x.
KERNEL(addcmul_forward)
(const scalar_t* x, const scalar_t* a, const scalar_t* b, scalar_t* out, i64 n, double value,
 i64 x_inner, i64 x_size, i64 a_inner, i64 a_size, i64 b_inner, i64 b_size) {
  scalar_t* const to[1] = {out};
  map(
      n, to,
      [=](acc_t* result, acc_t v, acc_t first, acc_t second) {
        result[0] = v + first * second * acc_t(value);
      },
      Operand{x, x_inner, x_size}, Operand{a, a_inner, a_size}, Operand{b, b_inner, b_size});
}

KERNEL(addcmul_backward)
(const scalar_t* __restrict__ grad, const scalar_t* a, const scalar_t* b,
 scalar_t* __restrict__ da, scalar_t* __restrict__ db, i64 n, double value, i64 grad_inner,
 i64 grad_size, i64 a_inner, i64 a_size, i64 b_inner, i64 b_size) {
  scalar_t* const out[2] = {da, db};
  const Operand left{a, a_inner, a_size}, right{b, b_inner, b_size};
  map(
      n, out,
      [=](acc_t* results, acc_t slope, acc_t first, acc_t second) {
        results[0] = slope * (second * acc_t(value));
        results[1] = slope * (first * acc_t(value));
      },
      Operand{grad, grad_inner, grad_size}, or_else(left, right), or_else(right, left));
}

KERNEL_BLOCKS(addcdiv_forward, 4)
(const scalar_t* x, const scalar_t* a, const scalar_t* b, scalar_t* out, i64 n, double value,
 i64 x_inner, i64 x_size, i64 a_inner, i64 a_size, i64 b_inner, i64 b_size) {
  scalar_t* const to[1] = {out};
  map(
      n, to,
      [=](acc_t* result, acc_t v, acc_t first, acc_t second) {
        result[0] = v + first / second * acc_t(value);
      },
      Operand{x, x_inner, x_size}, Operand{a, a_inner, a_size}, Operand{b, b_inner, b_size});
}

KERNEL(addcdiv_backward)
(const scalar_t* __restrict__ grad, const scalar_t* a, const scalar_t* b,
 scalar_t* __restrict__ da, scalar_t* __restrict__ db, i64 n, double value, i64 grad_inner,
 i64 grad_size, i64 a_inner, i64 a_size, i64 b_inner, i64 b_size) {
  scalar_t* const out[2] = {da, db};
  const Operand left{a, a_inner, a_size}, right{b, b_inner, b_size};
  map(
      n, out,
      [=](acc_t* results, acc_t slope, acc_t first, acc_t second) {
        results[0] = slope * (acc_t(value) / second);
        results[1] = -slope * (first * acc_t(value) / (second * second));
      },
      Operand{grad, grad_inner, grad_size}, or_else(left, right), or_else(right, left));
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
 double number, i64 x_inner, i64 x_size, i64 end_inner, i64 end_size, i64 weight_inner,
 i64 weight_size) {
  scalar_t* const to[1] = {out};
  const Operand first{x, x_inner, x_size}, last{end, end_inner, end_size};
  if (weight) {
    map(
        n, to,
        [](acc_t* result, acc_t a, acc_t b, acc_t w) { result[0] = Between{}(a, b, w); }, first,
        last, Operand{weight, weight_inner, weight_size});
  } else {
    map(
        n, to,
        [=](acc_t* result, acc_t a, acc_t b) { result[0] = Between{}(a, b, acc_t(number)); },
        first, last);
  }
}

KERNEL(lerp_backward)
(const scalar_t* __restrict__ grad, const scalar_t* x, const scalar_t* end,
 const scalar_t* weight, scalar_t* __restrict__ dx, scalar_t* __restrict__ dend,
 scalar_t* __restrict__ dweight, i64 n, i64 grad_inner, i64 grad_size, i64 x_inner, i64 x_size,
 i64 end_inner, i64 end_size, i64 weight_inner, i64 weight_size) {
  scalar_t* const out[3] = {dx, dend, dweight};
  const Operand given{grad, grad_inner, grad_size};
  map(
      n, out,
      [=](acc_t* results, acc_t slope, acc_t a, acc_t b, acc_t w) {
        results[0] = slope * (1 - w);
        results[1] = slope * w;
        results[2] = slope * (b - a);
      },
      given, or_else({x, x_inner, x_size}, given), or_else({end, end_inner, end_size}, given),
      or_else({weight, weight_inner, weight_size}, given));
}

// y = slope x, the slope being 1 above 0, and elsewhere as far from `lower` to `upper` as is drawn.
KERNEL(rrelu_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ draws, scalar_t* __restrict__ y,
 scalar_t* __restrict__ slope, i64 n, double lower, double upper) {
  scalar_t* const out[2] = {y, slope};
  map(
      n, out,
      [=](acc_t* results, acc_t value, acc_t draw) {
        const acc_t drawn = widen(narrow(draw * acc_t(upper - lower) + acc_t(lower)));
        results[1] = value <= 0 ? drawn : acc_t(1);
        results[0] = value * results[1];
      },
      Operand{x, 1, n}, Operand{draws, 1, n});
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
