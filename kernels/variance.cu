// Variances and standard deviations of rows, and their gradient.
//
// Rows that are too few for a GPU are cut into pieces: variance_rows leaves the mean of each, less
// the first element of the row, and the squares of the distances from it; variance_total puts them
// together.
#include "places.cuh"
#include "rows.cuh"

// How many elements each of the pieces of a row has, but the last ones: a multiple of 8, so that
// every piece of an aligned row is aligned.
DEVICE i64 piece_size(i64 columns, i64 pieces) {
  return pieces == 1 ? columns : ((columns + pieces - 1) / pieces + 7) / 8 * 8;
}

DEVICE scalar_t result_of(acc_t squares, double divisor, i64 root) {
  const acc_t variance = squares / acc_t(divisor);
  return narrow(root ? math::sqrt(variance) : variance);
}

// out (rows) and mean (rows) of whole rows; else mean and squares (rows, pieces).
KERNEL_BLOCKS(variance_rows, 2)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, acc_t* __restrict__ mean,
 acc_t* __restrict__ squares, i64 rows, i64 columns, i64 pieces, double divisor, i64 root) {
  const i64 size = piece_size(columns, pieces);
  for_each_row(rows * pieces, [&](auto team, i64 r) {
    const i64 row = pieces == 1 ? r : r / pieces, first = (r - row * pieces) * size;
    const i64 length = math::smaller(size, columns - first);
    if (length <= 0) {
      if (team.rank() == 0) mean[r] = squares[r] = 0;
      return;
    }
    const scalar_t* in = x + row * columns + first;
    with_row<1>(team, length, aligned(in), [&](auto piece) {
      const auto kept = piece.keep(in);
      acc_t total = 0;
      piece.each([&](acc_t value) { total += value; }, kept);
      const acc_t center = settled(team.sum(total) / acc_t(length));
      acc_t rest = 0, apart = 0;
      piece.each(
          [&](acc_t value) {
            const acc_t moved = value - center;
            rest += moved;
            apart += moved * moved;
          },
          kept);
      // What the rounding of the mean has left counts as well.
      const acc_t left = team.sum(rest) / acc_t(length);
      apart = team.sum(apart) - left * left * acc_t(length);
      if (apart < 0) apart = 0;
      if (team.rank() == 0) {
        const acc_t shift = out ? acc_t(0) : widen(x[row * columns]);
        mean[r] = left == left ? settled(center - shift) + left : center;  // that of infinities as it is
        if (out) {
          out[r] = result_of(apart, divisor, root);
        } else {
          squares[r] = apart;
        }
      }
    });
  });
}

KERNEL(variance_total)
(const scalar_t* __restrict__ x, const acc_t* __restrict__ means,
 const acc_t* __restrict__ squares, scalar_t* __restrict__ out, acc_t* __restrict__ mean, i64 rows, i64 columns, i64 pieces, double divisor, i64 root) {
  const i64 size = piece_size(columns, pieces);
  for_each_row(rows, [&](auto team, i64 row) {
    const acc_t *own = means + row * pieces, *apart = squares + row * pieces;
    const auto count = [=](i64 piece) {
      const i64 left = columns - piece * size;
      return left <= 0 ? acc_t(0) : acc_t(math::smaller(size, left));
    };
    acc_t total = 0;
    for (i64 k = team.rank(); k < pieces; k += team.size()) total += count(k) * own[k];
    const acc_t center = settled(team.sum(total) / acc_t(columns));
    acc_t sum = 0;
    for (i64 k = team.rank(); k < pieces; k += team.size()) {
      const acc_t moved = own[k] - center;
      if (count(k) > 0) sum += apart[k] + count(k) * moved * moved;
    }
    sum = team.sum(sum);
    if (team.rank() == 0) {
      mean[row] = widen(x[row * columns]) + center;
      out[row] = result_of(sum, divisor, root);
    }
  });
}

// dx = scale g (x - mean) for (outer, n, inner) of which n is reduced; of a standard deviation,
// which `out` then is, scale g / out, and 0 where it is.
KERNEL(variance_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const acc_t* __restrict__ mean, const scalar_t* __restrict__ out, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner, double scale) {
  for_each_reduced(outer, n, inner, [&](i64 r, i64 i) {
    acc_t slope = widen(grad[r]) * acc_t(scale);
    if (out) {
      const acc_t deviation = widen(out[r]);
      slope = deviation == 0 ? acc_t(0) : slope / deviation;
    }
    dx[i] = narrow(slope * (widen(x[i]) - mean[r]));
  });
}
