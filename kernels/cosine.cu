// Angles between rows and the loss of embeddings that is made of them, forward and backward. Either
// gradient may be left out.
#define BLOCKS 2
#include "row_loss.cuh"
#include "rows.cuh"

struct Products {
  acc_t xx, yy, xy;
};

template <class Team, class Row, class In>
DEVICE Products products_of(const Team& team, const Row& row, const In& x, const In& y) {
  acc_t xx = 0, yy = 0, xy = 0;
  row.each(
      [&](acc_t a, acc_t b) {
        xx += a * a;
        yy += b * b;
        xy += a * b;
      },
      x, y);
  return {team.sum(xx), team.sum(yy), team.sum(xy)};
}

// dx and dy = both times the other row, and a share of the own one.
template <class Row, class In>
DEVICE void combine(const Row& row, scalar_t* dx, scalar_t* dy, acc_t both, acc_t of_x, acc_t of_y,
                    const In& x, const In& y) {
  if (dx) row.map(dx, [=](acc_t a, acc_t b) { return both * b + of_x * a; }, x, y);
  if (dy) row.map(dy, [=](acc_t a, acc_t b) { return both * a + of_y * b; }, x, y);
}

// The cosine of two rows, from their lengths and what is divided by in the place of these.
struct Cosine {
  acc_t length_x, length_y, divisor_x, divisor_y, value;
};

template <class Team, class Row, class In>
DEVICE Cosine cosine_of(const Team& team, const Row& row, acc_t eps, const In& x, const In& y) {
  const Products sums = products_of(team, row, x, y);
  Cosine found = {math::sqrt(sums.xx), math::sqrt(sums.yy), 0, 0, 0};
  const acc_t by_x = at_least(found.length_x, eps), by_y = at_least(found.length_y, eps);
  found.divisor_x = by_x;
  found.divisor_y = by_y;
  found.value = sums.xy / by_x / by_y;
  if (by_x == infinity() || by_y == infinity()) {  // and the product may have overflown
    acc_t total = 0;
    row.each([&](acc_t a, acc_t b) { total += (a / by_x) * (b / by_y); }, x, y);
    found.value = team.sum(total);
  }
  return found;
}

KERNEL(cosine_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, scalar_t* __restrict__ out,
 i64 rows, i64 columns, double eps) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_row<2>(team, columns, aligned(x, y), [&](auto row) {
      const auto a = row.keep(x + r * columns), b = row.keep(y + r * columns);
      const Cosine cosine = cosine_of(team, row, acc_t(eps), a, b);
      if (team.rank() == 0) out[r] = narrow(cosine.value);
    });
  });
}

KERNEL(cosine_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, scalar_t* __restrict__ dx, scalar_t* __restrict__ dy, i64 rows,
 i64 columns, double eps) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_row<2>(team, columns, aligned(x, y, dx, dy), [&](auto row) {
      const i64 at = r * columns;
      const auto a = row.keep(x + at), b = row.keep(y + at);
      const Cosine c = cosine_of(team, row, acc_t(eps), a, b);
      const acc_t g = widen(grad[r]), along = -g * c.value;
      combine(row, dx ? dx + at : dx, dy ? dy + at : dy, g / c.divisor_x / c.divisor_y,
              c.length_x == 0 ? acc_t(0) : along / c.divisor_x / c.length_x,
              c.length_y == 0 ? acc_t(0) : along / c.divisor_y / c.length_y, a, b);
    });
  });
}

// 1 - cos where the target is 1, max(0, cos - margin) where it is -1, and 0 elsewhere.
struct Embedding {
  acc_t xx, yy, length, cosine;  // squares, the root of their product, and the cosine

  __device__ acc_t loss(acc_t target, acc_t margin) const {
    if (target == 1) return 1 - cosine;
    return target == -1 ? at_least(cosine - margin, 0) : acc_t(0);
  }
  __device__ acc_t by_cosine(acc_t target, acc_t margin) const {
    if (target == 1) return acc_t(-1);
    return target == -1 && cosine - margin >= 0 ? acc_t(1) : acc_t(0);
  }
};

template <class Team, class Row, class In>
DEVICE Embedding embedding_of(const Team& team, const Row& row, const In& x, const In& y) {
  const Products sums = products_of(team, row, x, y);
  const acc_t xx = sums.xx + acc_t(1e-12), yy = sums.yy + acc_t(1e-12);
  const acc_t length = math::sqrt(xx * yy);
  return {xx, yy, length, sums.xy / length};
}

// A target of 1, -1 or anything else, from whichever array is there.
DEVICE acc_t target_of(const i64* numbers, const scalar_t* targets, i64 row) {
  if (targets) return widen(targets[row]);
  return numbers[row] == 1 ? acc_t(1) : numbers[row] == -1 ? acc_t(-1) : acc_t(0);
}

KERNEL(cosine_embedding_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ targets, scalar_t* __restrict__ values,
 acc_t* __restrict__ losses, i64 rows, i64 columns, double margin) {
  for_each_row(rows, [&](auto team, i64 r) {
    const auto row = row_of(team, columns);
    const Embedding found = embedding_of(team, row, x + r * columns, y + r * columns);
    const acc_t target = target_of(numbers, targets, r);
    write(team, r, found.loss(target, acc_t(margin)), values, losses);
  });
}

KERNEL(cosine_embedding_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ targets, scalar_t* __restrict__ dx, scalar_t* __restrict__ dy,
 i64 rows, i64 columns, i64 each, double margin, double scale) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_row<2>(team, columns, aligned(x, y, dx, dy), [&](auto row) {
      const i64 at = r * columns;
      const auto a = row.keep(x + at), b = row.keep(y + at);
      const Embedding found = embedding_of(team, row, a, b);
      const acc_t target = target_of(numbers, targets, r);
      const acc_t slope = found.by_cosine(target, acc_t(margin));
      const acc_t g = grad_of(grad, r, each, scale) * slope;
      const acc_t along = -g * found.cosine / found.length / found.length;
      combine(row, dx ? dx + at : dx, dy ? dy + at : dy, g / found.length, along * found.yy,
              along * found.xx, a, b);
    });
  });
}
