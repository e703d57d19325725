// Matrix products of which one factor has many zeros; comes after tiles.hpp.
//
// Of images on a black background, counts of words and one-hot rows most numbers are 0. A zero adds
// nothing to a sum, unless it meets an infinity or no number. So where all the rows of a tile have a
// zero the tile leaves that k out, and the result has the same bits.

static constexpr i64 WORTH_A_LOOK = 1 << 20;  // so many multiplications

template <class T>
struct Bits;
template <>
struct Bits<float> {
  typedef u32 type;
  static constexpr u32 infinity = 0x7f800000u;
};
template <>
struct Bits<double> {
  typedef u64 type;
  static constexpr u64 infinity = 0x7ff0000000000000ull;
};
template <class T>
struct BitVector {
  typedef typename Bits<T>::type type __attribute__((vector_size(WIDE), aligned(sizeof(T))));
};

// Whether nearly two thirds of some samples are zeros.
template <class T>
static bool mostly_zeros(const T* a, i64 sm, i64 sk, i64 M, i64 K) {
  int zeros = 0;
  for (u32 i = 0; i < 64; i++) {
    const u32 anywhere = (i + 1) * 2654435769u;
    zeros += a[i64(anywhere >> 16) * M / 65536 * sm + i64(anywhere & 65535) * K / 65536 * sk] == 0;
  }
  return zeros >= 40;
}

template <class T>
static bool all_finite(const T* b, i64 rows, i64 columns, i64 step, i64 along) {
  typedef typename Bits<T>::type U;
  typedef typename BitVector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  constexpr U infinity = Bits<T>::infinity;
  if (along != 1 && step == 1) return all_finite(b, columns, rows, along, step);
  for (i64 r = 0; r < rows; r++) {
    const T* row = b + r * step;
    V found = {};
    U others = 0;
    i64 n = 0;
    if (along == 1) {
      for (; n + L <= columns; n += L) found |= (V)((*(const V*)(row + n) & infinity) == infinity);
    }
    for (; n < columns; n++) others |= (bits<U>(row[n * along]) & infinity) == infinity;
    UNROLLED for (int l = 0; l < L; l++) others |= found[l];
    if (others) return false;
  }
  return true;
}

// For every TILE_PANEL rows of a matrix the k where one of them is no zero, in order.
template <class T>
struct Kept {
  const int *all, *counts;
  i64 K;
  const int* of(i64 tile) const { return all + tile * K; }
  // Whether leaving the others out is worth it for one tile.
  bool fewer(i64 tile) const { return 4 * i64(counts[tile]) < 3 * K; }
};

// The bits of a tile's numbers, for each k, one over the other.
template <class T>
static inline void laid_over(const T* a, i64 sm, i64 sk, i64 K, typename Bits<T>::type* any) {
  typedef typename Bits<T>::type U;
  typedef typename BitVector<T>::type V;
  i64 k = 0;
  if (sk == 1) {
    for (; k + Vector<T>::lanes <= K; k += Vector<T>::lanes) {
      V seen = {};
      UNROLLED for (int m = 0; m < TILE_PANEL; m++) seen |= *(const V*)(a + m * sm + k);
      *(V*)(any + k) = seen;
    }
  }
  for (; k < K; k++) {
    U seen = 0;
    UNROLLED for (int m = 0; m < TILE_PANEL; m++) seen |= bits<U>(a[m * sm + k * sk]);
    any[k] = seen;
  }
}

// False where it would not be worth it for all the tiles together.
template <class T>
static bool keep(const T* a, i64 sm, i64 sk, i64 M, i64 K, Kept<T>& kept) {
  typedef typename Bits<T>::type U;
  const i64 tiles = M / TILE_PANEL;
  U* any = (U*)scratch<2>(K * sizeof(U) + tiles * (K + 1) * sizeof(int));
  int *counts = (int*)(any + K), *all = counts + tiles;
  i64 total = 0;
  for (i64 tile = 0; tile < tiles; tile++) {
    laid_over(a + tile * TILE_PANEL * sm, sm, sk, K, any);
    int count = 0, *ks = all + tile * K;
    for (i64 k = 0; k < K; k++) {
      ks[count] = int(k);
      count += U(any[k] << 1) != 0;  // without the sign
    }
    counts[tile] = count;
    total += count;
  }
  kept = {all, counts, K};
  return 4 * total < 3 * tiles * K;
}

// As `run_of_tile`, over the k before `stop` alone; returns how many they were.
template <class T>
NEVER_INLINE int run_of_kept(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c, i64 sc,
                             const int* ks, int count, i64 stop, const T* bias, bool earlier) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes, ROWS = TILE_PANEL;
  V sum[ROWS][PANEL];
  UNROLLED for (int v = 0; v < PANEL; v++) {
    const V start = bias ? *(const V*)(bias + L * v) : V{};
    UNROLLED for (int m = 0; m < ROWS; m++) sum[m][v] = start;
  }
  int i = 0;
  for (; i < count && ks[i] < stop; i++) {
    const i64 k = ks[i];
    V row[PANEL];
    UNROLLED for (int v = 0; v < PANEL; v++) row[v] = *(const V*)(b + k * sb + v * sv);
    UNROLLED for (int m = 0; m < ROWS; m++) {
      const T value = a[m * sm + k * sk];
      UNROLLED for (int v = 0; v < PANEL; v++) sum[m][v] += value * row[v];
    }
  }
  if (earlier) {
    UNROLLED for (int m = 0; m < ROWS; m++) {
      UNROLLED for (int v = 0; v < PANEL; v++) sum[m][v] += *(const V*)(c + m * sc + L * v);
    }
  }
  UNROLLED for (int m = 0; m < ROWS; m++) {
    UNROLLED for (int v = 0; v < PANEL; v++) *(V*)(c + m * sc + L * v) = sum[m][v];
  }
  return i;
}

// As `tile`, over some k alone, with the same runs.
template <class T>
static inline void tile_of_kept(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c,
                                i64 sc, const int* ks, int count, const T* bias) {
  int done = run_of_kept(a, sm, sk, b, sb, sv, c, sc, ks, count, RUN, bias, false);
  while (done < count) {
    const i64 stop = (ks[done] / RUN + 1) * RUN;
    done += run_of_kept(a, sm, sk, b, sb, sv, c, sc, ks + done, count - done, stop,
                        (const T*)nullptr, true);
  }
}

// As `columns` for PANEL vectors and some tiles, from the first to before the last.
template <class T>
static void kept_columns(const Kept<T>& kept, i64 first, i64 last, const T* a, i64 sm, i64 sk,
                         const T* b, i64 sb, i64 sv, T* c, i64 sc, i64 K, const T* bias) {
  for (i64 t = first; t < last; t++) {
    const T* rows = a + t * TILE_PANEL * sm;
    T* out = c + (t - first) * TILE_PANEL * sc;
    if (kept.fewer(t)) {
      tile_of_kept(rows, sm, sk, b, sb, sv, out, sc, kept.of(t), kept.counts[t], bias);
    } else {
      tile<T, TILE_PANEL, PANEL>(rows, sm, sk, b, sb, sv, out, sc, K, bias);
    }
  }
}

// Rows of B's columns from n on, a vector's behind the other's where they are not so already.
template <class T>
static const T* panel(const T* b, i64 bk, i64 bn, i64 K, i64& sb, i64& sv) {
  constexpr int L = Vector<T>::lanes;
  if (bn == 1 && bk * i64(sizeof(T)) < 4096) {
    sb = bk, sv = L;
    return b;
  }
  T* room = (T*)scratch<3>(PANEL * K * L * sizeof(T));
  for (int v = 0; v < PANEL; v++) turned(b + v * L * bn, bk, bn, room + v * K * L, K);
  sb = L, sv = K * L;
  return room;
}

// The zeros are A's.
template <class T>
static void product_of_kept(const Kept<T>& kept, const T* a, i64 sm, i64 sk, const T* b, i64 bk,
                            i64 bn, T* c, i64 sc, i64 M, i64 N, i64 K, const T* bias) {
  constexpr i64 W = PANEL * Vector<T>::lanes;
  const i64 tiles = M / TILE_PANEL, rest = M - tiles * TILE_PANEL, whole = N / W * W;
  const auto from = [=](i64 n) { return bias ? bias + n : nullptr; };
  parallel(M * N * K >= SHARED, N / W, [=](i64 i) {
    const i64 n = i * W;
    i64 sb, sv;
    const T* own = panel(b + n * bn, bk, bn, K, sb, sv);
    kept_columns(kept, 0, tiles, a, sm, sk, own, sb, sv, c + n, sc, K, from(n));
    columns<T, PANEL>(a + (M - rest) * sm, sm, sk, own, sb, sv, c + (M - rest) * sc + n, sc, rest,
                      K, from(n));
  });
  if (whole < N) {
    T* room = (T*)scratch<3>((PANEL * K + M) * Vector<T>::lanes * sizeof(T));
    part_of_product(a, sm, sk, b + whole * bn, bk, bn, c + whole, sc, M, N - whole, K, room,
                    from(whole));
  }
}

// The zeros are B's: C is made as the transposed product of B's rows and A's, a few rows at a time,
// which are transposed in the nearest cache.
template <class T>
static void turned_product_of_kept(const Kept<T>& kept, const T* a, i64 sm, i64 sk, const T* b,
                                   i64 bk, i64 bn, T* c, i64 sc, i64 M, i64 N, i64 K) {
  constexpr i64 L = Vector<T>::lanes, W = PANEL * L;
  constexpr i64 TILES = L, ROWS = TILES * TILE_PANEL;  // as many rows as vectors hold
  const i64 tiles = N / TILE_PANEL, whole = M / W * W;
  parallel(M * N * K >= SHARED, M / W, [=](i64 i) {
    const i64 m = i * W;
    i64 sb, sv;
    const T* own = panel(a + m * sm, sk, sm, K, sb, sv);
    T* made = (T*)scratch<4>((ROWS * W + W * L) * sizeof(T));
    for (i64 first = 0; first * TILE_PANEL < N; first += TILES) {
      const i64 n = first * TILE_PANEL, last = first + TILES < tiles ? first + TILES : tiles;
      const i64 count = N - n < ROWS ? N - n : ROWS, done = (last - first) * TILE_PANEL;
      kept_columns(kept, first, last, b, bn, bk, own, sb, sv, made, W, K, (const T*)nullptr);
      columns<T, PANEL>(b + (n + done) * bn, bn, bk, own, sb, sv, made + done * W, W, count - done,
                        K, (const T*)nullptr);
      i64 r = 0;
      for (; r + L <= count; r += L) {
        T* rows = made + ROWS * W;
        turned(made + r * W, 1, W, rows, W);
        for (i64 l = 0; l < W; l++) memcpy(c + (m + l) * sc + n + r, rows + l * L, L * sizeof(T));
      }
      for (; r < count; r++) {
        for (i64 l = 0; l < W; l++) c[(m + l) * sc + n + r] = made[r * W + l];
      }
    }
  });
  if (whole < M) {
    T* room = (T*)scratch<3>((PANEL * K + M) * L * sizeof(T));
    part_of_product(a + whole * sm, sm, sk, b, bk, bn, c + whole * sc, sc, M - whole, N, K, room,
                    (const T*)nullptr);
  }
}

// So many rows that the lists of their tiles take no more than some megabytes.
static inline i64 rows_at_once(i64 K) {
  const i64 tiles = (i64(1) << 20) / K;
  return (tiles < 2 ? 2 : tiles) * TILE_PANEL;
}

// Whether the product has been made without its zeros.
template <class T>
static bool product_without_zeros(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c,
                                  i64 sc, i64 M, i64 N, i64 K, const T* bias) {
  constexpr i64 L = Vector<T>::lanes, W = PANEL * L;
  if (M * N * K < WORTH_A_LOOK || K >= i64(1) << 31) return false;
  const i64 most = rows_at_once(K);
  const auto part = [=](i64 m, i64 n, i64 rows, i64 columns) {
    const T *x = a + m * sm, *y = b + n * bn;
    T* z = c + m * sc + n;
    if (product_without_zeros(x, sm, sk, y, bk, bn, z, sc, rows, columns, K, bias)) return;
    T* room = (T*)scratch<3>((PANEL * K + M) * L * sizeof(T));
    part_of_product(x, sm, sk, y, bk, bn, z, sc, rows, columns, K, room, bias);
  };
  Kept<T> kept;
  if (M >= 2 * TILE_PANEL && N >= W && mostly_zeros(a, sm, sk, M, K)) {
    if (M > most) {
      for (i64 m = 0; m < M; m += most) part(m, 0, M - m < most ? M - m : most, N);
      return true;
    }
    if (!keep(a, sm, sk, M, K, kept) || !all_finite(b, K, N, bk, bn)) return false;
    product_of_kept(kept, a, sm, sk, b, bk, bn, c, sc, M, N, K, bias);
    return true;
  }
  if (!bias && N >= 2 * TILE_PANEL && M >= W && mostly_zeros(b, bn, bk, N, K)) {
    if (N > most) {
      for (i64 n = 0; n < N; n += most) part(0, n, M, N - n < most ? N - n : most);
      return true;
    }
    if (!keep(b, bn, bk, N, K, kept) || !all_finite(a, M, K, sm, sk)) return false;
    turned_product_of_kept(kept, a, sm, sk, b, bk, bn, c, sc, M, N, K);
    return true;
  }
  return false;
}
