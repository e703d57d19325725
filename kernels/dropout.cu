// Dropout whose mask is drawn where it is needed, forward and backward alike, and never stored.
// An element is kept where its lane of the draw is below the threshold, 2^32 (1 - p); see
// gradlite/random.py for the lanes, and Draw::at for `state`.
#include "columns.cuh"

#include "philox.cuh"
#include "team.cuh"

// The 8 elements of a block of the draw, 16 bytes at a time where memory lies so.
template <class Function, class... In>
DEVICE void map_blocks(const Draw& draw, i64 n, scalar_t* out, Function function, const In*... in) {
  i64 done = 0;
#if !defined(GRADLITE_NATIVE)
  constexpr int PACKS = 8 / LANES;
  if (aligned(out, in...)) {
    done = n / 8 * 8;
    for (i64 b = thread_index(); b < n / 8; b += thread_count()) {
      const Block block = draw.block(b);
#pragma unroll
      for (int k = 0; k < PACKS; k++) {
        const i64 p = b * PACKS + k;
        int l = k * LANES;
        reinterpret_cast<Pack*>(out)[p] =
            map_lanes([&](auto... values) { return function(block.lane32(l++), values...); },
                      reinterpret_cast<const Pack*>(in)[p]...);
      }
    }
  }
#endif
  for (i64 b = done / 8 + thread_index(); b * 8 < n; b += thread_count()) {
    const Block block = draw.block(b);
    const int count = int(math::smaller(n - b * 8, i64(8)));
    for (int l = 0; l < count; l++) {
      const i64 i = b * 8 + l;
      out[i] = narrow(function(block.lane32(l), widen(in[i])...));
    }
  }
}

// value, or 0: in bits, because g++ -fno-signed-zeros makes 0 of x * (keep ? value : 0) for NaN.
DEVICE float kept_or_zero(bool keep, float value) {
  return bit_cast<float>(bit_cast<u32>(value) & (0 - u32(keep)));
}
DEVICE double kept_or_zero(bool keep, double value) {
  return bit_cast<double>(bit_cast<u64>(value) & (0 - u64(keep)));
}

// What becomes of an element: x * scale + kept, or x * 0 + dropped. `scale` is rounded to what the
// arrays hold, as the rule's mask is. Plain dropout has kept = dropped = 0.
struct Fate {
  u64 threshold;
  acc_t scale, kept, dropped;
  __device__ acc_t of(u32 lane, acc_t x) const {
    const bool keep = u64(lane) < threshold;
    return x * kept_or_zero(keep, scale) + (keep ? kept : dropped);
  }
};
DEVICE Fate fate(i64 threshold, double scale, double kept, double dropped) {
  return {u64(threshold), widen(narrow(acc_t(scale))), widen(narrow(acc_t(kept))),
          widen(narrow(acc_t(dropped)))};
}

KERNEL_BLOCKS(dropout, 3)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, const u64* __restrict__ state, i64 seed,
 i64 offset, i64 n, i64 threshold, double scale, double kept, double dropped) {
  const Fate f = fate(threshold, scale, kept, dropped);
  map_blocks(
      Draw::at(state, seed, offset), n, y, [=](u32 lane, acc_t v) { return f.of(lane, v); }, x);
}

// One lane for each row: whole channels are kept or dropped.
KERNEL(dropout_rows)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ y, const u64* __restrict__ state, i64 seed,
 i64 offset, i64 rows, i64 columns, i64 threshold, double scale, double kept, double dropped) {
  const Fate f = fate(threshold, scale, kept, dropped);
  const Draw draw = Draw::at(state, seed, offset);
  for_each_row(rows, [&](auto team, i64 row) {
    const u32 lane = draw.block(row >> 3).lane32(int(row & 7));
    const scalar_t* in = x + row * columns;
    scalar_t* out = y + row * columns;
    INDEPENDENT
    for (i64 c = team.rank(); c < columns; c += team.size()) out[c] = narrow(f.of(lane, widen(in[c])));
  });
}

// y = residual + dropout(x + bias) for (rows, columns) with a bias for each column, or null.
KERNEL(bias_dropout_add_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ bias,
 const scalar_t* __restrict__ residual, scalar_t* __restrict__ y, const u64* __restrict__ state,
 i64 seed, i64 offset, i64 n, i64 columns, i64 threshold, double scale) {
  const Fate f = fate(threshold, scale, 0.0, 0.0);
  const Draw draw = Draw::at(state, seed, offset);
  for (i64 b = thread_index(); b * 8 < n; b += thread_count()) {
    const Block block = draw.block(b);
    i64 c = bias ? b * 8 % columns : 0;
    const int count = int(math::smaller(n - b * 8, i64(8)));
    for (int l = 0; l < count; l++) {
      const i64 i = b * 8 + l;
      const acc_t shift = bias ? widen(bias[c]) : acc_t(0);
      y[i] = narrow(widen(residual[i]) + f.of(block.lane32(l), widen(x[i]) + shift));
      c = c + 1 < columns ? c + 1 : 0;
    }
  }
}

// dx = grad * mask and, in parts, its sums over the rows: the gradient of the bias.
KERNEL(bias_dropout_add_backward)
(const scalar_t* __restrict__ grad, scalar_t* __restrict__ dx, const u64* __restrict__ state,
 i64 seed, i64 offset, i64 threshold, double scale, acc_t* __restrict__ partials, i64 rows,
 i64 columns, i64 parts) {
  const Fate f = fate(threshold, scale, 0.0, 0.0);
  const Draw draw = Draw::at(state, seed, offset);
  const auto block_at = [=](i64 row, i64 column) {  // which serves a pack: LANES divides 8
    return draw.block<1>((row * columns + column) >> 3);
  };
  prepared_column_parts<1>(
      rows, columns, parts, partials, dx, block_at,
      [=](const Block& block, i64 row, i64 column, acc_t* sum, acc_t g) {
        const acc_t value = f.of(block.lane32(int((row * columns + column) & 7)), g);
        sum[0] += value;
        return value;
      },
      grad);
}
