// Vectors divided by their length, or by epsilon where that is larger: x / max(|x|, epsilon), of
// rows and of the middle dimension of (outer, n, inner), forward and backward.
#include "rows.cuh"
#include "strips.cuh"

// A NaN stays one.
DEVICE acc_t divisor(acc_t squares, acc_t epsilon) {
  const acc_t length = math::sqrt(squares);
  return length < epsilon ? epsilon : length;
}

// How much of x the gradient loses, given the sum of g x: nothing of a vector that is shorter than
// epsilon.
DEVICE acc_t along(acc_t squares, acc_t product, acc_t epsilon) {
  const acc_t length = math::sqrt(squares);
  return length >= epsilon ? product / length / length / length : acc_t(0);
}

KERNEL_BLOCKS(normalize_forward, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns,
 double epsilon) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_row<1>(team, columns, aligned(x, y), [&](auto row) {
      const auto in = row.keep(x + r * columns);
      acc_t squares = 0;
      row.each([&](acc_t value) { squares += value * value; }, in);
      const acc_t length = divisor(team.sum(squares), acc_t(epsilon));
      row.map(y + r * columns, [=](acc_t value) { return value / length; }, in);
    });
  });
}

// dx = g / d - x sum(g x) / d^3
KERNEL_BLOCKS(normalize_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, scalar_t* __restrict__ dx,
 i64 rows, i64 columns, double epsilon) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_row<2>(team, columns, aligned(grad, x, dx), [&](auto row) {
      const auto slopes = row.keep(grad + r * columns);
      const auto in = row.keep(x + r * columns);
      acc_t squares = 0, product = 0;
      row.each(
          [&](acc_t slope, acc_t value) {
            squares += value * value;
            product += slope * value;
          },
          slopes, in);
      squares = team.sum(squares);
      product = team.sum(product);
      const acc_t length = divisor(squares, acc_t(epsilon));
      const acc_t lost = along(squares, product, acc_t(epsilon));
      row.map(
          dx + r * columns,
          [=](acc_t slope, acc_t value) { return slope / length - value * lost; }, slopes, in);
    });
  });
}

KERNEL_BLOCKS(normalize_strided_forward, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 outer, i64 n, i64 inner,
 double epsilon) {
  for_each_strip(outer, n, inner, [&](auto strip) {
    const auto squares = strip.sum([=](i64 at) { return widen(x[at]) * widen(x[at]); });
    const auto length =
        strip.values([=](acc_t sum) { return divisor(sum, acc_t(epsilon)); }, squares);
    strip.map(y, [=](i64 at, acc_t length) { return widen(x[at]) / length; }, length);
  });
}

KERNEL_BLOCKS(normalize_strided_backward, 3)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner, double epsilon) {
  for_each_strip(outer, n, inner, [&](auto strip) {
    const auto squares = strip.sum([=](i64 at) { return widen(x[at]) * widen(x[at]); });
    const auto product = strip.sum([=](i64 at) { return widen(grad[at]) * widen(x[at]); });
    const auto length =
        strip.values([=](acc_t sum) { return divisor(sum, acc_t(epsilon)); }, squares);
    const auto lost = strip.values(
        [=](acc_t sum, acc_t product) { return along(sum, product, acc_t(epsilon)); }, squares,
        product);
    strip.map(
        dx,
        [=](i64 at, acc_t length, acc_t lost) {
          return widen(grad[at]) / length - widen(x[at]) * lost;
        },
        length, lost);
  });
}
