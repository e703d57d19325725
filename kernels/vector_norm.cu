// The p-norms of rows for p > 0, and their gradient.
//
// Rows that are too few for a GPU are cut into pieces: vector_norm_rows leaves the sum or the
// maximum of each, vector_norm_total puts them together.
#define BLOCKS 2
#include "norms.cuh"
#include "places.cuh"

// The root of a sum; the maximum of p = infinity as it is.
CALLED acc_t whole(double p, acc_t total) {
  const int kind = kind_of(p);
  if (kind == TWO) return math::sqrt(total);
  return kind == POWER ? math::pow(total, acc_t(1) / acc_t(p)) : total;
}

// The same for every member of the team, before the root is taken.
template <class Team, class Row, class Norm>
DEVICE acc_t total_of(const Team& team, const Row& row, Norm norm, const scalar_t* in) {
  acc_t top = 0, total = 0;
  row.each(
      [&](acc_t value) {
        const acc_t t = term(norm, value);
        total += t;
        if (is_most(norm)) top = math::larger(t, top);
      },
      in);
  total = team.sum(total);
  if (is_most(norm)) {
    top = team.max(top);
    if (total == total) total = top;  // a NaN is in the sum
  }
  return total;
}

// The norms of the pieces before their roots are taken, partials (rows, pieces), or the norms of
// whole rows, out (rows).
KERNEL(vector_norm_rows)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, scalar_t* __restrict__ out,
 i64 rows, i64 columns, i64 pieces, double p) {
  // A multiple of 8, so that every piece of an aligned row is aligned.
  const i64 size = pieces == 1 ? columns : ((columns + pieces - 1) / pieces + 7) / 8 * 8;
  for_each_row(rows * pieces, [&](auto team, i64 r) {
    const i64 row = pieces == 1 ? r : r / pieces, first = (r - row * pieces) * size;
    const i64 length = math::smaller(size, columns - first);
    const scalar_t* in = x + row * columns + first;
    acc_t total = 0;
    if (length > 0) {
#if defined(GRADLITE_NATIVE)
      with_norm(p, [&](auto norm) { total = total_of(team, row_of(team, length), norm, in); });
#else
      const int kind = kind_of(p);
      total = kind <= TWO ? total_of(team, row_of(team, length), EasyNorm{kind, 0}, in)
                          : total_of(team, plain_row(team, length), HardNorm{kind, acc_t(p)}, in);
#endif
    }
    if (team.rank() == 0) {
      if (out) {
        out[row] = narrow(whole(p, total));
      } else {
        partials[r] = total;
      }
    }
  });
}

KERNEL(vector_norm_total)
(const acc_t* __restrict__ partials, scalar_t* __restrict__ out, i64 rows, i64 pieces, double p) {
  for_each_row(rows, [&](auto team, i64 row) {
    const acc_t* parts = partials + row * pieces;
    acc_t total = 0, top = 0;
    for (i64 k = team.rank(); k < pieces; k += team.size()) {
      total += parts[k];
      top = math::larger(parts[k], top);
    }
    total = team.sum(total);
    top = team.max(top);
    if (kind_of(p) == MOST && total == total) total = top;
    if (team.rank() == 0) out[row] = narrow(whole(p, total));
  });
}

// For (outer, n, inner) of which n is reduced, and p < infinity.
KERNEL(vector_norm_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ out, scalar_t* __restrict__ dx, i64 outer, i64 n, i64 inner,
 double p) {
  with_norm(p, [&](auto norm) {
    for_each_reduced(outer, n, inner, [&](i64 r, i64 i) {
      const acc_t factor = by_length(norm, widen(grad[r]), widen(out[r]));
      dx[i] = narrow(factor * by_element(norm, widen(x[i])));
    });
  });
}
