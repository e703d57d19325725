// Reading rows and elements that indices name, and adding to them.
//
// An array is seen as (outer, size, inner), and indices go along the middle. Valid are those from
// `lowest` on (0, or -size where numbers below 0 count from the end) and below `size`. At any other
// nothing is read or written, zeros stand for what would have been read, and `errors` becomes
// (1, index, size).
//
// Sums at repeated indices come in several forms. All of them add in the order of the indices,
// and so give the same bits at every run, but the one that is called `_atomic`.
#include "checks.cuh"
#include "places.cuh"
#include "team.cuh"

DEVICE void atomic_add(acc_t* place, acc_t value) {
#if defined(GRADLITE_NATIVE)
  *place += value;
#else
  atomicAdd(place, value);
#endif
}

// --------------------------------------------------------------------------------------- rows
// A row is what lies at one index: `inner` elements. For one that is copied or added to another,
// 16 bytes at a time where both allow it.
template <class Team, class Function, class Out, class... In>
DEVICE void for_each_column(Team team, i64 columns, Function function, Out* out, const In*... in) {
  i64 done = 0;
#if !defined(GRADLITE_NATIVE)
  if (aligned(out, in...)) {
    done = columns / LANES * LANES;
    for (i64 p = team.rank(); p < columns / LANES; p += team.size()) {
      reinterpret_cast<Pack*>(out)[p] =
          map_lanes(function, reinterpret_cast<const Pack*>(in)[p]...);
    }
  }
#endif
  INDEPENDENT
  for (i64 c = done + team.rank(); c < columns; c += team.size()) {
    out[c] = narrow(function(widen(in[c])...));
  }
}

// out[o, i] = x[o, index[i]]: (outer, size, inner) to (outer, count, inner)
KERNEL(take_rows)
(const scalar_t* __restrict__ x, const i64* __restrict__ index, scalar_t* __restrict__ out,
 i64* errors, i64 lowest, i64 outer, i64 size, i64 count, i64 inner) {
  for_each_row(outer * count, [&](auto team, i64 row) {
    const i64 o = outer == 1 ? 0 : row / count;
    const i64 i = checked(index[row - o * count], lowest, size, errors);
    scalar_t* to = out + row * inner;
    if (i >= 0) {
      for_each_column(
          team, inner, [](acc_t v) { return v; }, to, x + (o * size + i) * inner);
    } else {
      for (i64 c = team.rank(); c < inner; c += team.size()) to[c] = narrow(0);
    }
  });
}

// out[index[i]] += values[i], rows of (size, inner) and (count, inner), where `order` sorts the
// indices: sorted[k] = index[order[k]], equal ones in the order they came in. The team that finds
// the first of equal indices adds up all their rows. Index `skipped` is left out.
KERNEL(add_rows_sorted)
(const scalar_t* __restrict__ values, const i64* __restrict__ sorted,
 const i64* __restrict__ order, scalar_t* __restrict__ out, i64* errors, i64 skipped, i64 size,
 i64 count, i64 inner) {
  for_each_row(count, [&](auto team, i64 first) {
    if (first > 0 && sorted[first - 1] == sorted[first]) return;
    const i64 row = checked(sorted[first], 0, size, errors);
    if (row < 0 || row == skipped) return;
    i64 last = first + 1;
    while (last < count && sorted[last] == row) last++;
    scalar_t* to = out + row * inner;
    for (i64 c = team.rank(); c < inner; c += team.size()) {
      acc_t total = widen(to[c]);
      for (i64 k = first; k < last; k++) total += widen(values[order[k] * inner + c]);
      to[c] = narrow(total);
    }
  });
}

// The same for few indices or few rows, without sorting: a warp looks through all indices for
// those of its row. The grid is (rows / 8, tiles of 32 * LANES columns), blocks are (32, 8).
KERNEL(add_rows_searched)
(const scalar_t* __restrict__ values, const i64* __restrict__ index, scalar_t* __restrict__ out,
 i64* errors, i64 lowest, i64 skipped, i64 size, i64 count, i64 inner) {
#if defined(GRADLITE_NATIVE)
  for (i64 i = 0; i < count; i++) {
    const i64 row = checked(index[i], lowest, size, errors);
    if (row < 0 || row == skipped) continue;
    scalar_t* to = out + row * inner;
    const scalar_t* from = values + i * inner;
    INDEPENDENT
    for (i64 c = 0; c < inner; c++) to[c] = narrow(widen(to[c]) + widen(from[c]));
  }
#else
  const int lane = threadIdx.x;
  const bool packed = inner % LANES == 0 && aligned(values, out);
  for (i64 row = i64(blockIdx.x) * 8 + threadIdx.y; row < size; row += i64(gridDim.x) * 8) {
    for (i64 left = i64(blockIdx.y) * 32 * LANES; left < inner;
         left += i64(gridDim.y) * 32 * LANES) {
      // The l-th of a lane's columns is column + l * step.
      const i64 column = left + lane * (packed ? LANES : 1), step = packed ? 1 : 32;
      const bool marks = row == 0 && left == 0;
      acc_t total[LANES] = {};
      for (i64 start = 0; start < count; start += 32) {
        i64 mine = -1;
        if (start + lane < count) {
          mine = index[start + lane];
          if (marks) checked(mine, lowest, size, errors);
          if (mine < 0) mine -= lowest;
        }
        u32 found = __ballot_sync(0xffffffffu, mine == row && mine != skipped);
        while (found != 0) {
          const scalar_t* from = values + (start + __ffs(found) - 1) * inner + column;
          found &= found - 1;
          if (packed) {
            if (column < inner) {
              const Pack pack = reinterpret_cast<const Pack*>(from)[0];
#pragma unroll
              for (int l = 0; l < LANES; l++) total[l] += widen(pack.lane[l]);
            }
          } else {
#pragma unroll
            for (int l = 0; l < LANES; l++) {
              if (column + 32 * l < inner) total[l] += widen(from[32 * l]);
            }
          }
        }
      }
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        const i64 c = column + l * step;
        if (c < inner) {
          scalar_t* to = out + row * inner + c;
          *to = narrow(widen(*to) + total[l]);
        }
      }
    }
  }
#endif
}

// ----------------------------------------------------------------------------------- elements
// out[o, j, c] = x[o, i, c], the index i being at o index_outer + j index_count + c index_inner.
KERNEL(take_along)
(const scalar_t* __restrict__ x, const i64* __restrict__ index, scalar_t* __restrict__ out,
 i64* errors, i64 lowest, i64 outer, i64 size, i64 count, i64 inner, i64 index_outer,
 i64 index_count, i64 index_inner) {
  for_each_place(outer, count, inner, [&](i64 o, i64 j, i64 c, i64 i) {
    const i64 from = index[o * index_outer + j * index_count + c * index_inner];
    const i64 at = checked(from, lowest, size, errors);
    out[i] = at >= 0 ? x[(o * size + at) * inner + c] : narrow(0);
  });
}

// out[o, i, c] += values[o, j, c]. One thread does all j of an (o, c), one after the other.
KERNEL(add_along)
(const scalar_t* __restrict__ values, const i64* __restrict__ index, scalar_t* __restrict__ out,
 i64* errors, i64 lowest, i64 outer, i64 size, i64 count, i64 inner, i64 index_outer,
 i64 index_count, i64 index_inner) {
  for_each_place(outer, 1, inner, [&](i64 o, i64, i64 c, i64) {
    const i64* places = index + o * index_outer + c * index_inner;
#pragma unroll 1
    for (i64 j = 0; j < count; j++) {
      const i64 at = checked(places[j * index_count], lowest, size, errors);
      if (at < 0) continue;
      scalar_t* to = out + (o * size + at) * inner + c;
      *to = narrow(widen(*to) + widen(values[(o * count + j) * inner + c]));
    }
  });
}

// The same by as many threads as there are values.
KERNEL(add_along_atomic)
(const scalar_t* __restrict__ values, const i64* __restrict__ index, acc_t* __restrict__ out,
 i64* errors, i64 lowest, i64 skipped, i64 outer, i64 size, i64 count, i64 inner, i64 index_outer,
 i64 index_count, i64 index_inner) {
  for_each_place(outer, count, inner, [&](i64 o, i64 j, i64 c, i64 i) {
    const i64 from = index[o * index_outer + j * index_count + c * index_inner];
    const i64 at = checked(from, lowest, size, errors);
    if (at < 0 || at == skipped) return;
    atomic_add(out + (o * size + at) * inner + c, widen(values[i]));
  });
}

// Nothing but the check, for what reads or writes at the indices by other means.
KERNEL(check_indices)
(const i64* __restrict__ index, i64* errors, i64 lowest, i64 size, i64 count) {
  for (i64 i = thread_index(); i < count; i += thread_count()) {
    checked(index[i], lowest, size, errors);
  }
}

// out[i, index[i]] = 1, and 0 elsewhere: (count) to (count, classes)
KERNEL(one_hot)
(const i64* __restrict__ index, i64* __restrict__ out, i64* errors, i64 count, i64 classes) {
  for_each_row(count, [&](auto team, i64 row) {
    const i64 hot = checked(index[row], 0, classes, errors);
    for (i64 c = team.rank(); c < classes; c += team.size()) out[row * classes + c] = c == hot;
  });
}
