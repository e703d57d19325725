// The passes over a row that every softmax is made of, forward and backward: what they read is kept
// in registers where it fits, and read again elsewhere. Elements are read one by one, which serves
// short rows and rows of odd lengths as well as long ones.
#pragma once
#include "team.cuh"

// The largest value of a row, and the sum of exp(value - largest).
struct Largest {
  acc_t top, total;
};

// Where the largest value is not finite, values less it are NaN; with FINITE they are compared with
// 0 instead.
template <bool FINITE>
DEVICE acc_t settled_top(acc_t top) {
  return FINITE && !(math::abs(top) < infinity()) ? acc_t(0) : top;
}

#if defined(GRADLITE_NATIVE)

// Integers that are in the order of the numbers, and back: compilers make vectors of maxima of
// integers, but of floating ones not in the end. A NaN is above or below all.
DEVICE int in_order(float x) {
  const int bits = bit_cast<int>(x);
  return bits ^ (bits >> 31 & 0x7fffffff);
}
DEVICE i64 in_order(double x) {
  const i64 bits = bit_cast<i64>(x);
  return bits ^ (bits >> 63 & 0x7fffffffffffffffll);
}
DEVICE float number_of(int place) { return bit_cast<float>(place ^ (place >> 31 & 0x7fffffff)); }
DEVICE double number_of(i64 place) {
  return bit_cast<double>(place ^ (place >> 63 & 0x7fffffffffffffffll));
}

template <class Value>
DEVICE acc_t largest_of(i64 columns, Value value) {
  auto top = in_order(-infinity());
  for (i64 c = 0; c < columns; c++) top = math::larger(in_order(value(c)), top);
  return number_of(top);
}

// Calls finish(largest) and then write(c, exp(value(c) - top)), or with LOGS write(c, value(c)), for
// every column of a row. `out` has room for the row where it is written in any case.
template <bool FINITE, bool LOGS, class Team, class Value, class Finish, class Write>
DEVICE void softmax_row(Team, i64 columns, scalar_t* out, Value value, Finish finish, Write write) {
  acc_t total = 0;
  const acc_t top = settled_top<FINITE>(largest_of(columns, value));
  // Exponentials are computed once where memory holds them as they are.
  constexpr bool STORED = !LOGS && sizeof(scalar_t) == sizeof(acc_t);
  if (STORED && out) {
    INDEPENDENT
    for (i64 c = 0; c < columns; c++) {
      const acc_t e = math::exp(value(c) - top);
      out[c] = narrow(e);
      total += e;
    }
    finish(Largest{top, total});
    INDEPENDENT
    for (i64 c = 0; c < columns; c++) write(c, widen(out[c]));
  } else {
    for (i64 c = 0; c < columns; c++) total += math::exp(value(c) - top);
    finish(Largest{top, total});
    INDEPENDENT
    for (i64 c = 0; c < columns; c++) write(c, LOGS ? value(c) : math::exp(value(c) - top));
  }
}

// write(c, left(c), right(c), total) for every column, total being the sum of
// term(left(c), right(c)).
template <class Team, class Left, class Right, class Term, class Write>
DEVICE void softmax_gradient(Team, i64 columns, Left left, Right right, Term term, Write write) {
  acc_t total = 0;
  for (i64 c = 0; c < columns; c++) total += term(left(c), right(c));
  INDEPENDENT
  for (i64 c = 0; c < columns; c++) write(c, left(c), right(c), total);
}

#else

constexpr int KEPT = 64 / sizeof(acc_t);  // values of a thread

// body(k, c) for the thread's columns of a row of at most N * team.size(): column c is its k-th.
template <int N, class Team, class Body>
DEVICE void for_kept(const Team& team, int columns, Body body) {
  const int size = int(team.size());
  int c = int(team.rank());
#pragma unroll
  for (int k = 0; k < N; k++, c += size) {
    if (k % 4 == 0 && k * size >= columns) break;
    if (c < columns) body(k, c);
  }
}

template <bool FINITE, bool LOGS, class Team, class Value, class Finish, class Write>
DEVICE void softmax_row(const Team& team, i64 columns, scalar_t*, Value value, Finish finish,
                        Write write) {
  acc_t top = -infinity(), total = 0;
  if (columns <= KEPT * team.size()) {
    const int kept_columns = int(columns);
    acc_t kept[KEPT];
    for_kept<KEPT>(team, kept_columns, [&](int k, int c) { kept[k] = value(c); });
    for_kept<KEPT>(team, kept_columns, [&](int k, int) { top = math::larger(kept[k], top); });
    top = settled_top<FINITE>(team.max(top));
    for_kept<KEPT>(team, kept_columns, [&](int k, int) {
      const acc_t e = math::exp(kept[k] - top);
      if (!LOGS) kept[k] = e;
      total += e;
    });
    finish(Largest{top, team.sum(total)});
    for_kept<KEPT>(team, kept_columns, [&](int k, int c) { write(c, kept[k]); });
    return;
  }
  // Read twice: in the first pass the sum so far is scaled down whenever a larger value comes.
#pragma unroll 2
  for (i64 c = team.rank(); c < columns; c += team.size()) {
    const acc_t v = value(c);
    if (v > top) {
      total *= math::exp(top - v);
      top = v;
    }
    // An infinite value counts here as one, and for what it is below.
    total += v == -infinity() ? acc_t(0) : v == top ? acc_t(1) : math::exp(v - top);
  }
  const acc_t own = top;
  top = settled_top<FINITE>(team.max(own));
  finish(Largest{top, team.sum(total == 0 ? acc_t(0) : total * math::exp(own - top))});
#pragma unroll 2
  for (i64 c = team.rank(); c < columns; c += team.size()) {
    const acc_t v = value(c);
    write(c, LOGS ? v : math::exp(v - top));
  }
}

template <class Team, class Left, class Right, class Term, class Write>
DEVICE void softmax_gradient(const Team& team, i64 columns, Left left, Right right, Term term,
                             Write write) {
  constexpr int HALF = KEPT / 2;
  acc_t total = 0;
  if (columns <= HALF * team.size()) {
    const int kept_columns = int(columns);
    acc_t a[HALF], b[HALF];
    for_kept<HALF>(team, kept_columns, [&](int k, int c) {
      a[k] = left(c);
      b[k] = right(c);
    });
    for_kept<HALF>(team, kept_columns, [&](int k, int) { total += term(a[k], b[k]); });
    total = team.sum(total);
    for_kept<HALF>(team, kept_columns, [&](int k, int c) { write(c, a[k], b[k], total); });
    return;
  }
#pragma unroll 4
  for (i64 c = team.rank(); c < columns; c += team.size()) total += term(left(c), right(c));
  total = team.sum(total);
#pragma unroll 2
  for (i64 c = team.rank(); c < columns; c += team.size()) write(c, left(c), right(c), total);
}

#endif
