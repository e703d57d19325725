// softmax and log_softmax over the middle dimension of (outer, n, inner), forward and backward. Where
// `partials` are given, another kernel has left there what each of `parts` parts of the n steps has.
#include "strips.cuh"

// The largest value of each part, and the sum of exp(x - largest): (2, parts, outer * inner).
KERNEL_BLOCKS(softmax_strided_parts, 4)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, i64 outer, i64 n, i64 inner,
 i64 parts) {
  for_each_strip(outer, n, inner, parts, [&](auto strip) {
    const auto seen = strip.seen([=](i64 at) { return widen(x[at]); });
    strip.leave(partials, 0, seen.top);
    strip.leave(partials, 1, seen.total);
  });
}

// y = exp(x - max) / sum
KERNEL_BLOCKS(softmax_strided_forward, 4)
(const scalar_t* __restrict__ x, const acc_t* __restrict__ partials, scalar_t* __restrict__ y,
 i64 outer, i64 n, i64 inner, i64 parts) {
  for_each_strip(outer, n, inner, parts, [&](auto strip) {
    const auto seen = strip_seen(strip, partials, [=](i64 at) { return widen(x[at]); });
    strip.map(
        y, [=](i64 at, acc_t top, acc_t total) { return math::exp(widen(x[at]) - top) / total; },
        seen.top, seen.total);
  });
}

// y = x - max - log(sum(exp(x - max)))
KERNEL_BLOCKS(log_softmax_strided_forward, 4)
(const scalar_t* __restrict__ x, const acc_t* __restrict__ partials, scalar_t* __restrict__ y,
 i64 outer, i64 n, i64 inner, i64 parts) {
  for_each_strip(outer, n, inner, parts, [&](auto strip) {
    const auto seen = strip_seen(strip, partials, [=](i64 at) { return widen(x[at]); });
    const auto shift = strip.values([](acc_t total) { return math::log(total); }, seen.total);
    const acc_t one = settled(1);  // keeps a compiler that may regroup sums from top + shift
    strip.map(
        y,
        [=](i64 at, acc_t top, acc_t shift) { return (widen(x[at]) - top) * one - shift; },
        seen.top, shift);
  });
}

// The sums of g y in each part, or of g where y is null: (1, parts, outer * inner).
KERNEL_BLOCKS(softmax_strided_sums, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, acc_t* __restrict__ partials,
 i64 outer, i64 n, i64 inner, i64 parts) {
  for_each_strip(outer, n, inner, parts, [&](auto strip) {
    strip.leave(partials, 0, y ? strip.sum([=](i64 at) { return widen(grad[at]) * widen(y[at]); })
                               : strip.sum([=](i64 at) { return widen(grad[at]); }));
  });
}

// dx = y (g - sum(g y))
KERNEL_BLOCKS(softmax_strided_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y,
 const acc_t* __restrict__ partials, scalar_t* __restrict__ dx, i64 outer, i64 n, i64 inner,
 i64 parts) {
  for_each_strip(outer, n, inner, parts, [&](auto strip) {
    const auto total =
        strip_sum(strip, partials, [=](i64 at) { return widen(grad[at]) * widen(y[at]); });
    strip.map(
        dx, [=](i64 at, acc_t total) { return widen(y[at]) * (widen(grad[at]) - total); }, total);
  });
}

// dx = g - exp(y) sum(g)
KERNEL_BLOCKS(log_softmax_strided_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y,
 const acc_t* __restrict__ partials, scalar_t* __restrict__ dx, i64 outer, i64 n, i64 inner,
 i64 parts) {
  for_each_strip(outer, n, inner, parts, [&](auto strip) {
    const auto total = strip_sum(strip, partials, [=](i64 at) { return widen(grad[at]); });
    strip.map(
        dx,
        [=](i64 at, acc_t total) { return widen(grad[at]) - math::exp(widen(y[at])) * total; },
        total);
  });
}
