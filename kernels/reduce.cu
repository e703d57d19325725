// Sums and extremes over dimensions, in two kernels where one has too few teams.
//
// An array is (outer, rows, columns) here, and what is reduced are its rows; or (rows, columns)
// with the columns reduced. The sums of parts go to `partials`, in acc_t; reduce_rows writes the
// result itself when rows are whole. `divisor` divides the result: n for means. With y the sums
// are those of x * y: what a factor's gradient is where it was broadcast.
#define BLOCKS 4
#include "channels.cuh"

#include "packs.cuh"

// Of pieces of a row: a multiple of 8, so that every piece of an aligned row is aligned.
DEVICE i64 piece_size(i64 columns, i64 pieces) {
  return ((columns + pieces - 1) / pieces + 7) / 8 * 8;
}

// The sums of each of the `pieces` of every row: partials (rows, pieces), or out (rows) of one.
KERNEL(reduce_rows)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, acc_t* __restrict__ partials,
 scalar_t* __restrict__ out, i64 rows, i64 columns, i64 pieces, double divisor) {
  const i64 size = piece_size(columns, pieces);
  for_each_row<FewLanes>(rows * pieces, [&](auto team, i64 r) {
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
constexpr i64 NOWHERE = i64(1) << 62;

// The largest of values times `sign`, and the number of the first one; of the first NaN, if there
// is one. A thread counts in 32 bits what it reads.
template <class Index>
struct Extreme {
  static constexpr Index NONE = sizeof(Index) < 8 ? Index(0x7fffffff) : Index(NOWHERE);
  acc_t sign, best;
  Index index;  // NONE where all are -infinity
  __device__ explicit Extreme(acc_t sign_) : sign(sign_), best(-infinity()), index(NONE) {}
  __device__ void add(acc_t value, Index at) {
    const acc_t signed_value = value * sign;
    if (!(signed_value <= best) && best == best) {
      best = signed_value;
      index = at;
    }
  }
  // Of what another thread has.
  __device__ void merge(acc_t value, Index at) {
    const bool same = value == best || (value != value && best != best);
    if (same ? at < index : !(value <= best) && best == best) {
      best = value;
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
  for_each_row<FewLanes>(rows * pieces, [&](auto team, i64 r) {
    const i64 row = pieces == 1 ? r : r / pieces, first = (r - row * pieces) * size;
    const i64 last = math::smaller(first + size, columns);
    const scalar_t* in = x + row * columns;
#if defined(GRADLITE_NATIVE)
    Extreme<i64> own{acc_t(sign)};
    for (i64 c = first; c < last; c++) own.add(widen(in[c]), c);
    const i64 found = own.index;
#else
    Extreme<int> own{acc_t(sign)};
    constexpr int AT_ONCE = LANES > 4 ? 2 : 4;
    const Packs piece = packs_of(last - first, in + first);
    const i64 step = piece.step(team);
    const acc_t least = -infinity() * own.sign;
    int number = 0;
    ROLLED
    for (i64 c = piece.first(team); c < last - first; c += AT_ONCE * step) {
      Pack packs[AT_ONCE];
#pragma unroll
      for (int k = 0; k < AT_ONCE; k++) packs[k] = piece.load(in + first, c + k * step, least);
#pragma unroll
      for (int i = 0; i < AT_ONCE * LANES; i++) {
        own.add(widen(packs[i / LANES].lane[i % LANES]), number++);
      }
    }
    const i64 pack = own.index / LANES;
    const i64 column = first + piece.first(team) + pack * step + own.index % LANES;
    const i64 found = own.index == own.NONE ? NOWHERE : column;
#endif
    const acc_t best = team.max_or_nan(own.best);
    if (!index) {
      if (team.rank() == 0) out[r] = narrow(best * own.sign);
      return;
    }
    // Of the members that have the extreme, the one with the smallest index.
    const bool has = own.best == best || (own.best != own.best && best != best);
    i64 at = -team.max(has ? -found : -NOWHERE);
    if (at == NOWHERE) at = first;
    if (team.rank() == 0) {
      out[r] = in[at];
      index[r] = given ? given[row * columns + at] : at;
    }
  });
}

// The same over the rows of (outer, rows, columns): out and index (outer, parts, columns). A block
// takes `width` of the outer * columns results of a part, 256 at most, and shares the rows.
KERNEL(extreme_columns)
(const scalar_t* __restrict__ x, const i64* __restrict__ given, scalar_t* __restrict__ out,
 i64* __restrict__ index, i64 outer, i64 rows, i64 columns, i64 parts, i64 sign, i64 width) {
  const i64 size = (rows + parts - 1) / parts, results = outer * columns;
  const auto write = [&](i64 n, i64 part, i64 column, i64 at) {
    if (at == NOWHERE) at = part * size;
    const i64 from = (n * rows + at) * columns + column;
    const i64 to = (n * parts + part) * columns + column;
    out[to] = x[from];
    if (index) index[to] = given ? given[from] : at;
  };
#if defined(GRADLITE_NATIVE)
  for (i64 i = 0; i < results * parts; i++) {
    const i64 block = i / columns, column = i - block * columns, n = block / parts;
    const i64 part = block - n * parts, first = part * size;
    const i64 last = math::smaller(first + size, rows), start = n * rows * columns + column;
    Extreme<i64> own{acc_t(sign)};
    for (i64 row = first; row < last; row++) own.add(widen(x[start + row * columns]), row);
    write(n, part, column, own.index);
  }
#else
  constexpr int AT_ONCE = 8;
  __shared__ acc_t best[256];
  __shared__ i64 where[256];
  const int y = int(threadIdx.x) / int(width), depth = 256 / int(width);
  const i64 tiles = (results + width - 1) / width, step = depth * columns;
  for (i64 block = blockIdx.x; block < tiles * parts; block += gridDim.x) {
    const i64 part = block / tiles;
    const i64 result = (block - part * tiles) * width + (int(threadIdx.x) - y * int(width));
    const i64 n = result / columns, column = result - n * columns;
    const i64 first = part * size, last = math::smaller(first + size, rows);
    const bool mine = result < results;
    Extreme<int> own{acc_t(sign)};
    if (mine) {
      const scalar_t least = narrow(-infinity() * own.sign);
      const scalar_t* in = x + (n * rows + first + y) * columns + column;
      int number = 0;
      ROLLED
      for (i64 row = first + y; row < last; row += AT_ONCE * depth) {
        scalar_t values[AT_ONCE];
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++, in += step) {
          values[k] = row + k * depth < last ? *in : least;
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; k++) own.add(widen(values[k]), number++);
      }
    }
    const i64 found = first + y + i64(own.index) * depth;
    Extreme<i64> all{1};
    all.merge(own.best, own.index == own.NONE ? NOWHERE : found);
    for (int left = depth; left > 1;) {
      const int half = (left + 1) / 2;
      best[threadIdx.x] = all.best;
      where[threadIdx.x] = all.index;
      __syncthreads();
      if (y < left - half) {
        const int other = int(threadIdx.x) + half * int(width);
        all.merge(best[other], where[other]);
      }
      __syncthreads();
      left = half;
    }
    if (mine && y == 0) write(n, part, column, all.index);
  }
#endif
}

// Elements that are as extreme as the extreme, `top`: with kind 1 NaNs are where that is NaN, and
// with kind 2 it is their magnitude that counts.
struct Reaching {
  acc_t top;
  i64 kind;
  __device__ bool has(acc_t value) const {
    const acc_t own = kind == 2 ? math::abs(value) : value;
    return own == top || (kind == 1 && value != value && top != top);
  }
  // The gradient of an element, with the share of those that reach it.
  __device__ acc_t slope(acc_t value, acc_t share, acc_t rest) const {
    if (!has(value)) return rest;
    return kind == 2 && value <= 0 ? (value < 0 ? -share : acc_t(0)) : share;
  }
  // That of the others: where none reaches it, it is NaN; of a magnitude 0.
  __device__ acc_t rest(acc_t ties) const {
    return ties > 0 || kind == 2 ? acc_t(0) : infinity() - infinity();
  }
};

// The gradient of the extremes of rows, out (rows), shared by all elements that reach them.
KERNEL_BLOCKS(extreme_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ out, scalar_t* __restrict__ dx, i64 rows, i64 columns,
 i64 kind) {
  for_each_row<FewLanes>(rows, [&](auto team, i64 r) {
    with_row<1>(team, columns, aligned(x, dx), [&](auto row) {
      const auto in = row.keep(x + r * columns);
      const Reaching reaching{widen(out[r]), kind};
      acc_t ties = 0;
      row.each([&](acc_t value) { ties += reaching.has(value) ? acc_t(1) : acc_t(0); }, in);
      ties = team.sum(ties);
      const acc_t share = widen(grad[r]) / ties, rest = reaching.rest(ties);
      row.map(
          dx + r * columns, [=](acc_t value) { return reaching.slope(value, share, rest); }, in);
    });
  });
}

// The same of rows in pieces: how many elements of each reach the extreme, ties (rows, pieces).
KERNEL(extreme_ties)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ out, acc_t* __restrict__ ties,
 i64 rows, i64 columns, i64 pieces, i64 kind) {
  const i64 size = piece_size(columns, pieces);
  for_each_row<FewLanes>(rows * pieces, [&](auto team, i64 r) {
    const i64 row = r / pieces, first = (r - row * pieces) * size;
    const Reaching reaching{widen(out[row]), kind};
    acc_t count = 0;
    if (first < columns) {
      const auto piece = row_of(team, math::smaller(size, columns - first));
      piece.each([&](acc_t value) { count += reaching.has(value) ? acc_t(1) : acc_t(0); },
                 x + row * columns + first);
    }
    count = team.sum(count);
    if (team.rank() == 0) ties[r] = count;
  });
}

// And what of the gradient they then share.
KERNEL(extreme_share)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ out, const acc_t* __restrict__ ties, scalar_t* __restrict__ dx,
 i64 rows, i64 columns, i64 pieces, i64 kind) {
  const i64 size = piece_size(columns, pieces);
  for_each_row<FewLanes>(rows * pieces, [&](auto team, i64 r) {
    const i64 row = r / pieces, first = (r - row * pieces) * size;
    const Reaching reaching{widen(out[row]), kind};
    acc_t count = 0;
    for (i64 p = team.rank(); p < pieces; p += team.size()) count += ties[row * pieces + p];
    count = team.sum(count);
    if (first >= columns) return;
    const acc_t share = widen(grad[row]) / count, rest = reaching.rest(count);
    const i64 start = row * columns + first;
    const auto piece = row_of(team, math::smaller(size, columns - first));
    piece.map(
        dx + start, [=](acc_t value) { return reaching.slope(value, share, rest); }, x + start);
  });
}
