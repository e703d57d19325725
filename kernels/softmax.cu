// softmax, log_softmax and logsumexp over the last dimension of (rows, columns), forward and
// backward, and the masked softmax of attention. Other dimensions: softmax_strided.cu.
#define BLOCKS ROOM
#include "rows.cuh"
#include "softmax.cuh"

constexpr int ROOM = sizeof(scalar_t) < 4 ? 3 : 2;  // halves take fewer registers

// y = exp(x - max) / sum
KERNEL(softmax_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns) {
  for_each_row<FewLanes>(rows, [&](auto team, i64 row) {
    const scalar_t* in = x + row * columns;
    scalar_t* out = y + row * columns;
    acc_t share = 0;
    softmax_row<false, false, KEPT_VALUES>(
        team, columns, in, out, [](acc_t v, i64) { return v; },
        [&](Largest l) { share = acc_t(1) / l.total; }, [&](acc_t e) { return e * share; });
  });
}

// dx = scale y (g - sum(g y)), scale being what the softmax's input was multiplied with
KERNEL(softmax_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 i64 rows, i64 columns, double scale) {
  const acc_t factor = acc_t(scale);
  for_each_row<FewLanes>(rows, [&](auto team, i64 row) {
    const scalar_t *g = grad + row * columns, *p = y + row * columns;
    scalar_t* out = dx + row * columns;
    softmax_gradient(
        team, columns, g, p, out, [](acc_t slope, acc_t share) { return slope * share; },
        [=](acc_t slope, acc_t share, acc_t total) { return factor * share * (slope - total); });
  });
}

// y = x - max - log(sum(exp(x - max)))
KERNEL(log_softmax_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns) {
  for_each_row<FewLanes>(rows, [&](auto team, i64 row) {
    const scalar_t* in = x + row * columns;
    scalar_t* out = y + row * columns;
    acc_t top = 0, shift = 0;
    const acc_t one = settled(1);  // keeps a compiler that may regroup sums from top + shift
    softmax_row<false, true, KEPT_VALUES>(
        team, columns, in, out, [](acc_t v, i64) { return v; },
        [&](Largest l) {
          top = l.top;
          shift = math::log(l.total);
        },
        [&](acc_t v) { return (v - top) * one - shift; });
  });
}

// dx = g - exp(y) sum(g)
KERNEL(log_softmax_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 i64 rows, i64 columns) {
  for_each_row<FewLanes>(rows, [&](auto team, i64 row) {
    const scalar_t *g = grad + row * columns, *logs = y + row * columns;
    scalar_t* out = dx + row * columns;
    softmax_gradient(
        team, columns, g, logs, out, [](acc_t slope, acc_t) { return slope; },
        [](acc_t slope, acc_t log, acc_t total) { return slope - math::exp(log) * total; });
  });
}

// y[r] = log(sum(exp(x[r])))
KERNEL(logsumexp_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 rows, i64 columns) {
  for_each_row<FewLanes>(rows, [&](auto team, i64 row) {
    const scalar_t* in = x + row * columns;
    softmax_row<true, true, KEPT_VALUES>(
        team, columns, in, nullptr, [](acc_t v, i64) { return v; },
        [&](Largest l) {
          if (team.rank() == 0) y[row] = narrow(l.top + math::log(l.total));
        },
        [](acc_t e) { return e; });
  });
}

// dx = g[r] exp(x - y[r])
KERNEL(logsumexp_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x, const scalar_t* __restrict__ y,
 scalar_t* __restrict__ dx, i64 rows, i64 columns) {
  for_each_row(rows, [&](auto team, i64 r) {
    const acc_t g = widen(grad[r]), out = widen(y[r]);
    const auto row = row_of(team, columns);
    row.map(dx + r * columns, [=](acc_t v) { return g * math::exp(v - out); }, x + r * columns);
  });
}

// The weights of attention: softmax(scale x + mask) over the keys, and 0 where no key is left.
//
// Row r is query r % queries of problem r / queries, and problems are (outer, inner). What is added
// to its scores, or tells which keys it may see, starts at `mask` or `allowed` (either may be null)
// plus outer * outer_stride + inner * inner_stride + query * query_stride elements. A causal query
// sees the keys up to its own place.
KERNEL_BLOCKS(attention_weights_forward, 2)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ mask,
 const bool* __restrict__ allowed, scalar_t* __restrict__ y, i64 rows, i64 columns, i64 queries,
 i64 inner, i64 outer_stride, i64 inner_stride, i64 query_stride, i64 causal, double scale) {
  const acc_t factor = acc_t(scale);
  for_each_row<FewLanes>(rows, [&](auto team, i64 row) {
    const i64 query = row % queries, problem = row / queries;
    const i64 start =
        problem / inner * outer_stride + problem % inner * inner_stride + query * query_stride;
    const i64 seen = causal ? math::smaller(query + 1, columns) : columns;
    const scalar_t* in = x + row * columns;
    scalar_t* out = y + row * columns;
    acc_t share = 0;
    const auto finish = [&](Largest l) { share = l.total == 0 ? acc_t(0) : acc_t(1) / l.total; };
    const auto write = [&](acc_t e) { return e * share; };
    i64 done = seen;
#if defined(GRADLITE_NATIVE)
    // Without branches, and with few odd ends, this becomes vectors.
    if (!mask && !allowed && columns < i64(1) << 31) {
      done = math::smaller((seen + 15) / 16 * 16, columns);
      softmax_row<true, false, KEPT_VALUES / 2>(
          team, done, in, out,
          [=](acc_t v, i64 c) {
            const acc_t score = v * factor;
            return int(c) < int(seen) ? score : -infinity();
          },
          finish, write);
    } else
#endif
    {
      softmax_row<true, false, KEPT_VALUES / 2>(
          team, seen, in, out,
          [=](acc_t v, i64 c) {
            if (c < 0 || c >= seen) return -infinity();
            acc_t score = v * factor;
            if (mask) score += widen(mask[start + c]);
            return allowed && !allowed[start + c] ? -infinity() : score;
          },
          finish, write);
    }
    for (i64 c = done + team.rank(); c < columns; c += team.size()) out[c] = narrow(0);
  });
}
