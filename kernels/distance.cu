// Distances of rows, forward and backward. Either gradient may be left out.
#define BLOCKS 2
#include "norms.cuh"

// |x - y + eps|
KERNEL_BLOCKS(distance_forward, 3)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, scalar_t* __restrict__ out,
 i64 rows, i64 columns, double p, double eps) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_norm<2>(team, columns, aligned(x, y), p, [&](auto row, auto norm) {
      const acc_t length =
          length_of(team, row, norm, Apart{acc_t(eps)}, x + r * columns, y + r * columns);
      if (team.rank() == 0) out[r] = narrow(length);
    });
  });
}

KERNEL(distance_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, const scalar_t* __restrict__ out, scalar_t* __restrict__ dx,
 scalar_t* __restrict__ dy, i64 rows, i64 columns, double p, double eps) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_norm<2>(team, columns, aligned(x, y, dx, dy), p, [&](auto row, auto norm) {
      const auto a = row.keep(x + r * columns), b = row.keep(y + r * columns);
      const Apart apart{acc_t(eps)};
      const acc_t length = is_most(norm) ? length_of(team, row, norm, apart, a, b)
                                             : widen(out[r]);
      const Slope by = slope_of(team, row, norm, widen(grad[r]), length, apart, a, b);
      if (dx) {
        row.map(dx + r * columns, [=](acc_t v, acc_t w) { return by(norm, apart(v, w)); }, a, b);
      }
      if (dy) {
        row.map(dy + r * columns, [=](acc_t v, acc_t w) { return -by(norm, apart(v, w)); }, a, b);
      }
    });
  });
}
