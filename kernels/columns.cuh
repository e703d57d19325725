// Sums over the rows of (rows, columns), one for each column: gradients of biases and of the
// weights of normalisations. In two kernels and without atomics, so that a result is the same
// bits at every run:
//
//   1. a kernel that calls `column_parts` cuts the rows into parts and leaves the sums of each
//      part in `partials` (sums, parts, columns);
//   2. `columns_total` (columns.cu), or a kernel that calls `column_totals`, adds up the parts.
//
// Both take blocks of (32, 8) threads. The first has a grid of (column_tiles, parts) blocks,
// where a tile is COLUMN_TILE columns; the second one of (ceil(columns / 32), sums).
#pragma once
#include "common.cuh"

constexpr int COLUMN_TILE = 32 * LANES;

// The walk that all functions below are made of: calls
// function(of_column(column), prepare(row, column), row, column, sum, values of `in` there...) for
// every element. It adds to sum[0] ... sum[N - 1], and what it returns goes to `out`, which may be
// null or one of `in`. `prepare` may be called with the first element of a pack alone.
template <int N, class OfColumn, class Prepare, class Function, class... In>
DEVICE void walk_columns(i64 rows, i64 columns, i64 parts, acc_t* partials, scalar_t* out,
                         OfColumn of_column, Prepare prepare, Function function, const In*... in) {
#if defined(GRADLITE_NATIVE)
  const i64 rows_of_part = (rows + parts - 1) / parts;
  for (i64 part = 0; part < parts; part++) {
    acc_t* totals = partials + part * columns;
    for (int n = 0; n < N; n++) {
      for (i64 c = 0; c < columns; c++) totals[n * parts * columns + c] = 0;
    }
    const i64 last = math::smaller((part + 1) * rows_of_part, rows);
    for (i64 row = part * rows_of_part; row < last; row++) {
      const i64 base = row * columns;
      INDEPENDENT
      for (i64 c = 0; c < columns; c++) {
        acc_t sum[N + 1] = {};
        const acc_t result =
            function(of_column(c), prepare(row, c), row, c, sum, widen(in[base + c])...);
        if (out) out[base + c] = narrow(result);
        for (int n = 0; n < N; n++) totals[n * parts * columns + c] += sum[n];
      }
    }
  }
#else
  const bool packed = columns % LANES == 0 && aligned(out, in...);
  for (i64 part = blockIdx.y; part < parts; part += gridDim.y) {
    for (i64 left = i64(blockIdx.x) * COLUMN_TILE; left < columns;
         left += i64(gridDim.x) * COLUMN_TILE) {
      // The l-th of a thread's LANES columns: neighbours where a pack holds them, else apart, so
      // that the warp reads without gaps.
      const i64 step = packed ? 1 : 32;
      const i64 column = left + threadIdx.x * (packed ? LANES : 1);
      decltype(of_column(column)) constant[LANES] = {};
      acc_t sum[LANES][N + 1] = {};
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        if (column + l * step < columns) constant[l] = of_column(column + l * step);
      }
      // Every 8 * parts rows, so that no thread has to divide.
      ROLLED
      for (i64 row = part * 8 + threadIdx.y; row < rows; row += parts * 8) {
        const i64 base = row * columns + column;
        if (packed) {
          if (column < columns) {
            const auto prepared = prepare(row, column);
            int next = 0;
            const Pack result = map_lanes(
                [&](auto... values) {
                  const int l = next++;
                  return function(constant[l], prepared, row, column + l, sum[l], values...);
                },
                reinterpret_cast<const Pack*>(in + base)[0]...);
            if (out) reinterpret_cast<Pack*>(out + base)[0] = result;
          }
        } else {
#pragma unroll
          for (int l = 0; l < LANES; l++) {
            const i64 c = column + 32 * l;
            if (c < columns) {
              const acc_t result = function(constant[l], prepare(row, c), row, c, sum[l],
                                            widen(in[base + 32 * l])...);
              if (out) out[base + 32 * l] = narrow(result);
            }
          }
        }
      }
      if constexpr (N > 0) {
        __shared__ acc_t tile[LANES * N][8][32];
#pragma unroll
        for (int l = 0; l < LANES; l++) {
#pragma unroll
          for (int n = 0; n < N; n++) tile[l * N + n][threadIdx.y][threadIdx.x] = sum[l][n];
        }
        __syncthreads();
        for (int v = threadIdx.y; v < LANES * N; v += 8) {
          acc_t total = 0;
#pragma unroll
          for (int k = 0; k < 8; k++) total += tile[v][k][threadIdx.x];
          const i64 c = column + v / N * step;
          if (c < columns) partials[(v % N * parts + part) * columns + c] = total;
        }
        __syncthreads();  // before the next tile of columns goes there
      }
    }
  }
#endif
}

struct Nothing {};

// function(row, column, sum, values...)
template <int N, class Function, class... In>
DEVICE void column_parts(i64 rows, i64 columns, i64 parts, acc_t* partials, scalar_t* out,
                         Function function, const In*... in) {
  walk_columns<N>(
      rows, columns, parts, partials, out, [](i64) { return Nothing(); },
      [](i64, i64) { return Nothing(); },
      [&](Nothing, Nothing, i64 row, i64 column, acc_t* sum, auto... values) {
        return function(row, column, sum, values...);
      },
      in...);
}

// function(prepare(row, column), row, column, sum, values...)
template <int N, class Prepare, class Function, class... In>
DEVICE void prepared_column_parts(i64 rows, i64 columns, i64 parts, acc_t* partials, scalar_t* out,
                                  Prepare prepare, Function function, const In*... in) {
  walk_columns<N>(
      rows, columns, parts, partials, out, [](i64) { return Nothing(); }, prepare,
      [&](Nothing, auto prepared, i64 row, i64 column, acc_t* sum, auto... values) {
        return function(prepared, row, column, sum, values...);
      },
      in...);
}

// function(weights[column], sum, values...)
template <int N, class Function, class... In>
DEVICE void weighted_column_parts(i64 rows, i64 columns, i64 parts, acc_t* partials, scalar_t* out,
                                  const scalar_t* weights, Function function, const In*... in) {
  walk_columns<N>(
      rows, columns, parts, partials, out, [=](i64 column) { return widen(weights[column]); },
      [](i64, i64) { return Nothing(); },
      [&](acc_t weight, Nothing, i64, i64, acc_t* sum, auto... values) {
        return function(weight, sum, values...);
      },
      in...);
}

// out = function(weights[column], values...), without sums; the grid has parts of rows as well.
template <class Function, class... In>
DEVICE void map_columns(i64 rows, i64 columns, i64 parts, scalar_t* out, const scalar_t* weights,
                        Function function, const In*... in) {
  weighted_column_parts<0>(
      rows, columns, parts, nullptr, out, weights,
      [&](acc_t weight, acc_t*, auto... values) { return function(weight, values...); }, in...);
}

// Calls write(n, column, total) for every column of each of the `sums`.
template <class Function>
DEVICE void column_totals(i64 sums, i64 parts, i64 columns, const acc_t* partials,
                          Function write) {
#if defined(GRADLITE_NATIVE)
  for (i64 n = 0; n < sums; n++) {
    for (i64 c = 0; c < columns; c++) {
      acc_t total = 0;
      for (i64 part = 0; part < parts; part++) total += partials[(n * parts + part) * columns + c];
      write(n, c, total);
    }
  }
#else
  __shared__ acc_t tile[8][32];
  for (i64 n = blockIdx.y; n < sums; n += gridDim.y) {
    for (i64 left = i64(blockIdx.x) * 32; left < columns; left += i64(gridDim.x) * 32) {
      const i64 column = left + threadIdx.x;
      acc_t total = 0;
      if (column < columns) {
        for (i64 part = threadIdx.y; part < parts; part += 8) {
          total += partials[(n * parts + part) * columns + column];
        }
      }
      tile[threadIdx.y][threadIdx.x] = total;
      __syncthreads();
      if (threadIdx.y == 0 && column < columns) {
        total = 0;
#pragma unroll
        for (int k = 0; k < 8; k++) total += tile[k][threadIdx.x];
        write(n, column, total);
      }
      __syncthreads();
    }
  }
#endif
}
