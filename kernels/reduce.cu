// Sums and extremes over dimensions, in two kernels where one has too few teams.
//
// An array is (outer, rows, columns) here, and what is reduced are its rows; or (rows, columns)
// with the columns reduced. The sums of parts go to `partials`, in acc_t; reduce_rows writes the
// result itself when rows are whole. `divisor` divides the result: n for means. With y the sums
// are those of x * y: what a factor's gradient is where it was broadcast.
#define BLOCKS 4
#include "channels.cuh"

// The sums of each of the `pieces` of every row: partials (rows, pieces), or out (rows) of one.
KERNEL(reduce_rows)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, acc_t* __restrict__ partials,
 scalar_t* __restrict__ out, i64 rows, i64 columns, i64 pieces, double divisor) {
  // A multiple of 8, so that every piece of an aligned row is aligned.
  const i64 size = ((columns + pieces - 1) / pieces + 7) / 8 * 8;
  for_each_row(rows * pieces, [&](auto team, i64 r) {
    const i64 row = pieces == 1 ? r : r / pieces, first = (r - row * pieces) * size;
    acc_t total = 0;
    if (first < columns) {
      const auto piece = row_of(team, math::smaller(size, columns - first));
      const i64 start = row * columns + first;
      if (y) {
        piece.each([&](acc_t a, acc_t b) { total += a * b; }, x + start, y + start);
      } else {
        piece.each([&](acc_t value) { total += value; }, x + start);
      }
    }
    total = team.sum(total);
    if (team.rank() == 0) {
      if (out) {
        out[row] = narrow(total / acc_t(divisor));
      } else {
        partials[r] = total;
      }
    }
  });
}

// The sums of each of the `parts` of the rows of (rows, columns): partials (parts, columns).
KERNEL(reduce_columns)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  column_parts<1>(
      rows, columns, parts, partials, nullptr,
      [](i64, i64, acc_t* sum, acc_t value) {
        sum[0] += value;
        return value;
      },
      x);
}

KERNEL(reduce_column_products)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  column_parts<1>(
      rows, columns, parts, partials, nullptr,
      [](i64, i64, acc_t* sum, acc_t a, acc_t b) {
        sum[0] += a * b;
        return a;
      },
      x, y);
}

// The same for many small (rows, columns): partials (outer, parts, columns), and the result of
// one part in out (outer, columns) where it is given.
KERNEL(reduce_blocks)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, acc_t* __restrict__ partials,
 scalar_t* __restrict__ out, i64 outer, i64 rows, i64 columns, i64 parts, double divisor) {
  const i64 size = (rows + parts - 1) / parts;
#if defined(GRADLITE_NATIVE)
  for (i64 block = 0; block < outer * parts; block++) {
    const i64 n = block / parts, first = (block - n * parts) * size;
    acc_t* totals = partials + block * columns;
    for (i64 c = 0; c < columns; c++) totals[c] = 0;
    for (i64 row = first; row < math::smaller(first + size, rows); row++) {
      const scalar_t* in = x + (n * rows + row) * columns;
      const Optional factor = {y ? y + (n * rows + row) * columns : nullptr, 1};
      INDEPENDENT
      for (i64 c = 0; c < columns; c++) totals[c] += widen(in[c]) * element(factor, c);
    }
    if (out) {
      for (i64 c = 0; c < columns; c++) {
        out[block * columns + c] = narrow(totals[c] / acc_t(divisor));
      }
    }
  }
#else
  for (i64 i = thread_index(); i < outer * parts * columns; i += thread_count()) {
    const i64 block = i / columns, n = block / parts, first = (block - n * parts) * size;
    const i64 last = math::smaller(first + size, rows);
    const scalar_t* in = x + n * rows * columns + (i - block * columns);
    const Optional factor = {y ? y + (in - x) : nullptr, 1};
    acc_t total = 0;
#pragma unroll 4
    for (i64 row = first; row < last; row++) {
      total += widen(in[row * columns]) * element(factor, row * columns);
    }
    if (out) {
      out[i] = narrow(total / acc_t(divisor));
    } else {
      partials[i] = total;
    }
  }
#endif
}

// out (outer, columns): the sums over the parts of partials (outer, parts, columns).
KERNEL(reduce_columns_total)
(const acc_t* __restrict__ partials, scalar_t* __restrict__ out, i64 outer, i64 parts,
 i64 columns, double divisor) {
  column_totals(outer, parts, columns, partials, [&](i64 n, i64 column, acc_t total) {
    out[n * columns + column] = narrow(total / acc_t(divisor));
  });
}

// out (channels): the sums over parts and inner of partials (parts, channels, inner).
KERNEL(reduce_channels_total)
(const acc_t* __restrict__ partials, scalar_t* __restrict__ out, i64 channels, i64 parts,
 i64 inner, double divisor) {
  for_each_row(channels, [&](auto team, i64 c) {
    const acc_t total = channel_total(team, 0, c, partials, parts, channels, inner);
    if (team.rank() == 0) out[c] = narrow(total / acc_t(divisor));
  });
}

// --------------------------------------------------------------------------------- extremes
// The largest of values times `sign`, and where it first occurs; the first NaN, if there is one.
struct Extreme {
  acc_t sign, best;
  i64 index;
  __device__ explicit Extreme(acc_t sign_) : sign(sign_), best(-infinity()), index(-1) {}
  __device__ void add(acc_t value, i64 at) {
    const acc_t signed_value = value * sign;
    if (index < 0 || signed_value > best || (value != value && best == best)) {
      best = signed_value;
      index = at;
    }
  }
};

// Of each of the `pieces` of every row the extreme, out and index (rows, pieces). Where `given`
// is not null, it says the indices of what x holds.
KERNEL(extreme_rows)
(const scalar_t* __restrict__ x, const i64* __restrict__ given, scalar_t* __restrict__ out,
 i64* __restrict__ index, i64 rows, i64 columns, i64 pieces, i64 sign) {
  const i64 size = (columns + pieces - 1) / pieces;
  for_each_row(rows * pieces, [&](auto team, i64 r) {
    const i64 row = pieces == 1 ? r : r / pieces, first = (r - row * pieces) * size;
    const i64 last = math::smaller(first + size, columns);
    const scalar_t* in = x + row * columns;
    Extreme own{acc_t(sign)};
    for (i64 c = first + team.rank(); c < last; c += team.size()) own.add(widen(in[c]), c);
    // Of the members that have the extreme, the one with the smallest index.
    const acc_t missing = team.max(acc_t(own.index >= 0 && own.best != own.best ? 1 : 0));
    const acc_t best = team.max(own.index >= 0 ? own.best : -infinity());
    const bool has = own.index >= 0 && (missing > 0 ? own.best != own.best : own.best == best);
    const i64 none = i64(1) << 62, at = -team.max(has ? -own.index : -none);
    if (team.rank() == 0) {
      out[r] = in[at];
      if (index) index[r] = given ? given[row * columns + at] : at;
    }
  });
}

// The same over the rows of (outer, rows, columns): out and index (outer, parts, columns).
KERNEL(extreme_columns)
(const scalar_t* __restrict__ x, const i64* __restrict__ given, scalar_t* __restrict__ out,
 i64* __restrict__ index, i64 outer, i64 rows, i64 columns, i64 parts, i64 sign) {
  const i64 size = (rows + parts - 1) / parts;
  for (i64 i = thread_index(); i < outer * parts * columns; i += thread_count()) {
    const i64 block = i / columns, column = i - block * columns;
    const i64 n = block / parts, first = (block - n * parts) * size;
    const i64 last = math::smaller(first + size, rows), start = n * rows * columns + column;
    Extreme own{acc_t(sign)};
    for (i64 row = first; row < last; row++) own.add(widen(x[start + row * columns]), row);
    out[i] = x[start + own.index * columns];
    if (index) index[i] = given ? given[start + own.index * columns] : own.index;
  }
}

// The gradient of the extremes of rows, out (rows), shared by all elements that reach them; with
// `missing` NaNs reach one that is NaN. Where no element does, the gradient is NaN.
KERNEL(extreme_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ out, scalar_t* __restrict__ dx, i64 rows, i64 columns,
 i64 missing) {
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t* in = x + r * columns;
    const acc_t top = widen(out[r]);
    const bool counts = missing && top != top;
    acc_t ties = 0;
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      const acc_t value = widen(in[c]);
      ties += value == top || (counts && value != value) ? acc_t(1) : acc_t(0);
    }
    ties = team.sum(ties);
    const acc_t none = ties > 0 ? acc_t(0) : infinity() - infinity();
    const acc_t share = ties > 0 ? widen(grad[r]) / ties : none;
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      const acc_t value = widen(in[c]);
      const bool reached = value == top || (counts && value != value);
      dx[r * columns + c] = narrow(reached ? share : none);
    }
  });
}

// index (outer, n, inner): where along n the largest (`sign` 1) or smallest (-1) element so far is.
// One that ties takes over, and so does a NaN, behind which nothing but a NaN counts.
KERNEL(running_extreme)
(const scalar_t* __restrict__ x, i64* __restrict__ index, i64 outer, i64 n, i64 inner, i64 sign) {
  for (i64 r = thread_index(); r < outer * inner; r += thread_count()) {
    const i64 o = r / inner, start = o * n * inner + (r - o * inner);
    acc_t best = 0;
    i64 at = -1;
    for (i64 j = 0; j < n; j++) {
      const acc_t value = widen(x[start + j * inner]) * acc_t(sign);
      if (at < 0 || value != value || value >= best) {
        best = value;
        at = j;
      }
      index[start + j * inner] = at;
    }
  }
}
