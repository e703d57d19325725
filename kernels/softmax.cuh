// The passes over a row that every softmax is made of, forward and backward: what they read is kept
// in registers where it fits, and read again elsewhere.
#pragma once
#include "packs.cuh"

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

// Packs of values that fill 32 registers.
constexpr int KEPT_VALUES = 128 / (LANES * sizeof(acc_t));

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

// A softmax of score(in[c], c) over the columns c of a row: calls finish(largest), and then writes
// result(exp(score - top)), or with LOGS result(score), for every column to `out` unless it is null.
// A thread of a GPU keeps N packs of values.
template <bool FINITE, bool LOGS, int N, class Team, class Score, class Finish, class Result>
DEVICE void softmax_row(Team, i64 columns, const scalar_t* in, scalar_t* out, Score score,
                        Finish finish, Result result) {
  const auto value = [&](i64 c) { return score(widen(in[c]), c); };
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
    for (i64 c = 0; c < columns; c++) out[c] = narrow(result(widen(out[c])));
    return;
  }
  for (i64 c = 0; c < columns; c++) total += math::exp(value(c) - top);
  finish(Largest{top, total});
  if (!out) return;
  INDEPENDENT
  for (i64 c = 0; c < columns; c++) {
    out[c] = narrow(result(LOGS ? value(c) : math::exp(value(c) - top)));
  }
}

// out[c] = result(left[c], right[c], total) for every column, total being the sum of
// term(left[c], right[c]).
template <class Team, class Term, class Result>
DEVICE void softmax_gradient(Team, i64 columns, const scalar_t* left, const scalar_t* right,
                             scalar_t* out, Term term, Result result) {
  acc_t total = 0;
  for (i64 c = 0; c < columns; c++) total += term(widen(left[c]), widen(right[c]));
  INDEPENDENT
  for (i64 c = 0; c < columns; c++) {
    out[c] = narrow(result(widen(left[c]), widen(right[c]), total));
  }
}

#else

// What a thread has seen of a row: the largest value, and the sum of exp(value - largest).
struct Seen {
  acc_t top = -infinity(), total = 0;

  // N values more. The sum so far is scaled down to the largest value of all. An infinite one counts
  // here as one, and for what it is in the end.
  template <int N, class Value>
  __device__ void add(Value value) {
    acc_t most = top;
#pragma unroll
    for (int i = 0; i < N; i++) most = math::larger_number(value(i), most);
    const acc_t base = most == -infinity() ? acc_t(0) : most;
    if (top != base) total *= math::exp(top - base);
#pragma unroll
    for (int i = 0; i < N; i++) {
      const acc_t v = value(i);
      total += v == base ? acc_t(1) : math::exp(v - base);
    }
    top = most;
  }
};

constexpr int KEPT_PACKS = KEPT_VALUES / 2;  // of each of two arrays

template <bool FINITE, bool LOGS, int N, class Team, class Score, class Finish, class Result>
DEVICE void softmax_row(const Team& team, i64 columns, const scalar_t* in, scalar_t* out,
                        Score score, Finish finish, Result result) {
  const Packs row = out ? packs_of(columns, in, out) : packs_of(columns, in);
  const acc_t least = -infinity();
  if (row.fits<N>(team)) {
    // Halves are kept as they are, and their exponentials computed again: they take half of the
    // registers so, and more threads have room.
    constexpr bool AGAIN = sizeof(scalar_t) < sizeof(acc_t);
    Pack packs[N];
    acc_t values[N][LANES], top = least, total = 0;
    const auto value = [&](int k, int c, int l) {
      return AGAIN ? score(widen(packs[k].lane[l]), c + l) : values[k][l];
    };
    for_kept<N>(team, row, [&](int k, int c) { packs[k] = row.load(in, c, least); });
    for_kept<N>(team, row, [&](int k, int c) {
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        const acc_t v = score(widen(packs[k].lane[l]), c + l);
        if (!AGAIN) values[k][l] = v;
        top = math::larger_number(v, top);
      }
    });
    top = settled_top<FINITE>(team.max(top));
    for_kept<N>(team, row, [&](int k, int c) {
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        const acc_t e = math::exp(value(k, c, l) - top);
        if (!LOGS && !AGAIN) values[k][l] = e;
        total += e;
      }
    });
    finish(Largest{top, team.sum(total)});
    if (!out) return;
    for_kept<N>(team, row, [&](int k, int c) {
      Pack pack;
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        const acc_t v = value(k, c, l);
        pack.lane[l] = narrow(result(AGAIN && !LOGS ? math::exp(v - top) : v));
      }
      row.store(out, c, pack);
    });
    return;
  }
  // Read twice: the largest value and the sum come from one pass.
  constexpr int AT_ONCE = N / 2;
  const i64 step = row.step(team);
  Seen seen;
  ROLLED
  for (i64 c = row.first(team); c < columns; c += AT_ONCE * step) {
    Pack packs[AT_ONCE];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) packs[k] = row.load(in, c + k * step, least);
    seen.add<AT_ONCE * LANES>([&](int i) {
      const int k = i / LANES, l = i % LANES;
      return score(widen(packs[k].lane[l]), c + k * step + l);
    });
  }
  const acc_t own = seen.top, top = settled_top<FINITE>(team.max(own));
  const acc_t total = seen.total;
  finish(Largest{top, team.sum(total == 0 ? acc_t(0) : total * math::exp(own - top))});
  if (!out) return;
  ROLLED
  for (i64 c = row.first(team); c < columns; c += AT_ONCE * step) {
    Pack packs[AT_ONCE];
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) packs[k] = row.load(in, c + k * step, least);
#pragma unroll
    for (int k = 0; k < AT_ONCE; k++) {
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        const acc_t value = score(widen(packs[k].lane[l]), c + k * step + l);
        packs[k].lane[l] = narrow(result(LOGS ? value : math::exp(value - top)));
      }
      row.store(out, c + k * step, packs[k]);
    }
  }
}

template <class Team, class Term, class Result>
DEVICE void softmax_gradient(const Team& team, i64 columns, const scalar_t* left,
                             const scalar_t* right, scalar_t* out, Term term, Result result) {
  const Packs row = packs_of(columns, left, right, out);
  acc_t total = 0;
  const auto add = [&](const Pack& a, const Pack& b) {
#pragma unroll
    for (int l = 0; l < LANES; l++) total += term(widen(a.lane[l]), widen(b.lane[l]));
  };
  const auto of = [&](const Pack& a, const Pack& b) {
    return map_lanes([&](acc_t u, acc_t v) { return result(u, v, total); }, a, b);
  };
  if (row.fits<KEPT_PACKS>(team)) {
    constexpr int N = KEPT_PACKS;
    Pack a[N], b[N];
    for_kept<N>(team, row, [&](int k, int c) {
      a[k] = row.load(left, c, 0);
      b[k] = row.load(right, c, 0);
    });
    for_kept<N>(team, row, [&](int k, int) { add(a[k], b[k]); });
    total = team.sum(total);
    for_kept<N>(team, row, [&](int k, int c) { row.store(out, c, of(a[k], b[k])); });
    return;
  }
#pragma unroll 2
  for (i64 c = row.first(team); c < columns; c += row.step(team)) {
    add(row.load(left, c, 0), row.load(right, c, 0));
  }
  total = team.sum(total);
#pragma unroll 2
  for (i64 c = row.first(team); c < columns; c += row.step(team)) {
    row.store(out, c, of(row.load(left, c, 0), row.load(right, c, 0)));
  }
}

#endif
