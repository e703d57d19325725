// Recurrent layers over a whole sequence in one launch, forward and backward.
//
// Nothing passes from one row of a batch to another, so a block takes `rows` of them, 1, 2 or 4,
// and goes through time with two barriers for each step. The hidden states, or the gradients of the
// gates, are in shared memory; the weights are read again at every step, from the caches. A product
// is shared by all threads: each has some columns, and one of `groups` parts of the depth, which
// whoever has a cell of the layer adds up. A thread has one cell at most, whose other inputs it
// reads before the product, so that nothing waits for them.
//
// Gates lie side by side, (steps, batch, gates * hidden), in PyTorch's order. Forward has the
// input's product there and leaves the gates in its place. States are (steps + 1, batch, hidden) in
// the order of time; a layer that runs backwards, `reverse`, begins with the last of them. What
// may be null: biases, and the gradients of outputs.
#define BLOCKS 1
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

// Gates i f g o; c' = f c + i g, h' = o tanh(c')
KERNEL_OF(lstm_sequence_forward, 512)
(scalar_t* __restrict__ gates, const scalar_t* __restrict__ w, const scalar_t* __restrict__ b_ih,
 const scalar_t* __restrict__ b_hh, const scalar_t* __restrict__ h0,
 const scalar_t* __restrict__ c0, scalar_t* __restrict__ hs, scalar_t* __restrict__ cs,
 scalar_t* __restrict__ last_h, scalar_t* __restrict__ last_c, i64 steps, i64 batch, i64 hidden,
 i64 rows, i64 groups, i64 reverse) {
  ROOM;
  const Sizes sizes{int(steps), int(batch), int(hidden), ROWS, GROUPS, reverse != 0};
  const int H = sizes.hidden, width = 4 * H;
  Room room = room_of(memory, sizes, H, width);
  const Biases<4> bias(b_ih, b_hh, H);
  const auto state = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * H + p.j; };
  const auto gate = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * width + p.j; };
  walk<true>(
      room, w, sizes,
      [&](const Place& p) {
        const i64 from = state(0, p), to = state(sizes.before(sizes.time(0)), p);
        hs[to] = h0[from];
        cs[to] = c0[from];
        room.source(p) = widen(h0[from]);
        room.state(p) = widen(c0[from]);
      },
      [&](int t, const Place& p) { return given<4>(gates + gate(t, p), H); },
      [&](int t, const Place& p, const Given<4>& in, bool) {
        const Total<4> product(room, p);
        const auto sum = [&](int gate) {
          return widen(in.x[gate]) + bias.sum(gate, p.j) + product.of[gate];
        };
        const acc_t i = math::sigmoid(sum(0)), f = math::sigmoid(sum(1));
        const acc_t g = math::tanh(sum(2)), o = math::sigmoid(sum(3));
        scalar_t* to = gates + gate(t, p);
        to[0] = narrow(i);
        to[H] = narrow(f);
        to[2 * H] = narrow(g);
        to[3 * H] = narrow(o);
        const acc_t c = f * room.state(p) + i * g;
        const scalar_t h = narrow(o * math::tanh(c));
        room.state(p) = c;
        room.source(p) = widen(h);
        hs[state(sizes.after(t), p)] = h;
        cs[state(sizes.after(t), p)] = narrow(c);
      },
      [&](const Place& p) {
        last_h[state(0, p)] = narrow(room.source(p));
        last_c[state(0, p)] = narrow(room.state(p));
      });
}

struct LstmInputs {
  scalar_t i, f, g, o, c, new_c, grad;
};

KERNEL_OF(lstm_sequence_backward, 512)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ grad_h,
 const scalar_t* __restrict__ grad_c, const scalar_t* __restrict__ gates,
 const scalar_t* __restrict__ cs, const scalar_t* __restrict__ w, scalar_t* __restrict__ dgates,
 scalar_t* __restrict__ dh0, scalar_t* __restrict__ dc0, i64 steps, i64 batch, i64 hidden,
 i64 rows, i64 groups, i64 reverse) {
  ROOM;
  const Sizes sizes{int(steps), int(batch), int(hidden), ROWS, GROUPS, reverse != 0};
  const int H = sizes.hidden, depth = 4 * H;
  Room room = room_of(memory, sizes, depth, H);
  const auto state = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * H + p.j; };
  const auto gate = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * depth + p.j; };
  walk<false>(
      room, w, sizes,
      [&](const Place& p) { room.state(p) = widen(given(grad_c, state(0, p))); },
      [&](int t, const Place& p) {
        const scalar_t* from = gates + gate(t, p);
        return LstmInputs{from[0],
                          from[H],
                          from[2 * H],
                          from[3 * H],
                          cs[state(sizes.before(t), p)],
                          cs[state(sizes.after(t), p)],
                          given(grad, state(t, p))};
      },
      [&](int t, const Place& p, const LstmInputs& in, bool first) {
        const acc_t later =
            first ? widen(given(grad_h, state(0, p))) : Total<1>(room, p).of[0];
        const acc_t i = widen(in.i), f = widen(in.f), g = widen(in.g), o = widen(in.o);
        const acc_t top = math::tanh(widen(in.new_c)), dh = widen(in.grad) + later;
        const acc_t d = room.state(p) + dh * o * (acc_t(1) - top * top);
        scalar_t* to = dgates + gate(t, p);
        const auto give = [&](int which, acc_t value) {
          room.source(p, which * H) = value;
          to[which * H] = narrow(value);
        };
        give(3, dh * top * o * (acc_t(1) - o));
        room.state(p) = d * f;
        give(1, d * widen(in.c) * f * (acc_t(1) - f));
        give(0, d * g * i * (acc_t(1) - i));
        give(2, d * i * (acc_t(1) - g * g));
      },
      [&](const Place& p) {
        dh0[state(0, p)] = narrow(Total<1>(room, p).of[0]);
        dc0[state(0, p)] = narrow(room.state(p));
      });
}

// Gates r z n; n = tanh(x_n + r (h_n + b)), h' = n + z (h - n). `inner` is h_n + b.
KERNEL_OF(gru_sequence_forward, 512)
(scalar_t* __restrict__ gates, const scalar_t* __restrict__ w, const scalar_t* __restrict__ b_ih,
 const scalar_t* __restrict__ b_hh, const scalar_t* __restrict__ h0, scalar_t* __restrict__ hs,
 scalar_t* __restrict__ inner, scalar_t* __restrict__ last_h, i64 steps, i64 batch, i64 hidden,
 i64 rows, i64 groups, i64 reverse) {
  ROOM;
  const Sizes sizes{int(steps), int(batch), int(hidden), ROWS, GROUPS, reverse != 0};
  const int H = sizes.hidden, width = 3 * H;
  Room room = room_of(memory, sizes, H, width);
  const Biases<3, true> bias(b_ih, b_hh, H);
  const auto state = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * H + p.j; };
  const auto gate = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * width + p.j; };
  walk<true>(
      room, w, sizes,
      [&](const Place& p) {
        const scalar_t h = h0[state(0, p)];
        hs[state(sizes.before(sizes.time(0)), p)] = h;
        room.source(p) = widen(h);
      },
      [&](int t, const Place& p) { return given<3>(gates + gate(t, p), H); },
      [&](int t, const Place& p, const Given<3>& in, bool) {
        const Total<3> product(room, p);
        const acc_t r = math::sigmoid(widen(in.x[0]) + bias.sum(0, p.j) + product.of[0]);
        const acc_t z = math::sigmoid(widen(in.x[1]) + bias.sum(1, p.j) + product.of[1]);
        const acc_t within = product.of[2] + bias.other(2, p.j);
        const acc_t n = math::tanh(widen(in.x[2]) + bias.own(2, p.j) + r * within);
        scalar_t* to = gates + gate(t, p);
        to[0] = narrow(r);
        to[H] = narrow(z);
        to[2 * H] = narrow(n);
        inner[state(t, p)] = narrow(within);
        const scalar_t h = narrow(n + z * (room.source(p) - n));
        room.source(p) = widen(h);
        hs[state(sizes.after(t), p)] = h;
      },
      [&](const Place& p) { last_h[state(0, p)] = narrow(room.source(p)); });
}

struct GruInputs {
  scalar_t r, z, n, inner, h, grad;
};

// `dx` are the gradients of x r z n, `dh` those of h_r, h_z and h_n + b. A cell's state is the part
// of the gradient of h' that passed the next step's z.
KERNEL_OF(gru_sequence_backward, 512)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ grad_h,
 const scalar_t* __restrict__ gates, const scalar_t* __restrict__ hs,
 const scalar_t* __restrict__ inner, const scalar_t* __restrict__ w, scalar_t* __restrict__ dx,
 scalar_t* __restrict__ dh, scalar_t* __restrict__ dh0, i64 steps, i64 batch, i64 hidden, i64 rows,
 i64 groups, i64 reverse) {
  ROOM;
  const Sizes sizes{int(steps), int(batch), int(hidden), ROWS, GROUPS, reverse != 0};
  const int H = sizes.hidden, depth = 3 * H;
  Room room = room_of(memory, sizes, depth, H);
  const auto state = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * H + p.j; };
  const auto gate = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * depth + p.j; };
  walk<false>(
      room, w, sizes,
      [&](const Place& p) { room.state(p) = widen(given(grad_h, state(0, p))); },
      [&](int t, const Place& p) {
        const scalar_t* from = gates + gate(t, p);
        return GruInputs{from[0],
                         from[H],
                         from[2 * H],
                         inner[state(t, p)],
                         hs[state(sizes.before(t), p)],
                         given(grad, state(t, p))};
      },
      [&](int t, const Place& p, const GruInputs& in, bool first) {
        const acc_t later = first ? acc_t(0) : Total<1>(room, p).of[0];
        const acc_t r = widen(in.r), z = widen(in.z), n = widen(in.n);
        const acc_t d = widen(in.grad) + later + room.state(p);
        const acc_t dn = d * (acc_t(1) - z) * (acc_t(1) - n * n);
        scalar_t *of_x = dx + gate(t, p), *of_h = dh + gate(t, p);
        const auto give = [&](int which, acc_t x, acc_t h) {
          room.source(p, which * H) = h;
          of_x[which * H] = narrow(x);
          of_h[which * H] = narrow(h);
        };
        room.state(p) = d * z;
        give(2, dn, dn * r);
        const acc_t dr = dn * widen(in.inner) * r * (acc_t(1) - r);
        give(0, dr, dr);
        const acc_t dz = d * (widen(in.h) - n) * z * (acc_t(1) - z);
        give(1, dz, dz);
      },
      [&](const Place& p) {
        dh0[state(0, p)] = narrow(Total<1>(room, p).of[0] + room.state(p));
      });
}

// h' = relu or tanh of the sum
KERNEL_OF(rnn_sequence_forward, 512)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ w, const scalar_t* __restrict__ b_ih,
 const scalar_t* __restrict__ b_hh, const scalar_t* __restrict__ h0, scalar_t* __restrict__ hs,
 scalar_t* __restrict__ last_h, i64 relu, i64 steps, i64 batch, i64 hidden, i64 rows, i64 groups,
 i64 reverse) {
  ROOM;
  const Sizes sizes{int(steps), int(batch), int(hidden), ROWS, GROUPS, reverse != 0};
  const int H = sizes.hidden;
  Room room = room_of(memory, sizes, H, H);
  const Biases<1> bias(b_ih, b_hh, H);
  const auto state = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * H + p.j; };
  walk<true>(
      room, w, sizes,
      [&](const Place& p) {
        const scalar_t h = h0[state(0, p)];
        hs[state(sizes.before(sizes.time(0)), p)] = h;
        room.source(p) = widen(h);
      },
      [&](int t, const Place& p) { return given<1>(x + state(t, p), H); },
      [&](int t, const Place& p, const Given<1>& in, bool) {
        const acc_t sum = widen(in.x[0]) + bias.sum(0, p.j) + Total<1>(room, p).of[0];
        const scalar_t h = narrow(relu ? math::larger(acc_t(0), sum) : math::tanh(sum));
        room.source(p) = widen(h);
        hs[state(sizes.after(t), p)] = h;
      },
      [&](const Place& p) { last_h[state(0, p)] = narrow(room.source(p)); });
}

struct RnnInputs {
  scalar_t h, grad;
};

KERNEL_OF(rnn_sequence_backward, 512)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ grad_h,
 const scalar_t* __restrict__ hs, const scalar_t* __restrict__ w, scalar_t* __restrict__ dsum,
 scalar_t* __restrict__ dh0, i64 relu, i64 steps, i64 batch, i64 hidden, i64 rows, i64 groups,
 i64 reverse) {
  ROOM;
  const Sizes sizes{int(steps), int(batch), int(hidden), ROWS, GROUPS, reverse != 0};
  const int H = sizes.hidden;
  Room room = room_of(memory, sizes, H, H);
  const auto state = [&](int t, const Place& p) { return (i64(t) * batch + p.row) * H + p.j; };
  walk<false>(
      room, w, sizes, [](const Place&) {},
      [&](int t, const Place& p) {
        return RnnInputs{hs[state(sizes.after(t), p)], given(grad, state(t, p))};
      },
      [&](int t, const Place& p, const RnnInputs& in, bool first) {
        const acc_t later =
            first ? widen(given(grad_h, state(0, p))) : Total<1>(room, p).of[0];
        const acc_t h = widen(in.h);
        const acc_t slope = relu ? acc_t(h > acc_t(0)) : acc_t(1) - h * h;
        const acc_t d = slope * (widen(in.grad) + later);
        room.source(p) = d;
        dsum[state(t, p)] = narrow(d);
      },
      [&](const Place& p) { dh0[state(0, p)] = narrow(Total<1>(room, p).of[0]); });
}
