// The distances between all rows of two matrices (batches, n, columns) and (batches, m, columns),
// and their gradients.
#define BLOCKS 2
#include "norms.cuh"

// A block's share of the distances is TILE_I by TILE_J, of SIDE by SIDE threads; both sides pass
// through shared memory CHUNK columns at a time. A thread has every SIDE-th row and column of it.
// On the CPU one thread has all, a vector of neighbours at a time.
#if defined(GRADLITE_NATIVE)
#define SHARED
constexpr int SIDE = 1, TILE_I = 32, TILE_J = 16, CHUNK = 64, AT_ONCE = 4;
DEVICE constexpr int thread_i() { return 0; }
DEVICE constexpr int thread_j() { return 0; }
#else
#define SHARED __shared__
constexpr int SIDE = 16, TILE_I = 32, TILE_J = 32, CHUNK = 32, AT_ONCE = 2;
DEVICE int thread_i() { return int(threadIdx.x) / SIDE; }
DEVICE int thread_j() { return int(threadIdx.x) % SIDE; }
#endif
constexpr int PER_I = TILE_I / SIDE, PER_J = TILE_J / SIDE;

// Column-major, so that neighbours in a column are neighbours; one more keeps banks apart.
template <int ROWS>
struct Chunk {
  acc_t at[CHUNK][ROWS + 1];

  // Rows `first` and on of (rows, columns), columns `left` and on; beyond the edges what is there
  // does not count.
  template <class Team>
  __device__ void load(const Team& team, const scalar_t* x, i64 rows, i64 columns, i64 first,
                       i64 left) {
#if defined(GRADLITE_NATIVE)
    const int width = int(math::smaller(i64(CHUNK), columns - left));
    for (int i = 0; i < ROWS; i++) {
      const scalar_t* in = x + math::smaller(first + i, rows - 1) * columns + left;
      for (int k = 0; k < width; k++) at[k][i] = widen(in[k]);
    }
#else
    for (int e = int(team.rank()); e < ROWS * CHUNK; e += int(team.size())) {
      const int i = e / CHUNK, k = e % CHUNK;
      const bool inside = first + i < rows && left + k < columns;
      at[k][i] = inside ? widen(x[(first + i) * columns + left + k]) : acc_t(0);
    }
#endif
  }
};

// A sum, or a largest number that no NaN is.
template <class Norm>
DEVICE acc_t with_term(Norm norm, acc_t total, acc_t v) {
  const acc_t t = term(norm, v);
  return is_most(norm) ? math::larger(t, total) : total + t;
}

template <class Norm>
DEVICE void distances(Norm norm, const scalar_t* x, const scalar_t* y, scalar_t* out, i64 batches,
                      i64 n, i64 m, i64 columns) {
  const i64 down = (n + TILE_I - 1) / TILE_I, across = (m + TILE_J - 1) / TILE_J;
  for_each_block(batches * down * across, [&](auto team, i64 tile) {
    SHARED Chunk<TILE_I> left;
    SHARED Chunk<TILE_J> right;
    const i64 batch = tile / (down * across), place = tile - batch * (down * across);
    const i64 i0 = place / across * TILE_I, j0 = place % across * TILE_J;
    acc_t totals[PER_I][PER_J] = {};
    for (i64 k0 = 0; k0 < columns; k0 += CHUNK) {
      left.load(team, x + batch * n * columns, n, columns, i0, k0);
      right.load(team, y + batch * m * columns, m, columns, j0, k0);
      team.sync();
      const int width = int(math::smaller(i64(CHUNK), columns - k0));
      for (int first = 0; first < PER_I; first += AT_ONCE) {
        acc_t some[AT_ONCE][PER_J];
#pragma GCC unroll 16
        for (int a = 0; a < AT_ONCE; a++) {
#pragma GCC unroll 16
          for (int b = 0; b < PER_J; b++) some[a][b] = totals[first + a][b];
        }
        for (int k = 0; k < width; k++) {
#pragma GCC unroll 16
          for (int a = 0; a < AT_ONCE; a++) {
            const acc_t u = left.at[k][thread_i() + (first + a) * SIDE];
#pragma GCC unroll 16
            for (int b = 0; b < PER_J; b++) {
              some[a][b] = with_term(norm, some[a][b], u - right.at[k][thread_j() + b * SIDE]);
            }
          }
        }
#pragma GCC unroll 16
        for (int a = 0; a < AT_ONCE; a++) {
#pragma GCC unroll 16
          for (int b = 0; b < PER_J; b++) totals[first + a][b] = some[a][b];
        }
      }
      team.sync();  // before the next columns take their place
    }
    for (int a = 0; a < PER_I; a++) {
      const i64 i = i0 + thread_i() + a * SIDE;
      for (int b = 0; b < PER_J; b++) {
        const i64 j = j0 + thread_j() + b * SIDE;
        if (i < n && j < m) out[(batch * n + i) * m + j] = narrow(root(norm, totals[a][b]));
      }
    }
  });
}

KERNEL(cdist_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, scalar_t* __restrict__ out,
 i64 batches, i64 n, i64 m, i64 columns, double p) {
  with_norm(p, [&](auto norm) { distances(norm, x, y, out, batches, n, m, columns); });
}

// The derivative of a distance by an element of one row, `v` more than the other's. As PyTorch has
// it, all of the largest elements have the whole gradient of p = infinity, and where the length is
// as `out` holds it, elements are rounded like it.
template <class Norm>
DEVICE acc_t by_one(Norm norm, acc_t v, acc_t length) {
  if (is_power(norm)) return by_element(norm, v);
  if (norm.kind == TWO) return v;
  const acc_t sign_of = v > 0 ? acc_t(1) : v < 0 ? acc_t(-1) : v;
  if (norm.kind == ONE) return sign_of;
  const acc_t gap = widen(narrow(math::abs(v))) - length;
  return gap == 0 ? sign_of : gap != gap ? gap : acc_t(0);
}

// Columns that a thread has together: a vector on the CPU.
#if defined(GRADLITE_NATIVE)
constexpr int RUN = 64;
#else
constexpr int RUN = 1;
#endif

// d_own (batches, n, columns), from the other side's m rows; the distance of rows i and j and its
// gradient are at i * step_i + j * step_j of their batch.
template <class Norm>
DEVICE void one_side(Norm norm, const scalar_t* grad, const scalar_t* own, const scalar_t* other,
                     const scalar_t* out, scalar_t* d_own, i64 batches, i64 n, i64 m, i64 columns,
                     i64 step_i, i64 step_j) {
  const i64 runs = (columns + RUN - 1) / RUN;
  const bool flat = is_power(norm) && norm.p < 1;  // as PyTorch has it, also where 0 meets NaN
  for (i64 t = thread_index(); t < batches * n * runs; t += thread_count()) {
    const i64 row = t / runs, left = (t - row * runs) * RUN, batch = row / n;
    const int width = int(math::smaller(i64(RUN), columns - left));
    const i64 place = batch * n * m + (row - batch * n) * step_i;
    acc_t total[RUN] = {}, mine[RUN] = {};
    for (int k = 0; k < width; k++) mine[k] = widen(own[row * columns + left + k]);
    for (i64 j = 0; j < m; j++) {
      const acc_t length = widen(out[place + j * step_j]);
      const acc_t factor = by_length(norm, widen(grad[place + j * step_j]), length);
      const scalar_t* in = other + (batch * m + j) * columns + left;
      for (int k = 0; k < width; k++) {
        const acc_t v = mine[k] - widen(in[k]), by = by_one(norm, v, length);
        total[k] += flat && v == 0 ? acc_t(0) : factor * by;
      }
    }
    for (int k = 0; k < width; k++) d_own[row * columns + left + k] = narrow(total[k]);
  }
}

KERNEL(cdist_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, const scalar_t* __restrict__ out, scalar_t* __restrict__ dx,
 scalar_t* __restrict__ dy, i64 batches, i64 n, i64 m, i64 columns, double p) {
  with_norm(p, [&](auto norm) {
    if (dx) one_side(norm, grad, x, y, out, dx, batches, n, m, columns, m, 1);
    if (dy) one_side(norm, grad, y, x, out, dy, batches, m, n, columns, 1, m);
  });
}
