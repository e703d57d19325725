// softmax and log_softmax over the middle dimension of (outer, n, inner), forward and backward.
#include "strips.cuh"

// y = exp(x - max) / sum
KERNEL_BLOCKS(softmax_strided_forward, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 outer, i64 n, i64 inner) {
  for_each_strip(outer, n, inner, [&](auto strip) {
    const auto top = strip.max([=](i64 at) { return widen(x[at]); });
    const auto total =
        strip.sum([=](i64 at, acc_t top) { return math::exp(widen(x[at]) - top); }, top);
    strip.map(
        y, [=](i64 at, acc_t top, acc_t total) { return math::exp(widen(x[at]) - top) / total; },
        top, total);
  });
}

// dx = y (g - sum(g y))
KERNEL(softmax_strided_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner) {
  for_each_strip(outer, n, inner, [&](auto strip) {
    const auto total = strip.sum([=](i64 at) { return widen(grad[at]) * widen(y[at]); });
    strip.map(
        dx, [=](i64 at, acc_t total) { return widen(y[at]) * (widen(grad[at]) - total); }, total);
  });
}

// y = x - max - log(sum(exp(x - max)))
KERNEL_BLOCKS(log_softmax_strided_forward, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, i64 outer, i64 n, i64 inner) {
  for_each_strip(outer, n, inner, [&](auto strip) {
    const auto top = strip.max([=](i64 at) { return widen(x[at]); });
    const auto total =
        strip.sum([=](i64 at, acc_t top) { return math::exp(widen(x[at]) - top); }, top);
    const auto shift = strip.values([](acc_t total) { return math::log(total); }, total);
    const acc_t one = settled(1);  // keeps a compiler that may regroup sums from top + shift
    strip.map(
        y,
        [=](i64 at, acc_t top, acc_t shift) { return (widen(x[at]) - top) * one - shift; },
        top, shift);
  });
}

// dx = g - exp(y) sum(g)
KERNEL_BLOCKS(log_softmax_strided_backward, 4)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ y, scalar_t* __restrict__ dx,
 i64 outer, i64 n, i64 inner) {
  for_each_strip(outer, n, inner, [&](auto strip) {
    const auto total = strip.sum([=](i64 at) { return widen(grad[at]); });
    strip.map(
        dx,
        [=](i64 at, acc_t total) { return widen(grad[at]) - math::exp(widen(y[at])) * total; },
        total);
  });
}
