// Sums, means and maxima of the rows of a table that bags of indices name.
//
// Bag n has the indices from starts[n] to the next start, or to the end; without starts, `length`
// of them. Rows at `padding` count for nothing, nor do indices out of range, which are noted, and
// so are such starts, apart. A team has a bag: the sums are in the order of the indices, and the
// same bits at every run.
#include "checks.cuh"
#include "team.cuh"

constexpr i64 SUM = 0, MEAN = 1;  // else the maximum

struct Bags {
  const i64 *index, *starts;
  i64 *errors, bags, size, length, rows, padding;

  __device__ i64 first(i64 n) const {
    if (!starts) return n * length;
    const i64 lowest = n == 0 ? 0 : starts[n - 1];
    const i64 at = checked(starts[n], lowest, n == 0 ? 1 : size + 1, kind(errors, 1));
    return at < 0 ? size : at;
  }
  __device__ i64 last(i64 n) const {
    if (!starts) return (n + 1) * length;
    return n + 1 == bags ? size : math::smaller(starts[n + 1], size);
  }
  // The row of the k-th index, or -1.
  __device__ i64 row(i64 k) const {
    const i64 at = checked(index[k], 0, rows, errors);
    return at == padding ? -1 : at;
  }
};

// With `ends`, one more start follows the last, which is no more than the number of indices.
// `counts` (bags) becomes how many rows there are in each, at least 1, and for maxima `chosen`
// (bags, columns) the place among the indices where each one is, -1 where there is none.
KERNEL_BLOCKS(embedding_bag_forward, 6)
(const scalar_t* __restrict__ weight, const i64* __restrict__ index,
 const i64* __restrict__ starts, const scalar_t* __restrict__ factors, scalar_t* __restrict__ out,
 i64* __restrict__ counts, i64* __restrict__ chosen, i64* errors, i64 bags, i64 size, i64 length,
 i64 rows, i64 columns, i64 padding, i64 mode, i64 ends) {
  const Bags all = {index, starts, errors, bags, size, length, rows, padding};
  for_each_row(bags, [&](auto team, i64 n) {
    const i64 first = all.first(n), last = all.last(n);
    if (ends && n + 1 == bags) checked(starts[bags], 0, size + 1, kind(errors, 1));
    i64 count = 0;
    ROLLED
    for (i64 k = first + team.rank(); k < last; k += team.size()) count += all.row(k) >= 0;
    count = math::larger(team.sum(count), i64(1));
    if (team.rank() == 0) counts[n] = count;
    ROLLED
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      acc_t total = 0;
      i64 place = -1;
      ROLLED
      for (i64 k = first; k < last; k++) {
        const i64 row = all.row(k);
        if (row < 0) continue;
        const acc_t value = widen(weight[row * columns + c]);
        if (mode == SUM || mode == MEAN) {
          total += factors ? value * widen(factors[k]) : value;
        } else if (place < 0 || value > total) {
          total = value;
          place = k;
        }
      }
      out[n * columns + c] = narrow(mode == MEAN ? total / acc_t(count) : total);
      if (chosen) chosen[n * columns + c] = place;
    }
  });
}

// What each index adds to its row of the table's gradient: (size, columns).
KERNEL_BLOCKS(embedding_bag_spread, 2)
(const scalar_t* __restrict__ grad, const i64* __restrict__ starts,
 const scalar_t* __restrict__ factors, const i64* __restrict__ counts,
 const i64* __restrict__ chosen, scalar_t* __restrict__ values, i64* errors, i64 bags, i64 size,
 i64 length, i64 rows, i64 columns, i64 padding, i64 mode) {
  const Bags all = {nullptr, starts, errors, bags, size, length, rows, padding};
  for_each_row(bags, [&](auto team, i64 n) {
    const i64 first = all.first(n), last = all.last(n);
    const acc_t share = mode == MEAN ? acc_t(1) / acc_t(counts[n]) : acc_t(1);
    ROLLED
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      const acc_t slope = widen(grad[n * columns + c]) * share;
      const i64 place = chosen ? chosen[n * columns + c] : -1;
      ROLLED
      for (i64 k = first; k < last; k++) {
        const acc_t factor = factors ? widen(factors[k]) : acc_t(1);
        const bool counts_here = !chosen || k == place;
        values[k * columns + c] = narrow(counts_here ? slope * factor : acc_t(0));
      }
    }
  });
}

// The gradient of the factors: what each row has in common with the gradient of its bag.
KERNEL_BLOCKS(embedding_bag_factors, 6)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ weight,
 const i64* __restrict__ index, const i64* __restrict__ starts, scalar_t* __restrict__ out,
 i64* errors, i64 bags, i64 size, i64 length, i64 rows, i64 columns, i64 padding) {
  const Bags all = {index, starts, errors, bags, size, length, rows, padding};
  for_each_row(bags, [&](auto team, i64 n) {
    ROLLED
    for (i64 k = all.first(n); k < all.last(n); k++) {
      const i64 row = all.row(k);
      acc_t total = 0;
      if (row >= 0) {
        ROLLED
        for (i64 c = team.rank(); c < columns; c += team.size()) {
          total += widen(grad[n * columns + c]) * widen(weight[row * columns + c]);
        }
      }
      total = team.sum(total);
      if (team.rank() == 0) out[k] = narrow(total);
    }
  });
}
