// x / (k + alpha m)^beta, m being the mean square of neighbouring channels of (samples, channels,
// length): those from `before` channels before to `after` behind, which count as 0 beyond the ends.
#include "places.cuh"

// `divisors` is k + alpha m of each element, which the gradient reads.
KERNEL(response_norm_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, acc_t* __restrict__ divisors,
 i64 samples, i64 channels, i64 length, i64 before, i64 after, double alpha, double beta,
 double k) {
  const acc_t share = acc_t(alpha) / acc_t(before + after + 1);
  for_each_place(samples, channels, length, [&](i64, i64 channel, i64, i64 i) {
    const i64 first = math::smaller(before, channel);
    const i64 last = math::smaller(after, channels - 1 - channel);
    acc_t squares = 0;
#pragma unroll 1
    for (i64 c = -first; c <= last; c++) {
      const acc_t value = widen(x[i + c * length]);
      squares += value * value;
    }
    const acc_t divisor = acc_t(k) + share * squares;
    divisors[i] = divisor;
    y[i] = narrow(widen(x[i]) / math::pow(divisor, acc_t(beta)));
  });
}

// dx = g / d^beta - 2 alpha beta / size x sum(g x / d^(beta + 1)), summed over the channels that
// have this one among their neighbours.
KERNEL(response_norm_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const acc_t* __restrict__ divisors, scalar_t* __restrict__ dx, i64 samples, i64 channels,
 i64 length, i64 before, i64 after, double alpha, double beta) {
  const acc_t share = 2 * acc_t(alpha) * acc_t(beta) / acc_t(before + after + 1);
  for_each_place(samples, channels, length, [&](i64, i64 channel, i64, i64 i) {
    const i64 first = math::smaller(after, channel);
    const i64 last = math::smaller(before, channels - 1 - channel);
    acc_t along = 0, own = 0;
#pragma unroll 1
    for (i64 c = -first; c <= last; c++) {
      const i64 at = i + c * length;
      const acc_t divided = widen(grad[at]) / math::pow(divisors[at], acc_t(beta));
      along += divided * widen(x[at]) / divisors[at];
      if (c == 0) own = divided;
    }
    dx[i] = narrow(own - share * widen(x[i]) * along);
  });
}
