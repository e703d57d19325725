// softmax and log_softmax over the last dimension of (rows, columns), forward and backward.
#include "team.cuh"

// y = exp(x - max) / sum
KERNEL(softmax_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 row) {
    const scalar_t* in = x + row * columns;
    scalar_t* out = y + row * columns;
    acc_t top = -infinity();
    for (i64 c = team.rank(); c < columns; c += team.size()) top = math::larger(widen(in[c]), top);
    top = team.max(top);
    acc_t total = 0;
    for (i64 c = team.rank(); c < columns; c += team.size()) total += math::exp(widen(in[c]) - top);
    const acc_t scale = acc_t(1) / team.sum(total);
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      out[c] = narrow(math::exp(widen(in[c]) - top) * scale);
    }
  });
}

// dx = y (g - sum(g y))
KERNEL(softmax_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 row) {
    const scalar_t *g = grad + row * columns, *out = y + row * columns;
    scalar_t* result = dx + row * columns;
    acc_t total = 0;
    for (i64 c = team.rank(); c < columns; c += team.size()) total += widen(g[c]) * widen(out[c]);
    total = team.sum(total);
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      result[c] = narrow(widen(out[c]) * (widen(g[c]) - total));
    }
  });
}

// y = x - max - log(sum(exp(x - max)))
KERNEL(log_softmax_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 row) {
    const scalar_t* in = x + row * columns;
    scalar_t* out = y + row * columns;
    acc_t top = -infinity();
    for (i64 c = team.rank(); c < columns; c += team.size()) top = math::larger(widen(in[c]), top);
    top = team.max(top);
    acc_t total = 0;
    for (i64 c = team.rank(); c < columns; c += team.size()) total += math::exp(widen(in[c]) - top);
    const acc_t shift = math::log(team.sum(total));
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      out[c] = narrow(widen(in[c]) - top - shift);
    }
  });
}

// dx = g - exp(y) sum(g)
KERNEL(log_softmax_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 row) {
    const scalar_t *g = grad + row * columns, *out = y + row * columns;
    scalar_t* result = dx + row * columns;
    acc_t total = 0;
    for (i64 c = team.rank(); c < columns; c += team.size()) total += widen(g[c]);
    total = team.sum(total);
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      result[c] = narrow(widen(g[c]) - math::exp(widen(out[c])) * total);
    }
  });
}
