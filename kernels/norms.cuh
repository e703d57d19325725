// The p-norms of rows, and their gradients, for p > 0.
//
//     with_norm<2>(team, columns, aligned(x, y), p, [&](auto row, auto norm) {
//       const auto a = row.keep(x + r * columns), b = row.keep(y + r * columns);
//       const auto apart = [](acc_t a, acc_t b) { return a - b; };
//       const Slope slope = slope_of(team, row, norm, grad, length, apart, a, b);
//       row.map(dx + r * columns, [=](acc_t a, acc_t b) { return slope(norm, a - b); }, a, b);
//     });
#pragma once
#include "rows.cuh"

enum { ONE, TWO, MOST, POWER };  // p = 1, 2, infinity and any other

DEVICE int kind_of(double p) {
  return p == 1 ? ONE : p == 2 ? TWO : p == double(infinity()) ? MOST : POWER;
}

// Which norm it is. Those of p = 1 and 2 are short enough for loops that are unrolled over registers;
// the others are not. On the CPU each has loops of its own.
#if defined(GRADLITE_NATIVE)
template <int KIND>
struct KnownNorm {
  static constexpr bool hard = KIND > TWO;
  static constexpr int kind = KIND;
  acc_t p;
};
#else
struct EasyNorm {
  static constexpr bool hard = false;
  int kind;
  acc_t p;
};
struct HardNorm {
  static constexpr bool hard = true;
  int kind;
  acc_t p;
};
#endif

template <class Norm>
DEVICE bool is_most(Norm norm) {
  return Norm::hard && norm.kind == MOST;
}
template <class Norm>
DEVICE bool is_power(Norm norm) {
  return Norm::hard && norm.kind == POWER;
}

// What an element adds to the sum.
template <class Norm>
DEVICE acc_t term(Norm norm, acc_t v) {
  if (is_power(norm)) return math::pow(math::abs(v), norm.p);
  return norm.kind == TWO ? v * v : math::abs(v);
}

template <class Norm>
DEVICE acc_t root(Norm norm, acc_t total) {
  if (is_power(norm)) return math::pow(total, acc_t(1) / norm.p);
  return norm.kind == TWO ? math::sqrt(total) : total;
}

// The derivative of the length by an element is by_element(v) times a factor of the row's.
template <class Norm>
DEVICE acc_t by_element(Norm norm, acc_t v) {
  if (is_power(norm)) {
    return v == 0 ? acc_t(0) : math::copysign(math::pow(math::abs(v), norm.p - 1), v);
  }
  return norm.kind == TWO ? v : math::sign(v);
}

// That factor times a gradient: 0 where the length is.
template <class Norm>
DEVICE acc_t by_length(Norm norm, acc_t grad, acc_t length) {
  if (is_power(norm)) {
    return length == 0 ? acc_t(0) : grad / math::pow(length, norm.p - 1);
  }
  return norm.kind != TWO ? grad : length == 0 ? acc_t(0) : grad / length;
}

// The length of the row of value(in...).
template <class Team, class Row, class Norm, class Value, class... In>
DEVICE acc_t length_of(const Team& team, const Row& row, Norm norm, Value value,
                       const In&... in) {
  acc_t total = 0, top = 0;
  row.each(
      [&](auto... elements) {
        const acc_t t = term(norm, value(elements...));
        total += t;
        if (is_most(norm)) top = math::larger(t, top);
      },
      in...);
  total = team.sum(total);
  if (is_most(norm)) {
    top = team.max(top);
    return total == total ? top : total;  // a NaN is in the sum
  }
  return root(norm, total);
}

// The gradient of a length by the elements of its row.
struct Slope {
  acc_t factor, top;

  template <class Norm>
  __device__ acc_t operator()(Norm norm, acc_t v) const {
    return factor * (is_most(norm) && math::abs(v) != top ? acc_t(0) : by_element(norm, v));
  }
};

// The largest elements share the gradient of p = infinity; `length` is exact then.
template <class Team, class Row, class Norm, class Value, class... In>
DEVICE Slope slope_of(const Team& team, const Row& row, Norm norm, acc_t grad, acc_t length,
                      Value value, const In&... in) {
  if (!is_most(norm)) return {by_length(norm, grad, length), length};
  acc_t ties = 0;
  row.each(
      [&](auto... elements) {
        ties += math::abs(value(elements...)) == length ? acc_t(1) : acc_t(0);
      },
      in...);
  ties = team.sum(ties);  // none where the length is NaN
  return {ties > 0 ? grad / ties : grad, length};
}

// body(norm)
template <class Body>
DEVICE void with_norm(double p, Body body) {
  const int kind = kind_of(p);
#if defined(GRADLITE_NATIVE)
  if (kind == ONE) body(KnownNorm<ONE>{1});
  if (kind == TWO) body(KnownNorm<TWO>{2});
  if (kind == MOST) body(KnownNorm<MOST>{0});
  if (kind == POWER) body(KnownNorm<POWER>{acc_t(p)});
#else
  if (kind <= TWO) {
    body(EasyNorm{kind, 0});
  } else {
    body(HardNorm{kind, acc_t(p)});
  }
#endif
}

// body(row, norm) with the row as `with_row` has it for easy norms, and a plain one for others.
template <int ROWS, class Team, class Body>
DEVICE void with_norm(Team team, i64 columns, bool vectors, double p, Body body) {
#if defined(GRADLITE_NATIVE)
  with_norm(p, [&](auto norm) { body(SerialRow{columns}, norm); });
#else
  const int kind = kind_of(p);
  if (kind <= TWO) {
    with_row<ROWS>(team, columns, vectors, [&](auto row) { body(row, EasyNorm{kind, 0}); });
  } else {
    body(plain_row(team, columns), HardNorm{kind, acc_t(p)});
  }
#endif
}

// a - b + eps. A CPU compiler that may regroup sums would add eps to a number that swallows it.
struct Apart {
  acc_t eps, one = settled(1);
  __device__ acc_t operator()(acc_t a, acc_t b) const { return (a - b) * one + eps; }
};
