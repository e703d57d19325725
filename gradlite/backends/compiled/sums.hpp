// Sums of NumPy's arrays outside of captured steps; comes after prelude.hpp and arrays.hpp,
// compiled for one type of numbers, REAL.
//
// A few numbers are added up as they are, in pairs; such sums then in double precision. So the
// error does not grow with their count, and is the same for any number of threads.

#include <type_traits>

static constexpr i64 LANES = Vector<REAL>::lanes;
typedef Vector<REAL>::type Lanes;
typedef double Wide __attribute__((vector_size(LANES * sizeof(double)), aligned(sizeof(double))));

static inline Lanes lanes_at(const REAL* x) { return *(const Lanes*)x; }

// What is added up of each number: the number itself, or the square of its distance from a center.
struct Itself {
  template <class T>
  T of(T x) const { return x; }
};
struct Squared {
  REAL center;
  template <class T>
  T of(T x) const { return (x - center) * (x - center); }
};

// The sum of n numbers side by side, no more than `RUN_ALONG`.
template <class Term>
static inline double short_sum(const REAL* x, i64 n, Term term) {
  i64 i = 0;
  double total = 0;
  if (n >= 8 * LANES) {
    Wide sums = {};
    for (; i + 8 * LANES <= n; i += 8 * LANES) {
      const auto pair = [=](i64 k) {
        const REAL* at = x + i + 2 * k * LANES;
        return term.of(lanes_at(at)) + term.of(lanes_at(at + LANES));
      };
      const Lanes four = pair(0) + pair(1), others = pair(2) + pair(3);
      sums += __builtin_convertvector(four + others, Wide);
    }
    for (i64 l = 0; l < LANES; l++) total += sums[l];
  }
  if (n - i >= LANES) {
    Lanes sums = term.of(lanes_at(x + i));
    for (i += LANES; i + LANES <= n; i += LANES) sums += term.of(lanes_at(x + i));
    double part = 0;
    for (i64 l = 0; l < LANES; l++) part += sums[l];
    total += part;
  }
  double rest = 0;
  for (; i < n; i++) rest += term.of(x[i]);
  return total + rest;
}

static constexpr i64 RUN_ALONG = 1 << 12;

template <class Term = Itself>
static inline double sum_along(const REAL* x, i64 n, Term term = {}) {
  if (n <= RUN_ALONG) return short_sum(x, n, term);
  double total = 0;
  for (i64 i = 0; i < n; i += RUN_ALONG) {
    total += short_sum(x + i, n - i < RUN_ALONG ? n - i : RUN_ALONG, term);
  }
  return total;
}

// total[c] += the sum of x[r * step + c] over r < n, or of its squared distances from center[c].
template <bool SQUARED>
static void add_rows(const REAL* x, i64 n, i64 step, i64 columns, double* total,
                     const REAL* center = nullptr) {
  const auto term = [=](const REAL* own, i64 c) {
    if (!SQUARED) return *own;
    const REAL apart = *own - center[c];
    return apart * apart;
  };
  i64 r = 0;
  for (; r + 8 <= n; r += 8) {
    const REAL* at = x + r * step;
    LOOP for (i64 c = 0; c < columns; c++) {
      const REAL* own = at + c;
      const auto pair = [=](i64 k) {
        return term(own + 2 * k * step, c) + term(own + (2 * k + 1) * step, c);
      };
      total[c] += double((pair(0) + pair(1)) + (pair(2) + pair(3)));
    }
  }
  for (; r < n; r++) {
    LOOP for (i64 c = 0; c < columns; c++) total[c] += term(x + r * step + c, c);
  }
}

static constexpr i64 BLOCK = 1 << 16, TILE = 1024, NARROW = 64;
static constexpr i64 WORTH_THREADS = 1 << 20;  // numbers, which take some 100 us

// Blocks of a fixed length, so that the bits are the same for any number of threads.
template <class Term = Itself>
static double sum_of_all(const REAL* x, i64 n, Term term = {}) {
  const i64 blocks = (n + BLOCK - 1) / BLOCK;
  double* const parts = (double*)scratch<1>(blocks * sizeof(double));
  parallel(n >= WORTH_THREADS, blocks, [=](i64 b) {
    const i64 left = n - b * BLOCK;
    parts[b] = sum_along(x + b * BLOCK, left < BLOCK ? left : BLOCK, term);
  });
  double total = 0;
  for (i64 b = 0; b < blocks; b++) total += parts[b];
  return total;
}

// x is (before, kept, rows, columns), and what is summed are `before` and the rows.
struct Sizes {
  i64 before, kept, rows, columns;
};

// What the sums come to: sums divided by a number, and variances with their means.
struct Results {
  REAL *out, *mean;
  double divisor;
  bool squared, root;

  void write(i64 at, double total) const { out[at] = REAL(total / divisor); }
  // The squares are of distances from the mean rounded, which is less than a place apart.
  void write(i64 at, double total, double mean_of_all, double count) const {
    const double apart = mean_of_all - mean[at];
    const double squares = total - count * apart * apart, least = squares < 0 ? 0 : squares;
    out[at] = REAL(root ? __builtin_sqrt(least / divisor) : least / divisor);
  }
};

static void sums_along(const Sizes s, const REAL* x, const Results to) {
  const i64 each = s.before * s.rows, some = each >= BLOCK ? 1 : BLOCK / each;
  const bool alone = s.kept * s.before == 1;
  parallel(!alone && s.kept * each >= WORTH_THREADS, (s.kept + some - 1) / some, [=](i64 chunk) {
    const i64 last = (chunk + 1) * some < s.kept ? (chunk + 1) * some : s.kept;
    for (i64 k = chunk * some; k < last; k++) {
      const auto sum = [=](auto term) {
        if (alone) return sum_of_all(x, s.rows, term);
        double total = 0;
        for (i64 b = 0; b < s.before; b++) {
          total += sum_along(x + (b * s.kept + k) * s.rows, s.rows, term);
        }
        return total;
      };
      const double total = sum(Itself());
      if (!to.squared) {
        to.write(k, total);
        continue;
      }
      const double mean = total / each;
      to.mean[k] = REAL(mean);
      to.write(k, sum(Squared{to.mean[k]}), mean, each);
    }
  });
}

// Narrow rows go by several at a time, side by side.
static void sums_of_rows(const Sizes s, const REAL* x, const Results to) {
  const i64 together = s.columns < NARROW ? 2 * NARROW / s.columns : 1;
  const i64 tiles = (s.columns + TILE - 1) / TILE, all = s.before * s.kept * s.rows * s.columns;
  parallel(all >= WORTH_THREADS, s.kept * tiles, [=](i64 chunk) {
    const i64 k = chunk / tiles, first = (chunk - k * tiles) * TILE;
    const i64 width = s.columns - first < TILE ? s.columns - first : TILE;
    double total[TILE], mean[TILE];
    REAL center[TILE];
    const auto sum = [&](auto squared) {
      constexpr bool SQUARED = decltype(squared)::value;
      for (i64 c = 0; c < width * together; c++) total[c] = 0;
      for (i64 b = 0; b < s.before; b++) {
        const REAL* at = x + (b * s.kept + k) * s.rows * s.columns + first;
        const i64 steps = s.rows / together, rest = s.rows - steps * together;
        add_rows<SQUARED>(at, steps, s.columns * together, width * together, total, center);
        if (!rest || together == 1) continue;
        add_rows<SQUARED>(at + steps * together * width, rest, width, width, total, center);
      }
      for (i64 t = 1; t < together; t++) {
        for (i64 c = 0; c < width; c++) total[c] += total[t * width + c];
      }
    };
    sum(std::false_type());
    const i64 at = k * s.columns + first;
    if (!to.squared) {
      for (i64 c = 0; c < width; c++) to.write(at + c, total[c]);
      return;
    }
    const double count = s.before * s.rows;
    for (i64 c = 0; c < width; c++) {
      mean[c] = total[c] / count;
      to.mean[at + c] = REAL(mean[c]);
    }
    for (i64 c = 0; c < width * together; c++) center[c] = to.mean[at + c % width];
    sum(std::true_type());
    for (i64 c = 0; c < width; c++) to.write(at + c, total[c], mean[c], count);
  });
}

static int reduced(void* array, void* result, void* means, const Sizes* sizes, Results to) {
  const ArrayFields *from = fields_of(array, 0), *out = fields_of(result, 0);
  const ArrayFields* mean = to.squared ? fields_of(means, 0) : out;
  if (!from || !out || !mean || !(from->flags & out->flags & mean->flags & ROW_MAJOR)) return 0;
  const Sizes s = *sizes;
  to.out = (REAL*)out->data;
  to.mean = (REAL*)mean->data;
  const OthersRun others(s.before * s.kept * s.rows * s.columns >= WORTH_THREADS);
  (s.columns > 1 ? sums_of_rows : sums_along)(s, (const REAL*)from->data, to);
  return 1;
}

// out (kept, columns): the sums, divided by a number. Returns 0, having done nothing, where the
// arrays are no row-major ones of REAL.
extern "C" int sums(void* array, void* out, const Sizes* sizes, double divisor) {
  return reduced(array, out, nullptr, sizes, {nullptr, nullptr, divisor, false, false});
}

// The same of squared distances from the means, which it writes too, or the roots of that.
extern "C" int variances(void* array, void* out, void* mean, const Sizes* sizes, double divisor,
                         int root) {
  return reduced(array, out, mean, sizes, {nullptr, nullptr, divisor, true, root != 0});
}
