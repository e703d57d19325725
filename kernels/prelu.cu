// prelu: x where positive, else w x, with a weight for each channel. The channels are the columns of
// (rows, columns), or plane p of (planes, length) is of channel p % channels.
#include "activations.cuh"

#include "channels.cuh"

KERNEL_BLOCKS(prelu_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight, scalar_t* __restrict__ y,
 i64 planes, i64 length, i64 channels, i64 pieces) {
  for_each_piece(planes, length, pieces,
                 [&](auto team, i64 plane, i64, i64 first, i64 columns) {
                   const LeakyRelu activation{widen(weight[plane % channels])};
                   const auto row = row_of(team, columns);
                   row.map(y + first, [=](acc_t v) { return activation.value(v); }, x + first);
                 });
}

KERNEL(prelu_columns_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight, scalar_t* __restrict__ y,
 i64 rows, i64 columns, i64 parts) {
  map_columns(
      rows, columns, parts, y, weight, [](acc_t w, acc_t v) { return LeakyRelu{w}.value(v); }, x);
}

// dx and, for each piece of a plane, the gradient of its weight.
KERNEL_BLOCKS(prelu_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, scalar_t* __restrict__ dx, acc_t* __restrict__ partials,
 i64 planes, i64 length, i64 channels, i64 pieces) {
  for_each_piece(
      planes, length, pieces, [&](auto team, i64 plane, i64 piece, i64 first, i64 columns) {
        const LeakyRelu activation{widen(weight[plane % channels])};
        const auto row = row_of(team, columns);
        acc_t total = 0;
        row.map(
            dx + first,
            [&](acc_t g, acc_t v) {
              total += v > 0 ? acc_t(0) : g * v;
              return activation.gradient(g, v);
            },
            grad + first, x + first);
        total = team.sum(total);
        if (team.rank() == 0) partials[plane * pieces + piece] = total;
      });
}

// The gradients of the weights: planes * pieces sums, those of a channel added up.
KERNEL_BLOCKS(prelu_total, 4)
(const acc_t* __restrict__ partials, scalar_t* __restrict__ dweight, i64 channels, i64 parts,
 i64 pieces) {
  for_each_row(channels, [&](auto team, i64 c) {
    acc_t total = 0;
    for (i64 i = team.rank(); i < parts * pieces; i += team.size()) {
      const i64 part = i / pieces;
      total += partials[(part * channels + c) * pieces + i - part * pieces];
    }
    total = team.sum(total);
    if (team.rank() == 0) dweight[c] = narrow(total);
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
