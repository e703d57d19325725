// The largest or smallest numbers of NumPy's arrays outside of captured steps; comes after
// prelude.hpp and arrays.hpp, compiled for one type of numbers, REAL. One that is no number wins.

static constexpr i64 LANES = Vector<REAL>::lanes, TILE = 1024;
static constexpr i64 WORTH_THREADS = 1 << 20;  // numbers, which take some 100 us
typedef Vector<REAL>::type Lanes;

template <bool LARGEST, class T>
static inline T better(T x, T best) {
  return (LARGEST ? x > best : x < best) ? x : best;
}

// Of n numbers side by side, and of what there was before.
template <bool LARGEST>
static inline REAL extreme_along(const REAL* x, i64 n, REAL best) {
  i64 i = 0;
  int odd = 0;
  if (n >= 4 * LANES) {
    Lanes bests[4];
    auto odds = *(const Lanes*)x != *(const Lanes*)x;
    UNROLLED for (int k = 0; k < 4; k++) bests[k] = *(const Lanes*)(x + k * LANES);
    for (; i + 4 * LANES <= n; i += 4 * LANES) {
      UNROLLED for (int k = 0; k < 4; k++) {
        const Lanes v = *(const Lanes*)(x + i + k * LANES);
        bests[k] = (LARGEST ? v > bests[k] : v < bests[k]) ? v : bests[k];
        odds |= v != v;
      }
    }
    UNROLLED for (int k = 1; k < 4; k++) {
      bests[0] = (LARGEST ? bests[k] > bests[0] : bests[k] < bests[0]) ? bests[k] : bests[0];
    }
    REAL all[LANES];
    int some[LANES];
    for (i64 l = 0; l < LANES; l++) some[l] = odds[l] != 0;
    memcpy(all, &bests[0], sizeof all);
    UNROLLED for (i64 w = LANES / 2; w; w /= 2) {
      UNROLLED for (i64 l = 0; l < w; l++) {
        all[l] = better<LARGEST>(all[l], all[l + w]);
        some[l] |= some[l + w];
      }
    }
    best = better<LARGEST>(all[0], best);
    odd = some[0];
  }
  for (; i < n; i++) {
    best = better<LARGEST>(x[i], best);
    odd |= x[i] != x[i];
  }
  return odd ? REAL(__builtin_nan("")) : best;
}

// x is (before, kept, rows, columns), and what is compared are `before` and the rows.
struct Sizes {
  i64 before, kept, rows, columns;
};

template <bool LARGEST>
static void extremes_along(const Sizes s, const REAL* x, REAL* out) {
  const i64 each = s.before * s.rows, some = each >= TILE ? 1 : TILE / each;
  parallel(s.kept * each >= WORTH_THREADS, (s.kept + some - 1) / some, [=](i64 chunk) {
    const i64 last = (chunk + 1) * some < s.kept ? (chunk + 1) * some : s.kept;
    for (i64 k = chunk * some; k < last; k++) {
      REAL best = x[k * s.rows];
      for (i64 b = 0; b < s.before; b++) {
        const REAL found = extreme_along<LARGEST>(x + (b * s.kept + k) * s.rows, s.rows, best);
        best = best != best ? best : found;
      }
      out[k] = best;
    }
  });
}

template <bool LARGEST>
static void extremes_of_rows(const Sizes s, const REAL* x, REAL* out) {
  const i64 tiles = (s.columns + TILE - 1) / TILE, all = s.before * s.kept * s.rows * s.columns;
  parallel(all >= WORTH_THREADS, s.kept * tiles, [=](i64 chunk) {
    const i64 k = chunk / tiles, first = (chunk - k * tiles) * TILE;
    const i64 width = s.columns - first < TILE ? s.columns - first : TILE;
    REAL best[TILE], odd[TILE];  // 0, or no number
    const REAL* top = x + k * s.rows * s.columns + first;
    LOOP for (i64 c = 0; c < width; c++) {
      best[c] = top[c];
      odd[c] = 0;
    }
    for (i64 b = 0; b < s.before; b++) {
      const REAL* rows = x + (b * s.kept + k) * s.rows * s.columns + first;
      i64 r = 0;
      for (; r + 4 <= s.rows; r += 4) {
        const REAL* row = rows + r * s.columns;
        LOOP for (i64 c = 0; c < width; c++) {
          const REAL *at = row + c, v = at[0], w = at[s.columns];
          const REAL x = at[2 * s.columns], y = at[3 * s.columns];
          const REAL first = better<LARGEST>(v, w), second = better<LARGEST>(x, y);
          best[c] = better<LARGEST>(better<LARGEST>(first, second), best[c]);
          const bool numbers = (v == v) & (w == w) & (x == x) & (y == y);
          odd[c] = numbers ? odd[c] : REAL(__builtin_nan(""));
        }
      }
      for (; r < s.rows; r++) {
        const REAL* row = rows + r * s.columns;
        LOOP for (i64 c = 0; c < width; c++) {
          best[c] = better<LARGEST>(row[c], best[c]);
          odd[c] = row[c] == row[c] ? odd[c] : row[c];
        }
      }
    }
    REAL* const to = out + k * s.columns + first;
    LOOP for (i64 c = 0; c < width; c++) to[c] = odd[c] == odd[c] ? best[c] : odd[c];
  });
}

template <bool LARGEST>
static void extremes_of(const Sizes s, const REAL* x, REAL* out) {
  (s.columns > 1 ? extremes_of_rows<LARGEST> : extremes_along<LARGEST>)(s, x, out);
}

// out (kept, columns). Returns 0, having done nothing, where the arrays are no row-major ones.
extern "C" int extremes(void* array, void* result, const Sizes* sizes, int largest) {
  const ArrayFields *from = fields_of(array, 0), *to = fields_of(result, 0);
  if (!from || !to || !(from->flags & to->flags & ROW_MAJOR)) return 0;
  const Sizes s = *sizes;
  const OthersRun others(s.before * s.kept * s.rows * s.columns >= WORTH_THREADS);
  (largest ? extremes_of<true> : extremes_of<false>)(s, (const REAL*)from->data, (REAL*)to->data);
  return 1;
}
