// One step of recurrent layers, all gates at once, forward and backward.
//
// Gates lie side by side, (batch, gates * hidden), in PyTorch's order. What enters a step is the
// input's product `x`, the hidden state's product `h` and the two biases, which may be null.
// Forward leaves the gates in the place of `x`, for backward. `grad` is what the loss adds to the
// gradient of the new hidden state, `later` what the next step gave it, which may be null.
#include "places.cuh"

DEVICE acc_t bias_at(const scalar_t* bias, i64 at) { return bias ? widen(bias[at]) : acc_t(0); }

// body(b, j, at) for element j of every state b, whose place is `at`.
template <class Body>
DEVICE void for_each_cell(i64 batch, i64 hidden, Body body) {
#if defined(GRADLITE_NATIVE)
  for (i64 b = 0; b < batch; b++) {
    INDEPENDENT
    for (i64 j = 0; j < hidden; j++) body(b, j, b * hidden + j);
  }
#else
  for_each_place(1, batch, hidden, [&](i64, i64 b, i64 j, i64 at) { body(b, j, at); });
#endif
}

// Gates i f g o; c' = f c + i g, h' = o tanh(c')
KERNEL_BLOCKS(lstm_forward, 4)
(scalar_t* __restrict__ x, const scalar_t* __restrict__ h, const scalar_t* __restrict__ b_ih,
 const scalar_t* __restrict__ b_hh, const scalar_t* __restrict__ c, scalar_t* __restrict__ new_c,
 scalar_t* __restrict__ new_h, i64 batch, i64 hidden) {
  const auto cells = [&](auto bias) {
    for_each_cell(batch, hidden, [&](i64 b, i64 j, i64 at) {
      const i64 place = b * 4 * hidden + j;
      const auto sum = [&](i64 gate) {
        const i64 at = place + gate * hidden;
        return widen(x[at]) + widen(h[at]) + bias(gate * hidden + j);
      };
      const acc_t i = math::sigmoid(sum(0)), f = math::sigmoid(sum(1));
      const acc_t g = math::tanh(sum(2)), o = math::sigmoid(sum(3));
      x[place] = narrow(i);
      x[place + hidden] = narrow(f);
      x[place + 2 * hidden] = narrow(g);
      x[place + 3 * hidden] = narrow(o);
      const acc_t cell = f * widen(c[at]) + i * g;
      new_c[at] = narrow(cell);
      new_h[at] = narrow(o * math::tanh(cell));
    });
  };
#if defined(GRADLITE_NATIVE)
  if (!b_ih && !b_hh) return cells([](i64) { return acc_t(0); });  // becomes vectors by itself
#endif
  cells([&](i64 column) { return bias_at(b_ih, column) + bias_at(b_hh, column); });
}

// `dc` is the gradient of c', and becomes that of c.
KERNEL(lstm_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ later,
 const scalar_t* __restrict__ gates, const scalar_t* __restrict__ c,
 const scalar_t* __restrict__ new_c, scalar_t* __restrict__ dc, scalar_t* __restrict__ dgates,
 i64 batch, i64 hidden) {
  for_each_cell(batch, hidden, [&](i64 b, i64 j, i64 at) {
    const i64 place = b * 4 * hidden + j;
    const acc_t i = widen(gates[place]), f = widen(gates[place + hidden]);
    const acc_t g = widen(gates[place + 2 * hidden]), o = widen(gates[place + 3 * hidden]);
    const acc_t top = math::tanh(widen(new_c[at]));
    const acc_t dh = widen(grad[at]) + bias_at(later, at);
    const acc_t d = widen(dc[at]) + dh * o * (acc_t(1) - top * top);
    dgates[place] = narrow(d * g * i * (acc_t(1) - i));
    dgates[place + hidden] = narrow(d * widen(c[at]) * f * (acc_t(1) - f));
    dgates[place + 2 * hidden] = narrow(d * i * (acc_t(1) - g * g));
    dgates[place + 3 * hidden] = narrow(dh * top * o * (acc_t(1) - o));
    dc[at] = narrow(d * f);
  });
}

// Gates r z n; n = tanh(x_n + r (h_n + b)), h' = n + z (h - n). `inner` is h_n + b.
KERNEL(gru_forward)
(scalar_t* __restrict__ x, const scalar_t* __restrict__ h, const scalar_t* __restrict__ b_ih,
 const scalar_t* __restrict__ b_hh, const scalar_t* __restrict__ old_h,
 scalar_t* __restrict__ inner, scalar_t* __restrict__ new_h, i64 batch, i64 hidden) {
  for_each_cell(batch, hidden, [&](i64 b, i64 j, i64 at) {
    const i64 place = b * 3 * hidden + j, z_place = place + hidden, n_place = z_place + hidden;
    const i64 z_column = j + hidden, n_column = z_column + hidden;
    const acc_t r = math::sigmoid(widen(x[place]) + widen(h[place]) + bias_at(b_ih, j) +
                                  bias_at(b_hh, j));
    const acc_t z = math::sigmoid(widen(x[z_place]) + widen(h[z_place]) + bias_at(b_ih, z_column) +
                                  bias_at(b_hh, z_column));
    const acc_t within = widen(h[n_place]) + bias_at(b_hh, n_column);
    const acc_t n = math::tanh(widen(x[n_place]) + bias_at(b_ih, n_column) + r * within);
    x[place] = narrow(r);
    x[z_place] = narrow(z);
    x[n_place] = narrow(n);
    inner[at] = narrow(within);
    new_h[at] = narrow(n + z * (widen(old_h[at]) - n));
  });
}

// `carry` is the part of the gradient of h' that passed the next step's z, and becomes that of h;
// `dx` are the gradients of x r z n, `dh` those of h_r, h_z and h_n + b.
KERNEL(gru_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ later,
 const scalar_t* __restrict__ gates, const scalar_t* __restrict__ inner,
 const scalar_t* __restrict__ old_h, scalar_t* __restrict__ carry, scalar_t* __restrict__ dx,
 scalar_t* __restrict__ dh, i64 batch, i64 hidden) {
  for_each_cell(batch, hidden, [&](i64 b, i64 j, i64 at) {
    const i64 place = b * 3 * hidden + j, z_place = place + hidden, n_place = z_place + hidden;
    const acc_t r = widen(gates[place]), z = widen(gates[z_place]), n = widen(gates[n_place]);
    const acc_t d = widen(grad[at]) + bias_at(later, at) + widen(carry[at]);
    const acc_t dn = d * (acc_t(1) - z) * (acc_t(1) - n * n);
    const acc_t dr = dn * widen(inner[at]) * r * (acc_t(1) - r);
    const acc_t dz = d * (widen(old_h[at]) - n) * z * (acc_t(1) - z);
    dx[place] = dh[place] = narrow(dr);
    dx[z_place] = dh[z_place] = narrow(dz);
    dx[n_place] = narrow(dn);
    dh[n_place] = narrow(dn * r);
    carry[at] = narrow(d * z);
  });
}

// h' = relu or tanh of the sum
KERNEL(rnn_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ h, const scalar_t* __restrict__ b_ih,
 const scalar_t* __restrict__ b_hh, scalar_t* __restrict__ new_h, i64 relu, i64 batch,
 i64 hidden) {
  for_each_cell(batch, hidden, [&](i64, i64 j, i64 at) {
    const acc_t sum = widen(x[at]) + widen(h[at]) + bias_at(b_ih, j) + bias_at(b_hh, j);
    new_h[at] = narrow(relu ? math::larger(acc_t(0), sum) : math::tanh(sum));
  });
}

KERNEL(rnn_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ later,
 const scalar_t* __restrict__ new_h, scalar_t* __restrict__ dsum, i64 relu, i64 batch,
 i64 hidden) {
  for_each_cell(batch, hidden, [&](i64, i64, i64 at) {
    const acc_t h = widen(new_h[at]);
    const acc_t slope = relu ? acc_t(h > acc_t(0)) : acc_t(1) - h * h;
    dsum[at] = narrow(slope * (widen(grad[at]) + bias_at(later, at)));
  });
}
