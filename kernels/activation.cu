// The activation functions, elementwise, forward and backward: what they compute is in
// activations.cuh. `saved` is the input, or the result where that is what the rule reads. And glu,
// which works on rows. In a forward kernel without a third array, y may be x.
#include "activations.cuh"

#include "rows.cuh"

template <class Activation>
DEVICE void forward(Activation activation, const scalar_t* x, scalar_t* y, i64 n) {
  elementwise(n, y, [=](acc_t value) { return activation.value(value); }, x);
}

template <class Activation>
DEVICE void backward(Activation activation, const scalar_t* grad, const scalar_t* saved,
                     scalar_t* dx, i64 n) {
  elementwise(
      n, dx, [=](acc_t g, acc_t value) { return activation.gradient(g, value); }, grad, saved);
}

KERNEL(relu_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Relu{}, x, y, n);
}

KERNEL(relu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Relu{}, grad, saved, dx, n);
}

KERNEL(leaky_relu_forward)
(const scalar_t* x, scalar_t* y, i64 n, double slope) {
  forward(LeakyRelu{acc_t(slope)}, x, y, n);
}

KERNEL(leaky_relu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double slope) {
  backward(LeakyRelu{acc_t(slope)}, grad, saved, dx, n);
}

KERNEL(elu_forward)
(const scalar_t* x, scalar_t* y, i64 n, double alpha, double scale,
 double input_scale) {
  forward(Elu{acc_t(alpha), acc_t(scale), acc_t(input_scale)}, x, y, n);
}

KERNEL_BLOCKS(elu_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double alpha, double scale, double input_scale) {
  backward(Elu{acc_t(alpha), acc_t(scale), acc_t(input_scale)}, grad, saved, dx, n);
}

// And the slope, where there is a place for it, which makes the gradient a product.
KERNEL(gelu_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, scalar_t* __restrict__ slope, i64 n) {
  if (slope == nullptr) return forward(Gelu{}, x, y, n);
  INDEPENDENT
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    acc_t value;
    slope[i] = narrow(Gelu::slope(widen(x[i]), value));
    y[i] = narrow(value);
  }
}

KERNEL(gelu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Gelu{}, grad, saved, dx, n);
}

KERNEL(gelu_tanh_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(GeluTanh{}, x, y, n);
}

KERNEL(gelu_tanh_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(GeluTanh{}, grad, saved, dx, n);
}

KERNEL_BLOCKS(silu_forward, 4)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Silu{}, x, y, n);
}

KERNEL(silu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Silu{}, grad, saved, dx, n);
}

KERNEL(mish_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Mish{}, x, y, n);
}

KERNEL(mish_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Mish{}, grad, saved, dx, n);
}

KERNEL(softplus_forward)
(const scalar_t* x, scalar_t* y, i64 n, double beta, double threshold) {
  forward(Softplus{acc_t(beta), acc_t(threshold)}, x, y, n);
}

KERNEL(softplus_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double beta, double threshold) {
  backward(Softplus{acc_t(beta), acc_t(threshold)}, grad, saved, dx, n);
}

KERNEL(logsigmoid_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(LogSigmoid{}, x, y, n);
}

KERNEL(logsigmoid_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(LogSigmoid{}, grad, saved, dx, n);
}

KERNEL(sigmoid_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Sigmoid{}, x, y, n);
}

KERNEL(sigmoid_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Sigmoid{}, grad, saved, dx, n);
}

KERNEL(tanh_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Tanh{}, x, y, n);
}

KERNEL(tanh_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Tanh{}, grad, saved, dx, n);
}

KERNEL(tanhshrink_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Tanhshrink{}, x, y, n);
}

KERNEL(tanhshrink_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Tanhshrink{}, grad, saved, dx, n);
}

KERNEL(softsign_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Softsign{}, x, y, n);
}

KERNEL(softsign_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Softsign{}, grad, saved, dx, n);
}

KERNEL(hardtanh_forward)
(const scalar_t* x, scalar_t* y, i64 n, double low, double high) {
  forward(Hardtanh{acc_t(low), acc_t(high)}, x, y, n);
}

KERNEL(hardtanh_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double low, double high) {
  backward(Hardtanh{acc_t(low), acc_t(high)}, grad, saved, dx, n);
}

KERNEL(hardsigmoid_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Hardsigmoid{}, x, y, n);
}

KERNEL(hardsigmoid_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Hardsigmoid{}, grad, saved, dx, n);
}

KERNEL(hardswish_forward)
(const scalar_t* x, scalar_t* y, i64 n) {
  forward(Hardswish{}, x, y, n);
}

KERNEL(hardswish_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n) {
  backward(Hardswish{}, grad, saved, dx, n);
}

KERNEL(hardshrink_forward)
(const scalar_t* x, scalar_t* y, i64 n, double lambd) {
  forward(Hardshrink{acc_t(lambd)}, x, y, n);
}

KERNEL(hardshrink_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double lambd) {
  backward(Hardshrink{acc_t(lambd)}, grad, saved, dx, n);
}

KERNEL(softshrink_forward)
(const scalar_t* x, scalar_t* y, i64 n, double lambd) {
  forward(Softshrink{acc_t(lambd)}, x, y, n);
}

KERNEL(softshrink_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double lambd) {
  backward(Softshrink{acc_t(lambd)}, grad, saved, dx, n);
}

KERNEL(threshold_forward)
(const scalar_t* x, scalar_t* y, i64 n, double threshold,
 double otherwise) {
  forward(Threshold{acc_t(threshold), acc_t(otherwise)}, x, y, n);
}

KERNEL(threshold_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ saved, scalar_t* __restrict__ dx,
 i64 n, double threshold, double otherwise) {
  backward(Threshold{acc_t(threshold), acc_t(otherwise)}, grad, saved, dx, n);
}

// y = a sigmoid(b), a and b the halves of each row of x (rows, 2, columns)
KERNEL_BLOCKS(glu_forward, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t *a = x + 2 * r * columns, *b = a + columns;
    const auto row = row_of(team, columns);
    row.map(
        y + r * columns, [](acc_t value, acc_t gate) { return value * math::sigmoid(gate); }, a, b);
  });
}

KERNEL_BLOCKS(glu_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, scalar_t* __restrict__ dx,
 i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t *g = grad + r * columns, *a = x + 2 * r * columns, *b = a + columns;
    scalar_t *da = dx + 2 * r * columns, *db = da + columns;
    const auto row = row_of(team, columns);
    row.map(da, [](acc_t grad, acc_t gate) { return grad * math::sigmoid(gate); }, g, b);
    row.map(
        db,
        [](acc_t grad, acc_t value, acc_t gate) {
          const acc_t s = math::sigmoid(gate);
          return grad * value * (s * (1 - s));
        },
        g, a, b);
  });
}
