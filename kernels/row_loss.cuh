// What the losses of rows share: where a row's result goes, and where its gradient comes from.
#pragma once
#include "team.cuh"

// A row's result, to the one of the two arrays that is there: `losses` where a sum follows.
template <class Team>
DEVICE void write(const Team& team, i64 row, acc_t value, scalar_t* values, acc_t* losses) {
  if (team.rank() != 0) return;
  if (values) {
    values[row] = narrow(value);
  } else {
    losses[row] = value;
  }
}

// The gradient of a row's loss: of each its own, or of all one.
DEVICE acc_t grad_of(const scalar_t* grad, i64 row, i64 each, double scale) {
  return widen(grad[each ? row : 0]) * acc_t(scale);
}

// v, or `least` where v is smaller; NaN stays.
DEVICE acc_t at_least(acc_t v, acc_t least) { return v < least ? least : v; }
