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
#include "sequences.cuh"

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
