// Small matrix products in shared memory, which attention is made of.
//
// A block of 128 threads, 8 by 16, works on tiles of TILE rows. Row r of a thread is y * PER_Y + r
// of a tile's; its columns are neighbours of LANE elements, as many times as needed, so that shared
// memory is read 16 bytes at a time and without conflicts. On the CPU one thread has it all.
#pragma once
#include "team.cuh"

#if defined(GRADLITE_NATIVE)
#define SHARED
constexpr int TILE_X = 1, TILE_Y = 1, TILE_THREADS = 1;
DEVICE constexpr int tile_thread() { return 0; }
DEVICE constexpr int tile_x() { return 0; }
DEVICE constexpr int tile_y() { return 0; }
DEVICE void tile_sync() {}
#else
#define SHARED __shared__
constexpr int TILE_X = 16, TILE_Y = 8, TILE_THREADS = 128;
DEVICE int tile_thread() { return int(threadIdx.x); }
DEVICE int tile_x() { return tile_thread() % TILE_X; }
DEVICE int tile_y() { return tile_thread() / TILE_X; }
DEVICE void tile_sync() { __syncthreads(); }
#endif

// The largest of, or the sum over, the threads of one row of the block.
DEVICE acc_t row_max(acc_t value) {
#if !defined(GRADLITE_NATIVE)
#pragma unroll
  for (int offset = TILE_X / 2; offset > 0; offset >>= 1) {
    value = math::larger(value, __shfl_xor_sync(0xffffffffu, value, offset));
  }
#endif
  return value;
}
DEVICE acc_t row_sum(acc_t value) {
#if !defined(GRADLITE_NATIVE)
#pragma unroll
  for (int offset = TILE_X / 2; offset > 0; offset >>= 1) {
    value += __shfl_xor_sync(0xffffffffu, value, offset);
  }
#endif
  return value;
}

template <int N>
struct __attribute__((aligned(N % 4 == 0 ? 16 : 8))) Vector {
  acc_t of[N];
};
template <int N>
DEVICE Vector<N> load_vector(const acc_t* from) {
  return *reinterpret_cast<const Vector<N>*>(from);
}

// TILE rows of D columns; four more columns keep rows apart in the banks.
template <int TILE, int D>
struct __attribute__((aligned(16))) Matrix {
  acc_t at[TILE][D + 4];

  // Rows `first` and on of (rows, columns) in memory, `step` apart, times a factor; zeros beyond
  // the edges.
  __device__ void load(const scalar_t* from, i64 step, i64 first, i64 rows, int columns,
                       acc_t factor = 1) {
    for (int i = tile_thread(); i < TILE * D; i += TILE_THREADS) {
      const int row = i / D, column = i % D;
      const bool inside = first + row < rows && column < columns;
      at[row][column] = inside ? widen(from[(first + row) * step + column]) * factor : acc_t(0);
    }
  }
};

template <int TILE>
constexpr int PER_Y = TILE / TILE_Y;
template <int TILE>
constexpr int PER_X = TILE / TILE_X;

// What a thread has of TILE rows and TILE columns: column c of it is x + TILE_X * c.
template <int TILE>
struct Scores {
  acc_t at[PER_Y<TILE>][PER_X<TILE>];

  // Products of the rows of a with the rows of b.
  template <int D>
  __device__ void products(const Matrix<TILE, D>& a, const Matrix<TILE, D>& b) {
#if defined(GRADLITE_NATIVE)
    for (int r = 0; r < TILE; r++) {
      for (int c = 0; c < TILE; c++) {
        acc_t total = 0;
        for (int d = 0; d < D; d++) total += a.at[r][d] * b.at[c][d];
        at[r][c] = total;
      }
    }
#else
#pragma unroll
    for (int r = 0; r < PER_Y<TILE>; r++) {
#pragma unroll
      for (int c = 0; c < PER_X<TILE>; c++) at[r][c] = 0;
    }
#pragma unroll 2
    for (int d = 0; d < D; d += 4) {
      Vector<4> left[PER_Y<TILE>], right[PER_X<TILE>];
#pragma unroll
      for (int r = 0; r < PER_Y<TILE>; r++) {
        left[r] = load_vector<4>(&a.at[tile_y() * PER_Y<TILE> + r][d]);
      }
#pragma unroll
      for (int c = 0; c < PER_X<TILE>; c++) {
        right[c] = load_vector<4>(&b.at[tile_x() + TILE_X * c][d]);
      }
#pragma unroll
      for (int r = 0; r < PER_Y<TILE>; r++) {
#pragma unroll
        for (int c = 0; c < PER_X<TILE>; c++) {
#pragma unroll
          for (int e = 0; e < 4; e++) at[r][c] += left[r].of[e] * right[c].of[e];
        }
      }
    }
#endif
  }

  // function(row, column, value) for each, which may change it.
  template <class Function>
  __device__ void each(Function function) {
#pragma unroll
    for (int r = 0; r < PER_Y<TILE>; r++) {
#pragma unroll
      for (int c = 0; c < PER_X<TILE>; c++) {
        function(tile_y() * PER_Y<TILE> + r, tile_x() + TILE_X * c, at[r][c]);
      }
    }
  }

  __device__ void store(Matrix<TILE, TILE>& to) const {
#pragma unroll
    for (int r = 0; r < PER_Y<TILE>; r++) {
#pragma unroll
      for (int c = 0; c < PER_X<TILE>; c++) {
        to.at[tile_y() * PER_Y<TILE> + r][tile_x() + TILE_X * c] = at[r][c];
      }
    }
  }
};

// What a thread has of TILE rows and D columns: column x * LANE + e of every group of columns.
template <int TILE, int D>
struct Rows {
#if defined(GRADLITE_NATIVE)
  static constexpr int LANE = D;
#else
  static constexpr int LANE = D / TILE_X < 4 ? D / TILE_X : 4;
#endif
  static constexpr int GROUPS = D / (TILE_X * LANE);
  acc_t at[PER_Y<TILE>][GROUPS][LANE] = {};

  static __device__ int column(int group) { return (group * TILE_X + tile_x()) * LANE; }

  // Adds p b, or with TRANSPOSED pᵀ b.
  template <bool TRANSPOSED>
  __device__ void add(const Matrix<TILE, TILE>& p, const Matrix<TILE, D>& b) {
#if !defined(GRADLITE_NATIVE)
#pragma unroll 2
#endif
    for (int k = 0; k < TILE; k++) {
      acc_t left[PER_Y<TILE>];
#pragma unroll
      for (int r = 0; r < PER_Y<TILE>; r++) {
        const int row = tile_y() * PER_Y<TILE> + r;
        left[r] = TRANSPOSED ? p.at[k][row] : p.at[row][k];
      }
#pragma unroll
      for (int g = 0; g < GROUPS; g++) {
        const Vector<LANE> right = load_vector<LANE>(&b.at[k][column(g)]);
#pragma unroll
        for (int r = 0; r < PER_Y<TILE>; r++) {
#pragma unroll
          for (int e = 0; e < LANE; e++) at[r][g][e] += left[r] * right.of[e];
        }
      }
    }
  }

  // function(row, value) for each, which may change it.
  template <class Function>
  __device__ void each(Function function) {
#pragma unroll
    for (int r = 0; r < PER_Y<TILE>; r++) {
#pragma unroll
      for (int g = 0; g < GROUPS; g++) {
#pragma unroll
        for (int e = 0; e < LANE; e++) function(r, at[r][g][e]);
      }
    }
  }

  // To rows `first` and on of (rows, columns) in memory, `step` apart.
  __device__ void store(scalar_t* to, i64 step, i64 first, i64 rows, int columns) const {
#pragma unroll
    for (int r = 0; r < PER_Y<TILE>; r++) {
      const i64 row = first + tile_y() * PER_Y<TILE> + r;
      if (row < rows) {
#pragma unroll
        for (int g = 0; g < GROUPS; g++) {
#pragma unroll
          for (int e = 0; e < LANE; e++) {
            if (column(g) + e < columns) to[row * step + column(g) + e] = narrow(at[r][g][e]);
          }
        }
      }
    }
  }
};
