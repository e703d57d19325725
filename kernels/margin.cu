// Margin losses of rows of scores with a class or with a list of labels, forward and backward.
//
// Forward writes what it computes of a row to `values`, or to `losses` where a sum follows;
// backward takes grad of each row or of all, times `scale`. A score that is NaN counts nothing, as
// in PyTorch; a class or a label out of range makes its row NaN, and forward notes it.
#define BLOCKS 4
#include "checks.cuh"
#include "row_loss.cuh"

// Columns that a thread looks at together: vectors on the CPU.
#if defined(GRADLITE_NATIVE)
constexpr int TILE = 64;
#else
constexpr int TILE = 1;
#endif

DEVICE acc_t no_number() { return infinity() - infinity(); }

// ------------------------------------------------------------------------------- of one class
// max(0, z)^p for p = 1 or 2, and its derivative.
DEVICE acc_t hinge(acc_t z, bool squared) {
  return z > 0 ? (squared ? z * z : z) : acc_t(0);
}
DEVICE acc_t by_hinge(acc_t z, bool squared) {
  return z > 0 ? (squared ? 2 * z : acc_t(1)) : acc_t(0);
}

// What all terms of a row are multiplied with, or NaN: weight[y] / classes.
DEVICE acc_t share_of(const scalar_t* weight, i64 y, i64 classes) {
  if (y < 0 || y >= classes) return no_number();
  return (weight ? widen(weight[y]) : acc_t(1)) / acc_t(classes);
}

// sum over c but y of max(0, margin - x[y] + x[c])^p, times weight[y] / classes
KERNEL(multi_margin_forward)
(const scalar_t* __restrict__ x, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ weight, scalar_t* __restrict__ values, acc_t* __restrict__ losses,
 i64 rows, i64 classes, i64* errors, i64 p, double margin) {
  const bool squared = p == 2;
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t* scores = x + r * classes;
    const i64 y = numbers[r];
    const acc_t share = share_of(weight, y, classes);
    const acc_t least = acc_t(margin) - (share == share ? widen(scores[y]) : share);
    if (team.rank() == 0) checked(y, 0, classes, errors);
    acc_t total = 0;
#pragma unroll 4
    for (i64 c = team.rank(); c < classes; c += team.size()) {
      const acc_t loss = hinge(least + widen(scores[c]), squared);
      total += c == y ? acc_t(0) : loss;
    }
    write(team, r, team.sum(total) * share, values, losses);
  });
}

KERNEL(multi_margin_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const i64* __restrict__ numbers, const scalar_t* __restrict__ weight,
 scalar_t* __restrict__ dx, i64 rows, i64 classes, i64 p, i64 each, double margin,
 double scale) {
  const bool squared = p == 2;
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t* scores = x + r * classes;
    const i64 y = numbers[r];
    const acc_t share = share_of(weight, y, classes);
    const acc_t least = acc_t(margin) - (share == share ? widen(scores[y]) : share);
    const acc_t g = grad_of(grad, r, each, scale) * share;
    acc_t total = 0;
    INDEPENDENT
#pragma unroll 4
    for (i64 c = team.rank(); c < classes; c += team.size()) {
      const acc_t slope = c == y ? acc_t(0) : g * by_hinge(least + widen(scores[c]), squared);
      total += slope;
      dx[r * classes + c] = narrow(slope);
    }
    total = team.sum(total);
    team.sync();  // the element of the class is written twice
    if (team.rank() == 0 && share == share) dx[r * classes + y] = narrow(-total);
  });
}

// ------------------------------------------------------------------------------- of labels
// How many labels a row lists: those before the first that is negative.
template <class Team>
DEVICE i64 listed(const Team& team, const i64* labels, i64 classes) {
  i64 first = classes;
  for (i64 c = team.rank(); c < classes; c += team.size()) {
    if (labels[c] < 0) {
      first = c;
      break;
    }
  }
  return -team.max(-first);
}

// Some columns of a row: which of them are labels.
struct Tile {
  i64 first;
  int width;
  bool label[TILE];
};

// body(tile) for the columns of a row, each in one tile of one member of the team.
template <class Team, class Body>
DEVICE void for_each_tile(const Team& team, const i64* labels, i64 count, i64 classes, Body body) {
  for (i64 first = team.rank() * TILE; first < classes; first += team.size() * TILE) {
    Tile tile = {first, int(math::smaller(i64(TILE), classes - first)), {}};
    for (i64 k = 0; k < count; k++) {
      const i64 at = labels[k] - first;
      if (at >= 0 && at < TILE) tile.label[TILE == 1 ? 0 : at] = true;
    }
    body(tile);
  }
}

// 1 - x[label], the least that another score exceeds to count; NaN for a label out of range.
DEVICE acc_t least_of(const scalar_t* scores, i64 label, i64 classes) {
  return label < classes ? 1 - widen(scores[label]) : no_number();
}

// The largest label, which is out of range where any is.
template <class Team>
DEVICE i64 largest(const Team& team, const i64* labels, i64 count) {
  i64 most = 0;
  for (i64 k = team.rank(); k < count; k += team.size()) most = math::larger(labels[k], most);
  return team.max(most);
}

// sum over labels y and other columns c of max(0, 1 - x[y] + x[c]), by the number of classes
KERNEL(multilabel_margin_forward)
(const scalar_t* __restrict__ x, const i64* __restrict__ targets, scalar_t* __restrict__ values,
 acc_t* __restrict__ losses, i64 rows, i64 classes, i64* errors) {
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t* scores = x + r * classes;
    const i64* labels = targets + r * classes;
    const i64 count = listed(team, labels, classes);
    acc_t total = 0;
    for_each_tile(team, labels, count, classes, [&](const Tile& tile) {
      for (i64 k = 0; k < count; k++) {
        const acc_t least = least_of(scores, labels[k], classes);
        for (int t = 0; t < tile.width; t++) {
          const acc_t loss = hinge(least + widen(scores[tile.first + t]), false);
          total += tile.label[t] ? acc_t(0) : loss;
        }
      }
    });
    total = team.sum(total) / acc_t(classes);
    const i64 most = largest(team, labels, count);
    if (most >= classes) total = no_number();
    if (team.rank() == 0) {
      checked(most, 0, classes, errors);
      if (count < classes) checked(labels[count], -1, classes, errors);  // what ends the list
    }
    write(team, r, total, values, losses);
  });
}

// `marks` (rows, classes) is room for which columns are labels. The gradient of a column that is
// none counts the labels that it comes too close to; that of a label counts such columns, as many
// times as the label is listed.
KERNEL(multilabel_margin_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const i64* __restrict__ targets, u8* __restrict__ marks, scalar_t* __restrict__ dx, i64 rows,
 i64 classes, i64 each, double scale) {
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t* scores = x + r * classes;
    const i64* labels = targets + r * classes;
    u8* mark = marks + r * classes;
    scalar_t* out = dx + r * classes;
    const i64 count = listed(team, labels, classes);
    const bool bad = largest(team, labels, count) >= classes;
    const acc_t g = bad ? no_number() : grad_of(grad, r, each, scale) / acc_t(classes);
    for_each_tile(team, labels, count, classes, [&](const Tile& tile) {
      acc_t close[TILE] = {};
      for (i64 k = 0; k < count; k++) {
        const acc_t least = least_of(scores, labels[k], classes);
        for (int t = 0; t < tile.width; t++) {
          close[t] += least + widen(scores[tile.first + t]) > 0 ? acc_t(1) : acc_t(0);
        }
      }
      for (int t = 0; t < tile.width; t++) {
        mark[tile.first + t] = tile.label[t];
        if (bad || !tile.label[t]) out[tile.first + t] = narrow(g * close[t]);
      }
    });
    for (i64 k = 0; k < count && !bad; k++) {
      const i64 y = labels[k];
      acc_t times = 0, before = 0, close = 0;
      for (i64 i = team.rank(); i < count; i += team.size()) {
        times += labels[i] == y ? acc_t(1) : acc_t(0);
        before += labels[i] == y && i < k ? acc_t(1) : acc_t(0);
      }
      const acc_t least = least_of(scores, y, classes);
      for (i64 c = team.rank(); c < classes; c += team.size()) {
        close += !mark[c] && least + widen(scores[c]) > 0 ? acc_t(1) : acc_t(0);
      }
      times = team.sum(times);
      before = team.sum(before);
      close = team.sum(close);
      if (before == 0 && team.rank() == 0) out[y] = narrow(-g * times * close);
    }
  });
}
