// How the kernels of rnn_sequence.cu walk through time: what a block keeps in shared memory, the
// products with the weights, and the order of steps and barriers.
#pragma once
#include "common.cuh"

// Numbers that a block may read and write at once.
constexpr int QUAD = 4;
struct __attribute__((aligned(16))) Quad {
  acc_t at[QUAD];
};
constexpr int SOME = 16 / sizeof(acc_t);
struct __attribute__((aligned(16))) Some {
  acc_t at[SOME];
};

DEVICE scalar_t given(const scalar_t* values, i64 at) { return values ? values[at] : narrow(0); }

struct Sizes {
  int steps, batch, hidden, rows, groups;
  bool reverse;

  // The time of the n-th step, and the places of the states that it begins and ends with.
  __device__ int time(int n) const { return reverse ? steps - 1 - n : n; }
  __device__ int before(int t) const { return reverse ? t + 1 : t; }
  __device__ int after(int t) const { return reverse ? t : t + 1; }
};

// An element of a block's rows: which row of the batch, which of the block, which of the layer.
struct Place {
  int row, r, j;
};

// What a block keeps: the left sides of products, (rows, depth) with a gap behind each row up to a
// multiple of QUAD; the products, (groups, rows, width); the states of cells, (rows, hidden).
struct Room {
  acc_t *sources, *parts, *states;
  int stride, depth, width, hidden, rows, groups;

  __device__ acc_t& source(const Place& p, int on = 0) const {
    return sources[p.r * stride + on + p.j];
  }
  __device__ acc_t& state(const Place& p) const { return states[p.r * hidden + p.j]; }
};

DEVICE Room room_of(acc_t* memory, const Sizes& sizes, int depth, int width) {
  const int stride = (depth + QUAD - 1) / QUAD * QUAD;
  const int used = sizes.rows * stride, parts = sizes.groups * sizes.rows * width;
  acc_t* behind = memory + used;
  return {memory, behind, behind + parts, stride, depth, width, sizes.hidden, sizes.rows,
          sizes.groups};
}

// The elements of a product for the gates of a cell.
template <int gates>
struct Total {
  acc_t of[gates];

  __device__ Total(const Room& room, const Place& p) {
#pragma unroll
    for (int gate = 0; gate < gates; gate++) of[gate] = 0;
    const acc_t* part = room.parts + p.r * room.width + p.j;
    const int step = room.rows * room.width;
#pragma unroll(gates == 1 ? 32 / sizeof(acc_t) : 4)
    for (int group = 0; group < room.groups; group++, part += step) {
#pragma unroll
      for (int gate = 0; gate < gates; gate++) of[gate] += part[gate * room.hidden];
    }
  }
};

#if defined(GRADLITE_NATIVE)

constexpr int MOST_HIDDEN = 512;
// A block of one thread, one row and one group.
#define ROOM acc_t memory[6 * MOST_HIDDEN]
#define ROWS 1
#define GROUPS 1

DEVICE void multiply(const Room& room, const scalar_t* w) {
  for (int column = 0; column < room.width; column++) room.parts[column] = 0;
  for (int k = 0; k < room.depth; k++) {
    const acc_t source = room.sources[k];
    const scalar_t* row = w + i64(k) * room.width;
    acc_t* parts = room.parts;
    INDEPENDENT
    for (int column = 0; column < room.width; column++) {
      parts[column] = math::fused(source, widen(row[column]), parts[column]);
    }
  }
}

#else

#define ROOM DYNAMIC_SHARED(acc_t, memory)
#define ROWS int(rows)
#define GROUPS int(groups)

// V neighbours of a row of weights, and what is written of a row of sums.
template <int V>
struct Columns : Pack {
  static __device__ Columns at(const scalar_t* from) {
    return {*reinterpret_cast<const Pack*>(from)};
  }
  static __device__ void write(const acc_t* from, acc_t* to) {
#pragma unroll
    for (int v = 0; v < V; v += SOME) {
      Some some;
#pragma unroll
      for (int i = 0; i < SOME; i++) some.at[i] = from[v + i];
      *reinterpret_cast<Some*>(to + v) = some;
    }
  }
};
template <>
struct Columns<1> {
  scalar_t lane[1];

  static __device__ Columns at(const scalar_t* from) { return {{*from}}; }
  static __device__ void write(const acc_t* from, acc_t* to) { *to = *from; }
};

// A thread's part of a product: some of its columns, V at a time, and some of its depth.
struct Part {
  const scalar_t* w;
  bool packed;
  int groups, group, column, step, begin, end;

  __device__ Part(const scalar_t* w, Room& room) : w(w) {
    packed = room.width % LANES == 0 && aligned(w);
    const int lanes = packed ? LANES : 1, across = room.width / lanes;
    const int threads = int(blockDim.x), thread = int(threadIdx.x);
    // Weights that are not aligned leave room for fewer groups than the launch asks for.
    if (room.groups > 1) room.groups = math::smaller(room.groups, math::larger(threads / across, 1));
    const int share = (room.depth + QUAD * room.groups - 1) / (QUAD * room.groups) * QUAD;
    group = room.groups > 1 ? thread / across : 0;
    column = (thread - group * across) * lanes;
    step = room.groups > 1 ? room.width : threads * lanes;
    begin = group * share;
    end = math::smaller(begin + share, room.depth);
    if (group >= room.groups) column = room.width;  // nothing to do
  }
};

// The first rows of a thread's part of the weights. Where a block has one row of the batch, threads
// have room to keep them from step to step, and what is left may fit the first cache.
constexpr int KEPT = sizeof(scalar_t) == 4 ? 8 : 4;
template <int R>
struct Kept {
  __device__ Kept(const Part&, const Room&) {}
};
template <>
struct Kept<1> {
  Pack rows[KEPT];
  bool full;

  __device__ Kept(const Part& part, const Room& room) {
    full = part.packed && part.column < room.width && part.column + part.step >= room.width &&
           part.end - part.begin >= KEPT;
    if (!full) return;
    const scalar_t* row = part.w + i64(part.begin) * room.width + part.column;
#pragma unroll
    for (int k = 0; k < KEPT; k++, row += room.width) {
      rows[k] = *reinterpret_cast<const Pack*>(row);
    }
  }

  // Adds their products with the left side to a thread's sums.
  __device__ void multiply(const acc_t* sources, acc_t* sums) const {
#pragma unroll
    for (int k = 0; k < KEPT; k += QUAD) {
      const Quad source = *reinterpret_cast<const Quad*>(sources + k);
#pragma unroll
      for (int i = 0; i < QUAD; i++) {
#pragma unroll
        for (int v = 0; v < LANES; v++) {
          sums[v] = math::fused(source.at[i], widen(rows[k + i].lane[v]), sums[v]);
        }
      }
    }
  }
};

// parts = the left sides times w (depth, width), for R rows and V columns to a thread.
template <int V, int R>
DEVICE void multiply(const Room& room, const Part& part, const Kept<R>& kept) {
  const int width = room.width;
  ROLLED
  for (int column = part.column; column < width; column += part.step) {
    acc_t sums[R][V];
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
      for (int v = 0; v < V; v++) sums[r][v] = 0;
    }
    int k = part.begin;
    if constexpr (V == LANES && R == 1) {
      if (kept.full) {
        kept.multiply(room.sources + k, sums[0]);
        k += KEPT;
      }
    }
    const scalar_t* row = part.w + i64(k) * width + column;
    ROLLED
    for (; k + QUAD <= part.end; k += QUAD) {
      Columns<V> weights[QUAD];
#pragma unroll
      for (int i = 0; i < QUAD; i++, row += width) weights[i] = Columns<V>::at(row);
#pragma unroll
      for (int r = 0; r < R; r++) {
        const Quad source = *reinterpret_cast<const Quad*>(room.sources + r * room.stride + k);
#pragma unroll
        for (int i = 0; i < QUAD; i++) {
#pragma unroll
          for (int v = 0; v < V; v++) {
            sums[r][v] = math::fused(source.at[i], widen(weights[i].lane[v]), sums[r][v]);
          }
        }
      }
    }
    ROLLED
    for (; k < part.end; k++, row += width) {
      const Columns<V> weights = Columns<V>::at(row);
#pragma unroll
      for (int r = 0; r < R; r++) {
        const acc_t source = room.sources[r * room.stride + k];
#pragma unroll
        for (int v = 0; v < V; v++) {
          sums[r][v] = math::fused(source, widen(weights.lane[v]), sums[r][v]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
      Columns<V>::write(sums[r], room.parts + (part.group * R + r) * width + column);
    }
  }
}

template <int R>
DEVICE void multiply(const Room& room, const Part& part, const Kept<R>& kept) {
  if (part.packed) {
    multiply<LANES, R>(room, part, kept);
  } else {
    multiply<1, R>(room, part, kept);
  }
}

#endif

// Both directions of time. `begin(place)` makes the first state of a cell, `read(t, place)` gives
// what a step needs beside products, `step(t, place, inputs, first)` makes a step, and
// `end(place)` comes after the last. A product, of the sources with w, stands before every step of
// `forward`, and behind every step of backward.
#if defined(GRADLITE_NATIVE)

template <bool forward, class Begin, class Read, class Step, class End>
DEVICE void walk(Room& room, const scalar_t* w, const Sizes& sizes, Begin begin, Read read, Step step,
                 End end) {
  const int hidden = sizes.hidden;
  for (int row = 0; row < sizes.batch; row++) {
    for (int j = 0; j < hidden; j++) begin(Place{row, 0, j});
    for (int n = 0; n < sizes.steps; n++) {
      const int t = sizes.time(forward ? n : sizes.steps - 1 - n);
      if (forward) multiply(room, w);
      for (int j = 0; j < hidden; j++) {
        const Place place{row, 0, j};
        step(t, place, read(t, place), n == 0);
      }
      if (!forward) multiply(room, w);
    }
    for (int j = 0; j < hidden; j++) end(Place{row, 0, j});
  }
}

#else

template <bool forward, int R, class Begin, class Read, class Step, class End>
DEVICE void walk_rows(Room& room, const scalar_t* w, const Sizes& sizes, Begin begin, Read read,
                      Step step, End end) {
  const Part part(w, room);
  const Kept<R> kept(part, room);
  const int r = int(threadIdx.x) / sizes.hidden, j = int(threadIdx.x) - r * sizes.hidden;
  const int steps = sizes.steps;
  for (int row = int(blockIdx.x) * R; row < sizes.batch; row += int(gridDim.x) * R) {
    const bool mine = r < R && row + r < sizes.batch;
    const Place place{row + r, r, j};
    // Rows beyond the batch are multiplied like the others.
    for (int i = int(threadIdx.x); i < R * room.stride; i += int(blockDim.x)) room.sources[i] = 0;
    __syncthreads();
    decltype(read(steps, place)) inputs{};
    if (mine) {
      begin(place);
      inputs = read(sizes.time(forward ? 0 : steps - 1), place);
    }
    if (forward) __syncthreads();
    for (int n = 0; n < steps; n++) {
      const int now = forward ? n : steps - 1 - n, next = forward ? n + 1 : now - 1;
      if (forward) {
        multiply(room, part, kept);
        __syncthreads();
      }
      if (mine) {
        step(sizes.time(now), place, inputs, n == 0);
        if (n + 1 < steps) inputs = read(sizes.time(next), place);
      }
      __syncthreads();
      if (!forward) {
        multiply(room, part, kept);
        __syncthreads();
      }
    }
    if (mine) end(place);
    __syncthreads();  // before the next rows take the place of these
  }
}

template <bool forward, class Begin, class Read, class Step, class End>
DEVICE void walk(Room& room, const scalar_t* w, const Sizes& sizes, Begin begin, Read read, Step step,
                 End end) {
  if (sizes.rows == 1) {
    walk_rows<forward, 1>(room, w, sizes, begin, read, step, end);
  } else if (sizes.rows == 2) {
    walk_rows<forward, 2>(room, w, sizes, begin, read, step, end);
  } else {
    walk_rows<forward, 4>(room, w, sizes, begin, read, step, end);
  }
}

#endif

// The biases of a cell's gates: the sums of both, but of the last gate of a GRU, whose two stay
// apart. A thread has the same element of the layer all the time, and keeps them.
template <int gates, bool apart = false>
struct Biases {
#if defined(GRADLITE_NATIVE)
  const scalar_t *b_ih, *b_hh;
  int hidden;

  Biases(const scalar_t* b_ih, const scalar_t* b_hh, int hidden)
      : b_ih(b_ih), b_hh(b_hh), hidden(hidden) {}
  acc_t own(int gate, int j) const { return widen(given(b_ih, gate * hidden + j)); }
  acc_t other(int gate, int j) const { return widen(given(b_hh, gate * hidden + j)); }
  acc_t sum(int gate, int j) const { return own(gate, j) + other(gate, j); }
#else
  acc_t sums[gates], last;

  __device__ Biases(const scalar_t* b_ih, const scalar_t* b_hh, int hidden) {
    const int j = int(threadIdx.x) % hidden;
#pragma unroll
    for (int gate = 0; gate < gates; gate++) {
      sums[gate] = widen(given(b_ih, gate * hidden + j));
      last = widen(given(b_hh, gate * hidden + j));
      if (!apart || gate < gates - 1) sums[gate] += last;
    }
  }
  __device__ acc_t own(int gate, int) const { return sums[gate]; }
  __device__ acc_t other(int, int) const { return last; }
  __device__ acc_t sum(int gate, int) const { return sums[gate]; }
#endif
};

// The inputs' products for the gates of a cell.
template <int gates>
struct Given {
  scalar_t x[gates];
};
template <int gates>
DEVICE Given<gates> given(const scalar_t* from, int hidden) {
  Given<gates> result;
#pragma unroll
  for (int gate = 0; gate < gates; gate++) result.x[gate] = from[gate * hidden];
  return result;
}
