// prelu: x where positive, else w x, with a weight for each channel. Seen as (rows, columns), the
// channels are either the columns, or row r is of channel r % channels.
#include "activations.cuh"

#include "columns.cuh"
#include "rows.cuh"

KERNEL_BLOCKS(prelu_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 channels) {
  for_each_row(rows, [&](auto team, i64 r) {
    const LeakyRelu activation{widen(weight[r % channels])};
    const auto row = row_of(team, columns);
    row.map(y + r * columns, [=](acc_t v) { return activation.value(v); }, x + r * columns);
  });
}

KERNEL(prelu_columns_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  map_columns(
      rows, columns, parts, y, weight, [](acc_t w, acc_t v) { return LeakyRelu{w}.value(v); }, x);
}

// dx and, for each row, the gradient of its weight.
KERNEL_BLOCKS(prelu_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 channels) {
  for_each_row(rows, [&](auto team, i64 r) {
    const LeakyRelu activation{widen(weight[r % channels])};
    const auto row = row_of(team, columns);
    acc_t total = 0;
    row.map(
        dx + r * columns,
        [&](acc_t g, acc_t v) {
          total += v > 0 ? acc_t(0) : g * v;
          return activation.gradient(g, v);
        },
        grad + r * columns, x + r * columns);
    total = team.sum(total);
    if (team.rank() == 0) partials[r] = total;
  });
}

// dx and, in parts, its weights' gradients; see columns.cuh.
KERNEL(prelu_columns_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  weighted_column_parts<1>(
      rows, columns, parts, partials, dx, weight,
      [](acc_t w, acc_t* sum, acc_t g, acc_t v) {
        sum[0] += v > 0 ? acc_t(0) : g * v;
        return LeakyRelu{w}.gradient(g, v);
      },
      grad, x);
}
