// Losses of elements, x against y, and the sums of losses.
//
// A mean or a sum is two launches, loss_parts and loss_total, where one team would be too few;
// the gradients of both operands are one.
#define BLOCKS 3
#include "checks.cuh"
#include "team.cuh"

// --------------------------------------------------------------------------------- formulas
// value(x, y), and the derivatives by x and by y. A third operand is the weight of the positive.
struct SquaredError {
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const { return (x - y) * (x - y); }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t) const { return 2 * (x - y); }
  __device__ acc_t by_y(acc_t x, acc_t y, acc_t) const { return 2 * (y - x); }
};

DEVICE acc_t sign_of(acc_t x) { return x > 0 ? acc_t(1) : x < 0 ? acc_t(-1) : x; }
DEVICE acc_t step_of(acc_t x) { return acc_t(x > 0) - acc_t(x < 0); }  // 0 of a NaN

struct AbsoluteError {
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const { return math::abs(x - y); }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t) const { return step_of(x - y); }
  __device__ acc_t by_y(acc_t x, acc_t y, acc_t) const { return step_of(y - x); }
};

// Squares up to the bend, lines beyond: steepness (x - y)^2 / (2 bend), with the slope of the
// lines the steepness. Huber's loss has the bend for it, its smooth absolute error 1.
struct Bent {
  acc_t bend, steepness;
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const {
    const acc_t error = math::abs(x - y);
    return steepness * (error < bend ? error * error * (acc_t(0.5) / bend)
                                     : error - acc_t(0.5) * bend);
  }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t) const {
    const acc_t error = x - y;
    return steepness * (math::abs(error) < bend ? error / bend : sign_of(error));
  }
  __device__ acc_t by_y(acc_t x, acc_t y, acc_t third) const { return -by_x(x, y, third); }
};

// Of a probability x, with logarithms cut off at -100. What is none is noted.
struct BinaryCrossEntropy {
  i64* errors;
  static __device__ acc_t cut(acc_t x) { return x < -100 ? acc_t(-100) : x; }
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const {
    if (errors && !(x >= 0 && x <= 1)) refuse(errors);
    return (y - 1) * cut(math::log1p(-x)) - y * cut(math::log(x));
  }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t) const {
    const acc_t product = (1 - x) * x;
    return (x - y) / (product < acc_t(1e-12) ? acc_t(1e-12) : product);
  }
  __device__ acc_t by_y(acc_t x, acc_t, acc_t) const { return math::log(1 - x) - math::log(x); }
};

// Of a logit x: (1 - y) x - scale log(sigmoid(x)) with scale = 1 + (positive - 1) y.
struct LogisticCrossEntropy {
  static __device__ acc_t log_sigmoid(acc_t x) {
    return (x < 0 ? x : acc_t(0)) - math::log1p(math::exp(-math::abs(x)));
  }
  __device__ acc_t value(acc_t x, acc_t y, acc_t positive) const {
    return (1 - y) * x - (1 + (positive - 1) * y) * log_sigmoid(x);
  }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t positive) const {
    return 1 - y - (1 + (positive - 1) * y) * math::sigmoid(-x);
  }
  __device__ acc_t by_y(acc_t x, acc_t, acc_t positive) const {
    return -x - (positive - 1) * log_sigmoid(x);
  }
};

// Of log-probabilities x and probabilities y.
struct Divergence {
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const {
    return (y == 0 ? y : y * math::log(y)) - y * x;
  }
  __device__ acc_t by_x(acc_t, acc_t y, acc_t) const { return -y; }
  __device__ acc_t by_y(acc_t x, acc_t y, acc_t) const { return math::log(y) + 1 - x; }
};

// Of log-probabilities x and y.
struct LogDivergence {
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const { return math::exp(y) * (y - x); }
  __device__ acc_t by_x(acc_t, acc_t y, acc_t) const { return -math::exp(y); }
  __device__ acc_t by_y(acc_t x, acc_t y, acc_t) const { return math::exp(y) * (y - x + 1); }
};

// log(1 + exp(-y x)) with y = 1 or -1.
struct SoftMargin {
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const { return math::log1p(math::exp(-y * x)); }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t) const { return -y * math::sigmoid(-y * x); }
  __device__ acc_t by_y(acc_t x, acc_t y, acc_t) const { return -x * math::sigmoid(-y * x); }
};

// -(y log(sigmoid(x)) + (1 - y) log(sigmoid(-x))): as `LogisticCrossEntropy`, but infinite where x
// is and y is not as infinite.
struct SoftLabel {
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const {
    const acc_t rest = math::log1p(math::exp(-math::abs(x)));
    return (1 - y) * ((x > 0 ? x : acc_t(0)) + rest) - y * ((x < 0 ? x : acc_t(0)) - rest);
  }
  __device__ acc_t by_x(acc_t x, acc_t y, acc_t) const {
    const acc_t small = math::exp(-math::abs(x)), share = math::reciprocal(1 + small);
    const acc_t yes = x < 0 ? small * share : share, no = x < 0 ? share : small * share;
    return (1 - y) * yes - y * no;
  }
  __device__ acc_t by_y(acc_t x, acc_t, acc_t) const { return -x; }
};

// body(formula), by the number that gradlite/ops/pointwise_loss.py knows it by.
template <class Body>
DEVICE void with_formula(i64 kind, double parameter, i64* errors, Body body) {
  switch (kind) {
    case 0: return body(SquaredError());
    case 1: return body(AbsoluteError());
    case 2: return body(Bent{acc_t(parameter), acc_t(1)});
    case 3: return body(Bent{acc_t(parameter), acc_t(parameter)});
    case 4: return body(BinaryCrossEntropy{errors});
    case 5: return body(LogisticCrossEntropy());
    case 6: return body(Divergence());
    case 7: return body(LogDivergence());
    case 8: return body(SoftMargin());
    default: return body(SoftLabel());
  }
}

// A weight for each place in the last dimensions, or none. Indices are below 2^32 here, because
// 64-bit division is slow.
struct Weights {
  const scalar_t* data;
  i64 period;
  __device__ acc_t at(i64 i) const {
    return data ? widen(data[u32(i) % u32(period)]) : acc_t(1);
  }
};

#if defined(GRADLITE_NATIVE)
struct Ones {
  static acc_t at(i64) { return 1; }
};
#endif

// body(formula, weights, positives). On the CPU losses without weights are loops of their own,
// because those with a remainder in them are not vectorised.
template <class Body>
DEVICE void with_weights(i64 kind, double parameter, i64* errors, Weights weights,
                         Weights positives, Body body) {
  with_formula(kind, parameter, errors, [&](auto formula) {
#if defined(GRADLITE_NATIVE)
    if (!weights.data && !positives.data) return body(formula, Ones(), Ones());
#endif
    body(formula, weights, positives);
  });
}

// body(slope), slope(i) being the gradient of element i's loss: one for every `each` elements, or
// for all where that is 0.
template <class Body>
DEVICE void with_slopes(const scalar_t* grad, i64 each, acc_t scale, Body body) {
  const acc_t common = each ? scale : widen(grad[0]) * scale;
#if defined(GRADLITE_NATIVE)  // a loop of its own
  if (!each) return body([=](i64) { return common; });
  if (each == 1) return body([=](i64 i) { return widen(grad[i]) * common; });
#endif
  body([=](i64 i) {
    return !each ? common : widen(grad[each == 1 ? i : i64(u32(i) / u32(each))]) * common;
  });
}

// ------------------------------------------------------------------------------------ kernels
// Loops go element by element: packs would make nine times eight copies of every formula, which
// take the run-time compiler seconds.

// partials (pieces): the sums of the losses of each of the pieces.
KERNEL(loss_parts)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y,
 const scalar_t* __restrict__ weight, const scalar_t* __restrict__ positive,
 acc_t* __restrict__ partials, i64* errors, i64 n, i64 weight_period, i64 positive_period,
 i64 pieces, i64 kind, double parameter) {
  const i64 size = (n + pieces - 1) / pieces;
  with_weights(kind, parameter, errors, {weight, weight_period}, {positive, positive_period},
               [&](auto formula, auto weights, auto positives) {
    for_each_row(pieces, [&](auto team, i64 piece) {
      const i64 first = piece * size, last = math::smaller(first + size, n);
      acc_t total = 0;
#pragma unroll 4
      for (i64 i = first + team.rank(); i < last; i += team.size()) {
        total += formula.value(widen(x[i]), widen(y[i]), positives.at(i)) * weights.at(i);
      }
      total = team.sum(total);
      if (team.rank() == 0) partials[piece] = total;
    });
  });
}

// The sums of SoftLabel's losses of each row (rows, columns), times scale.
KERNEL(soft_label_rows)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y,
 const scalar_t* __restrict__ weight, scalar_t* __restrict__ out, i64 rows, i64 columns,
 i64 weight_period, double scale) {
  const auto run = [&](auto weights) {
    for_each_row(rows, [&](auto team, i64 row) {
      acc_t total = 0;
      for (i64 i = row * columns + team.rank(); i < (row + 1) * columns; i += team.size()) {
        total += SoftLabel().value(widen(x[i]), widen(y[i]), acc_t(1)) * weights.at(i);
      }
      total = team.sum(total);
      if (team.rank() == 0) out[row] = narrow(total * acc_t(scale));
    });
  };
#if defined(GRADLITE_NATIVE)
  if (!weight) return run(Ones());
#endif
  run(Weights{weight, weight_period});
}

// The losses themselves.
KERNEL(loss_values)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y,
 const scalar_t* __restrict__ weight, const scalar_t* __restrict__ positive,
 scalar_t* __restrict__ out, i64* errors, i64 n, i64 weight_period, i64 positive_period, i64 kind,
 double parameter) {
  with_weights(kind, parameter, errors, {weight, weight_period}, {positive, positive_period},
               [&](auto formula, auto weights, auto positives) {
    INDEPENDENT
#pragma unroll 2
    for (i64 i = thread_index(); i < n; i += thread_count()) {
      out[i] = narrow(formula.value(widen(x[i]), widen(y[i]), positives.at(i)) * weights.at(i));
    }
  });
}

// dx and dy, where not null, for a grad of every `each` elements, or of all where that is 0.
KERNEL(loss_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, const scalar_t* __restrict__ weight,
 const scalar_t* __restrict__ positive, scalar_t* __restrict__ dx, scalar_t* __restrict__ dy,
 i64 n, i64 weight_period, i64 positive_period, i64 each, i64 kind, double parameter,
 double scale) {
  with_weights(kind, parameter, nullptr, {weight, weight_period}, {positive, positive_period},
               [&](auto formula, auto weights, auto positives) {
    with_slopes(grad, each, acc_t(scale), [&](auto slope) {
      if (dx) {
        INDEPENDENT
#pragma unroll 2
        for (i64 i = thread_index(); i < n; i += thread_count()) {
          const acc_t by_x = formula.by_x(widen(x[i]), widen(y[i]), positives.at(i));
          dx[i] = narrow(slope(i) * weights.at(i) * by_x);
        }
      }
      if (dy) {
        INDEPENDENT
        for (i64 i = thread_index(); i < n; i += thread_count()) {
          const acc_t by_y = formula.by_y(widen(x[i]), widen(y[i]), positives.at(i));
          dy[i] = narrow(slope(i) * weights.at(i) * by_y);
        }
      }
    });
  });
}

// The sums of each of the pieces of `losses` (sums, n): partials (sums, pieces).
KERNEL(losses_parts)
(const acc_t* __restrict__ losses, acc_t* __restrict__ partials, i64 sums, i64 n, i64 pieces) {
  const i64 size = (n + pieces - 1) / pieces;
  for_each_row(sums * pieces, [&](auto team, i64 r) {
    const i64 sum = r / pieces, piece = r - sum * pieces;
    const i64 last = math::smaller((piece + 1) * size, n);
    acc_t total = 0;
    for (i64 i = piece * size + team.rank(); i < last; i += team.size()) {
      total += losses[sum * n + i];
    }
    total = team.sum(total);
    if (team.rank() == 0) partials[r] = total;
  });
}

// out = the sum of the first row of losses (1 or 2, n) times scale, divided by the sum of the
// second, which goes to `count`, where that is not null.
KERNEL(losses_total)
(const acc_t* __restrict__ losses, scalar_t* __restrict__ out, acc_t* __restrict__ count, i64 n,
 double scale) {
  for_each_row(1, [&](auto team, i64) {
    acc_t total = 0, counted = 0;
    for (i64 i = team.rank(); i < n; i += team.size()) total += losses[i];
    if (count) {
      for (i64 i = team.rank(); i < n; i += team.size()) counted += losses[n + i];
    }
    total = team.sum(total) * acc_t(scale);
    counted = team.sum(counted);
    if (team.rank() == 0) {
      out[0] = narrow(count ? total / counted : total);
      if (count) count[0] = counted;
    }
  });
}
