// Vectors divided by their norm, or by epsilon where that is larger: x / max(|x|, epsilon), of
// rows and of the middle dimension of (outer, n, inner), forward and backward.
#include "rows.cuh"
#include "strips.cuh"

// What an element adds to a norm, the norm, and its derivative, an element's slope times what is
// the same for all.
struct Squares {
  static __device__ acc_t term(acc_t v) { return v * v; }
  static __device__ acc_t norm(acc_t total) { return math::sqrt(total); }
  static __device__ acc_t slope(acc_t v, acc_t times) { return v * times; }
  static __device__ acc_t scaled(acc_t v, acc_t norm) { return v / norm; }
};
struct Sums {
  static __device__ acc_t term(acc_t v) { return math::abs(v); }
  static __device__ acc_t norm(acc_t total) { return total; }
  // 0 times what is infinite or NaN is NaN; compilers drop it from a product with a sign.
  static __device__ acc_t slope(acc_t v, acc_t times) {
    return v > 0 ? times : v < 0 ? -times : times - times;
  }
  static __device__ acc_t scaled(acc_t v, acc_t) { return v; }
};

// body(Squares{}), or body(Sums{}) for order 1.
template <class Body>
DEVICE void with_order(i64 order, Body body) {
  if (order == 1) {
    body(Sums{});
  } else {
    body(Squares{});
  }
}

// A NaN stays one.
template <class Order>
DEVICE acc_t divisor(Order order, acc_t total, acc_t epsilon) {
  const acc_t length = order.norm(total);
  return length < epsilon ? epsilon : length;
}

// How much the gradient loses of the norm's, given the sum of g x: nothing where a vector is
// shorter than epsilon.
template <class Order>
DEVICE acc_t along(Order order, acc_t total, acc_t product, acc_t epsilon) {
  const acc_t length = order.norm(total);
  return length >= epsilon ? order.scaled(product / length / length, length) : acc_t(0);
}

KERNEL_BLOCKS(normalize_forward, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns, double epsilon,
 i64 p) {
  with_order(p, [&](auto order) {
    for_each_row(rows, [&](auto team, i64 r) {
      with_row<1>(team, columns, aligned(x, y), [&](auto row) {
        const auto in = row.keep(x + r * columns);
        acc_t total = 0;
        row.each([&](acc_t value) { total += order.term(value); }, in);
        const acc_t length = divisor(order, team.sum(total), acc_t(epsilon));
        row.map(y + r * columns, [=](acc_t value) { return value / length; }, in);
      });
    });
  });
}

// dx = g / d - slope(x) sum(g x) / d^2
KERNEL_BLOCKS(normalize_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, scalar_t* __restrict__ dx,
 i64 rows, i64 columns, double epsilon, i64 p) {
  with_order(p, [&](auto order) {
    for_each_row(rows, [&](auto team, i64 r) {
      with_row<2>(team, columns, aligned(grad, x, dx), [&](auto row) {
        const auto slopes = row.keep(grad + r * columns);
        const auto in = row.keep(x + r * columns);
        acc_t total = 0, product = 0;
        row.each(
            [&](acc_t slope, acc_t value) {
              total += order.term(value);
              product += slope * value;
            },
            slopes, in);
        total = team.sum(total);
        product = team.sum(product);
        const acc_t length = divisor(order, total, acc_t(epsilon));
        const acc_t lost = along(order, total, product, acc_t(epsilon));
        row.map(
            dx + r * columns,
            [=](acc_t slope, acc_t value) { return slope / length - order.slope(value, lost); },
            slopes, in);
      });
    });
  });
}

KERNEL_BLOCKS(normalize_strided_forward, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 outer, i64 n, i64 inner,
 double epsilon, i64 p) {
  with_order(p, [&](auto order) {
    for_each_strip(outer, n, inner, [&](auto strip) {
      const auto total = strip.sum([=](i64 at) { return order.term(widen(x[at])); });
      const auto length = strip.values(
          [=](acc_t sum) { return divisor(order, sum, acc_t(epsilon)); }, total);
      strip.map(y, [=](i64 at, acc_t length) { return widen(x[at]) / length; }, length);
    });
  });
}

KERNEL_BLOCKS(normalize_strided_backward, 3)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner, double epsilon, i64 p) {
  with_order(p, [&](auto order) {
    for_each_strip(outer, n, inner, [&](auto strip) {
      const auto total = strip.sum([=](i64 at) { return order.term(widen(x[at])); });
      const auto product = strip.sum([=](i64 at) { return widen(grad[at]) * widen(x[at]); });
      const auto length = strip.values(
          [=](acc_t sum) { return divisor(order, sum, acc_t(epsilon)); }, total);
      const auto lost = strip.values(
          [=](acc_t sum, acc_t product) { return along(order, sum, product, acc_t(epsilon)); },
          total, product);
      strip.map(
          dx,
          [=](i64 at, acc_t length, acc_t lost) {
            return widen(grad[at]) / length - order.slope(widen(x[at]), lost);
          },
          length, lost);
    });
  });
}
