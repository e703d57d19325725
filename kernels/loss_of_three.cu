// Losses of elements x, y and z: likelihoods and margins.
//
// As in loss.cu a mean or a sum is two launches, loss_of_three_parts and losses_total, and the
// gradients of all operands are one.
#define BLOCKS 3
#include "team.cuh"

// --------------------------------------------------------------------------------- formulas
// value(x, y, z), and the derivatives by the three. Where `cuts`, a derivative of 0 makes the
// gradient 0 whatever comes in.
struct Slopes {
  acc_t x, y, z;
};

// The likelihood of the count y where the rate is x, or exp(x); `full` adds Stirling's log(y!).
template <bool logarithmic, bool full>
struct Poisson {
  static constexpr bool cuts = false;
  acc_t epsilon;
  static __device__ bool counts(acc_t y) { return full && !(y <= 1); }  // a NaN does
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const {
    acc_t rest = 0;
    if (full) {
      const acc_t log_y = math::log(y);
      // log(2 pi) / 2 is the constant.
      const acc_t stirling = y * log_y - y + acc_t(0.5) * log_y + acc_t(0.9189385332046727);
      rest = counts(y) ? stirling : acc_t(0);
    }
    if (logarithmic) return math::exp(x) - y * x + rest;
    return x - y * math::log(x + epsilon) + rest;
  }
  __device__ Slopes slopes(acc_t x, acc_t y, acc_t) const {
    Slopes by;
    by.x = logarithmic ? math::exp(x) - y : 1 - y / (x + epsilon);
    by.y = logarithmic ? -x : -math::log(x + epsilon);
    if (full) by.y += counts(y) ? math::log(y) + acc_t(0.5) / y : acc_t(0);
    by.z = 0;
    return by;
  }
};

// x where y = 1, what is missing to the margin where y = -1, and both where it is neither.
struct HingeEmbedding {
  static constexpr bool cuts = true;
  acc_t margin;
  __device__ acc_t value(acc_t x, acc_t y, acc_t) const {
    const acc_t missing = margin + math::product(x, acc_t(-1));  // a CPU compiler would cancel x
    return (y != 1 ? missing < 0 ? acc_t(0) : missing : acc_t(0)) + (y != -1 ? x : acc_t(0));
  }
  __device__ Slopes slopes(acc_t x, acc_t y, acc_t) const {
    return {acc_t(y != -1) - acc_t((y != 1) & (margin - x >= 0)), 0, 0};
  }
};

// max(0, margin - z (x - y))
struct Ranking {
  static constexpr bool cuts = true;
  acc_t margin;
  __device__ acc_t value(acc_t x, acc_t y, acc_t z) const {
    const acc_t missing = margin - z * (x - y);
    return missing < 0 ? acc_t(0) : missing;
  }
  __device__ Slopes slopes(acc_t x, acc_t y, acc_t z) const {
    const acc_t missing = acc_t(margin - z * (x - y) >= 0);
    return {missing * -z, missing * z, math::product(missing, y - x)};
  }
};

// The likelihood of y where the mean is x and the variance z, which is at least epsilon.
struct Gaussian {
  static constexpr bool cuts = false;
  acc_t epsilon, constant;
  __device__ acc_t value(acc_t x, acc_t y, acc_t z) const {
    const acc_t variance = z < epsilon ? epsilon : z, error = x - y;
    return acc_t(0.5) * (math::log(variance) + error * error / variance) + constant;
  }
  __device__ Slopes slopes(acc_t x, acc_t y, acc_t z) const {
    const acc_t variance = z < epsilon ? epsilon : z, error = x - y, by_x = error / variance;
    return {by_x, -by_x, acc_t(0.5) * (1 - error * error / variance) / variance};
  }
};

// z: an array, each element for `repeat` of x's, or a number. Indices are below 2^32 here, because
// 64-bit division is slow.
struct Third {
  const scalar_t* data;
  i64 repeat;
  acc_t number;
  __device__ acc_t at(i64 i) const {
    if (!data) return number;
    return widen(data[repeat == 1 ? i : i64(u32(i) / u32(repeat))]);
  }
};

struct Each {
  const scalar_t* data;
  __device__ acc_t at(i64 i) const { return widen(data[i]); }
};

struct Number {
  acc_t number;
  __device__ acc_t at(i64) const { return number; }
};

// body(z, first, last) for the elements from first on. A CPU makes loops of rows of one z each, which
// are vectorised.
template <class Z, class Body>
DEVICE void with_rows(Z z, i64 first, i64 last, Body body) {
  body(z, first, last);
}
#if defined(GRADLITE_NATIVE)
template <class Body>
DEVICE void with_rows(Third z, i64 first, i64 last, Body body) {
  while (first < last) {
    const i64 row = first / z.repeat, end = math::smaller((row + 1) * z.repeat, last);
    body(Number{widen(z.data[row])}, first, end);
    first = end;
  }
}
#endif

// body(formula, third), by the number that gradlite/ops/loss_of_three.py knows it by.
template <class Body>
DEVICE void with_formula(i64 kind, double parameter, Third third, Body body) {
  const acc_t p = acc_t(parameter);
  const Gaussian gaussian{p, kind == 7 ? acc_t(0.9189385332046727) : acc_t(0)};
  switch (kind) {
    case 0: return body(Poisson<true, false>{p}, Number());
    case 1: return body(Poisson<false, false>{p}, Number());
    case 2: return body(Poisson<true, true>{p}, Number());
    case 3: return body(Poisson<false, true>{p}, Number());
    case 4: return body(HingeEmbedding{p}, Number());
    case 5: return body(Ranking{p}, Each{third.data});
  }
#if defined(GRADLITE_NATIVE)  // loops that are vectorised
  if (!third.data) return body(gaussian, Number{third.number});
  if (third.repeat == 1) return body(gaussian, Each{third.data});
#endif
  body(gaussian, third);
}

// The gradient of one operand from that of the loss.
template <class Formula>
DEVICE scalar_t gradient(const Formula&, acc_t slope, acc_t by) {
  return narrow(Formula::cuts && by == 0 ? by : slope * by);
}

// ------------------------------------------------------------------------------------ kernels
// partials (pieces): the sums of the losses of each of the pieces.
KERNEL(loss_of_three_parts)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, const scalar_t* __restrict__ z,
 acc_t* __restrict__ partials, i64 n, i64 repeat, i64 pieces, i64 kind, double number,
 double parameter) {
  const i64 size = (n + pieces - 1) / pieces;
  with_formula(kind, parameter, {z, repeat, acc_t(number)}, [&](auto formula, auto third) {
    for_each_row(pieces, [&](auto team, i64 piece) {
      const i64 first = piece * size, last = math::smaller(first + size, n);
      acc_t total = 0;
      with_rows(third, first, last, [&](auto thirds, i64 from, i64 to) {
#pragma unroll 4
        for (i64 i = from + team.rank(); i < to; i += team.size()) {
          total += formula.value(widen(x[i]), widen(y[i]), thirds.at(i));
        }
      });
      total = team.sum(total);
      if (team.rank() == 0) partials[piece] = total;
    });
  });
}

// The losses themselves.
KERNEL(loss_of_three_values)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ y, const scalar_t* __restrict__ z,
 scalar_t* __restrict__ out, i64 n, i64 repeat, i64 kind, double number, double parameter) {
  with_formula(kind, parameter, {z, repeat, acc_t(number)}, [&](auto formula, auto third) {
    with_rows(third, 0, n, [&](auto thirds, i64 from, i64 to) {
      INDEPENDENT
#pragma unroll 2
      for (i64 i = from + thread_index(); i < to; i += thread_count()) {
        out[i] = narrow(formula.value(widen(x[i]), widen(y[i]), thirds.at(i)));
      }
    });
  });
}

// dx, dy and dz (n), where not null, for grad of each element or of all.
KERNEL(loss_of_three_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, const scalar_t* __restrict__ z, scalar_t* __restrict__ dx,
 scalar_t* __restrict__ dy, scalar_t* __restrict__ dz, i64 n, i64 repeat, i64 each, i64 kind,
 double number, double parameter, double scale) {
  const acc_t common = each ? acc_t(scale) : widen(grad[0]) * acc_t(scale);
  with_formula(kind, parameter, {z, repeat, acc_t(number)}, [&](auto formula, auto third) {
    with_rows(third, 0, n, [&](auto thirds, i64 from, i64 to) {
      const auto slope = [&](i64 i) { return each ? widen(grad[i]) * common : common; };
      const auto slopes = [&](i64 i) {
        return formula.slopes(widen(x[i]), widen(y[i]), thirds.at(i));
      };
#if defined(GRADLITE_NATIVE)  // a loop for each, which is vectorised
      if (dx) {
        INDEPENDENT
        for (i64 i = from; i < to; i++) dx[i] = gradient(formula, slope(i), slopes(i).x);
      }
      if (dy) {
        INDEPENDENT
        for (i64 i = from; i < to; i++) dy[i] = gradient(formula, slope(i), slopes(i).y);
      }
      if (dz) {
        INDEPENDENT
        for (i64 i = from; i < to; i++) dz[i] = gradient(formula, slope(i), slopes(i).z);
      }
#else
      ROLLED
      for (i64 i = from + thread_index(); i < to; i += thread_count()) {
        const Slopes by = slopes(i);
        if (dx) dx[i] = gradient(formula, slope(i), by.x);
        if (dy) dy[i] = gradient(formula, slope(i), by.y);
        if (dz) dz[i] = gradient(formula, slope(i), by.z);
      }
#endif
    });
  });
}

// The same of `Gaussian` for a variance z (rows) of each row: dx and dy (rows, columns) where not
// null, and dz (rows).
KERNEL(gaussian_rows_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ y, const scalar_t* __restrict__ z, scalar_t* __restrict__ dx,
 scalar_t* __restrict__ dy, scalar_t* __restrict__ dz, i64 rows, i64 columns, i64 each,
 double epsilon, double scale) {
  const acc_t common = each ? acc_t(scale) : widen(grad[0]) * acc_t(scale);
  const Gaussian gaussian{acc_t(epsilon), 0};
  for_each_row(rows, [&](auto team, i64 row) {
    const acc_t variance = widen(z[row]);
    const i64 first = row * columns + team.rank(), last = (row + 1) * columns;
    const auto slope = [&](i64 i) { return each ? widen(grad[i]) * common : common; };
    const auto slopes = [&](i64 i) {
      return gaussian.slopes(widen(x[i]), widen(y[i]), variance);
    };
    acc_t total = 0;
#if defined(GRADLITE_NATIVE)  // a loop for each, which is vectorised
    if (dx) {
      INDEPENDENT
      for (i64 i = first; i < last; i++) dx[i] = narrow(slope(i) * slopes(i).x);
    }
    if (dy) {
      INDEPENDENT
      for (i64 i = first; i < last; i++) dy[i] = narrow(slope(i) * slopes(i).y);
    }
    for (i64 i = first; i < last; i++) total += slope(i) * slopes(i).z;
#else
    for (i64 i = first; i < last; i += team.size()) {
      const Slopes by = slopes(i);
      if (dx) dx[i] = narrow(slope(i) * by.x);
      if (dy) dy[i] = narrow(slope(i) * by.y);
      total += slope(i) * by.z;
    }
#endif
    total = team.sum(total);
    if (team.rank() == 0) dz[row] = narrow(total);
  });
}
