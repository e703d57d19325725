// The margin loss of triplets of rows, forward and backward. Rows are read again for each of the
// distances: the cache has them. Any of the gradients may be left out.
#define BLOCKS 2
#include "norms.cuh"
#include "row_loss.cuh"

// The distances of anchor, positive and negative, and the loss max(0, margin + near - far), far
// being the smaller one of two with `swap`.
struct Triplet {
  acc_t near, far, cross, margin;
  bool swap;

  __device__ bool crosses() const { return swap && !(far < cross); }
  __device__ acc_t excess() const {
    // The sum is NaN where one of them is, which the smaller one need not be.
    const acc_t least = !swap ? far : far + cross != far + cross ? far + cross
                                    : far < cross ? far : cross;
    return margin + near - least;
  }
  __device__ acc_t loss() const { return at_least(excess(), 0); }
  // The gradients of the three distances; at a tie two of them share it.
  __device__ acc_t by_near(acc_t grad) const { return excess() >= 0 ? grad : acc_t(0); }
  __device__ acc_t by_far(acc_t grad) const {
    const acc_t share = !swap || far < cross ? acc_t(1) : far == cross ? acc_t(0.5) : acc_t(0);
    return -by_near(grad) * share;
  }
  __device__ acc_t by_cross(acc_t grad) const {
    const acc_t share = !swap || far < cross ? acc_t(0) : far == cross ? acc_t(0.5) : acc_t(1);
    return -by_near(grad) * share;
  }
};

template <class Team, class Row, class Norm>
DEVICE Triplet triplet_of(const Team& team, const Row& row, Norm norm, Apart apart, double margin,
                          i64 swap, const scalar_t* a, const scalar_t* p, const scalar_t* n) {
  Triplet found = {0, 0, 0, acc_t(margin), swap != 0};
  found.near = length_of(team, row, norm, apart, a, p);
  found.far = length_of(team, row, norm, apart, a, n);
  if (swap) found.cross = length_of(team, row, norm, apart, p, n);
  return found;
}

KERNEL(triplet_forward)
(const scalar_t* __restrict__ anchor, const scalar_t* __restrict__ positive,
 const scalar_t* __restrict__ negative, scalar_t* __restrict__ values,
 acc_t* __restrict__ losses, i64 rows, i64 columns, i64 swap, double margin, double p,
 double eps) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_norm(p, [&](auto norm) {
      const auto row = plain_row(team, columns);
      const i64 at = r * columns;
      const scalar_t *a = anchor + at, *b = positive + at, *c = negative + at;
      const Triplet found =
          triplet_of(team, row, norm, Apart{acc_t(eps)}, margin, swap, a, b, c);
      write(team, r, found.loss(), values, losses);
    });
  });
}

KERNEL(triplet_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ anchor,
 const scalar_t* __restrict__ positive, const scalar_t* __restrict__ negative,
 scalar_t* __restrict__ da, scalar_t* __restrict__ dp, scalar_t* __restrict__ dn, i64 rows,
 i64 columns, i64 swap, i64 each, double margin, double p, double eps, double scale) {
  for_each_row(rows, [&](auto team, i64 r) {
    with_norm(p, [&](auto norm) {
      const auto row = plain_row(team, columns);
      const i64 at = r * columns;
      const scalar_t *a = anchor + at, *b = positive + at, *c = negative + at;
      const Apart apart{acc_t(eps)};
      const Triplet found = triplet_of(team, row, norm, apart, margin, swap, a, b, c);
      const acc_t g = grad_of(grad, r, each, scale);
      const Slope near = slope_of(team, row, norm, found.by_near(g), found.near, apart, a, b);
      const Slope far = slope_of(team, row, norm, found.by_far(g), found.far, apart, a, c);
      Slope cross = {0, 0};
      if (swap) cross = slope_of(team, row, norm, found.by_cross(g), found.cross, apart, b, c);
      if (da) {
        row.map(
            da + at,
            [=](acc_t u, acc_t v, acc_t w) {
              return near(norm, apart(u, v)) + far(norm, apart(u, w));
            },
            a, b, c);
      }
      if (dp) {
        row.map(
            dp + at,
            [=](acc_t u, acc_t v, acc_t w) {
              const acc_t rest = swap ? cross(norm, apart(v, w)) : acc_t(0);
              return rest - near(norm, apart(u, v));
            },
            a, b, c);
      }
      if (dn) {
        row.map(
            dn + at,
            [=](acc_t u, acc_t v, acc_t w) {
              const acc_t rest = swap ? cross(norm, apart(v, w)) : acc_t(0);
              return -far(norm, apart(u, w)) - rest;
            },
            a, b, c);
      }
    });
  });
}
