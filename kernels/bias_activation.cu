// act(x + bias) for (rows, columns) with a bias for each column, forward and backward.
//
// A backward kernel makes dx and, on its way, the parts of dx's sums over the rows, which are the
// bias's gradient (see columns.cuh). It reads x and the bias, or for relu, sigmoid and tanh the
// result alone.
#include "activations.cuh"
#include "columns.cuh"

template <class Activation>
DEVICE void forward(Activation activation, const scalar_t* x, const scalar_t* bias, scalar_t* y,
                    i64 rows, i64 columns, i64 parts) {
  map_columns(
      rows, columns, parts, y, bias,
      [=](acc_t b, acc_t value) { return activation.value(value + b); }, x);
}

template <class Activation>
DEVICE void backward(Activation activation, const scalar_t* grad, const scalar_t* x,
                     const scalar_t* bias, scalar_t* dx, acc_t* partials, i64 rows, i64 columns,
                     i64 parts) {
  weighted_column_parts<1>(
      rows, columns, parts, partials, dx, bias,
      [=](acc_t b, acc_t* sum, acc_t g, acc_t value) {
        const acc_t slope = activation.gradient(g, value + b);
        sum[0] += slope;
        return slope;
      },
      grad, x);
}

template <class Activation>
DEVICE void backward_of_result(Activation activation, const scalar_t* grad, const scalar_t* y,
                               scalar_t* dx, acc_t* partials, i64 rows, i64 columns, i64 parts) {
  column_parts<1>(
      rows, columns, parts, partials, dx,
      [=](i64, i64, acc_t* sum, acc_t g, acc_t value) {
        const acc_t slope = activation.gradient(g, value);
        sum[0] += slope;
        return slope;
      },
      grad, y);
}

KERNEL(bias_relu_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Relu{}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_relu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward_of_result(Relu{}, grad, y, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_leaky_relu_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 double slope, i64 rows, i64 columns, i64 parts) {
  forward(LeakyRelu{acc_t(slope)}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_leaky_relu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, double slope,
 acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward(LeakyRelu{acc_t(slope)}, grad, x, bias, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_elu_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 double alpha, double scale, double input_scale, i64 rows, i64 columns, i64 parts) {
  forward(Elu{acc_t(alpha), acc_t(scale), acc_t(input_scale)}, x, bias, y, rows, columns, parts);
}

KERNEL_BLOCKS(bias_elu_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, double alpha, double scale,
 double input_scale, acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward(Elu{acc_t(alpha), acc_t(scale), acc_t(input_scale)}, grad, x, bias, dx, partials, rows,
           columns, parts);
}

KERNEL(bias_gelu_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Gelu{}, x, bias, y, rows, columns, parts);
}

KERNEL_BLOCKS(bias_gelu_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  backward(Gelu{}, grad, x, bias, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_gelu_tanh_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(GeluTanh{}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_gelu_tanh_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  backward(GeluTanh{}, grad, x, bias, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_silu_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Silu{}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_silu_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  backward(Silu{}, grad, x, bias, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_mish_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Mish{}, x, bias, y, rows, columns, parts);
}

KERNEL_BLOCKS(bias_mish_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  backward(Mish{}, grad, x, bias, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_softplus_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 double beta, double threshold, i64 rows, i64 columns, i64 parts) {
  forward(Softplus{acc_t(beta), acc_t(threshold)}, x, bias, y, rows, columns, parts);
}

KERNEL_BLOCKS(bias_softplus_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, double beta, double threshold,
 acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward(Softplus{acc_t(beta), acc_t(threshold)}, grad, x, bias, dx, partials, rows, columns,
           parts);
}

KERNEL_BLOCKS(bias_sigmoid_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Sigmoid{}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_sigmoid_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward_of_result(Sigmoid{}, grad, y, dx, partials, rows, columns, parts);
}

KERNEL(bias_tanh_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Tanh{}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_tanh_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward_of_result(Tanh{}, grad, y, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_hardtanh_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 double low, double high, i64 rows, i64 columns, i64 parts) {
  forward(Hardtanh{acc_t(low), acc_t(high)}, x, bias, y, rows, columns, parts);
}

KERNEL(bias_hardtanh_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, double low, double high,
 acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  backward(Hardtanh{acc_t(low), acc_t(high)}, grad, x, bias, dx, partials, rows, columns, parts);
}

KERNEL_BLOCKS(bias_hardswish_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  forward(Hardswish{}, x, bias, y, rows, columns, parts);
}

KERNEL_BLOCKS(bias_hardswish_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  backward(Hardswish{}, grad, x, bias, dx, partials, rows, columns, parts);
}
