// What matrix products are made of; comes after prelude.hpp and shuffles.hpp.
//
// C[m, n] = sum over k of A[m, k] B[k, n]: A with any strides, rows of B and C contiguous.
// A tile of C stays in registers for RUN numbers of every sum. PANEL vectors of columns are made at
// a time, the tiles of one, two and PANEL vectors with as many rows as keep the multipliers busy.
#if defined(__AVX512F__)
static constexpr int PANEL = 4, TILE_1 = 8, TILE_2 = 12, TILE_PANEL = 6;
#else
static constexpr int PANEL = 2, TILE_1 = 8, TILE_2 = 6, TILE_PANEL = TILE_2;
#endif

// One run of the sums of a tile. They start from a bias, the same for every row, or from zeros,
// which nullptr stands for, and are added to those of earlier runs.
template <class T, int ROWS, int VECTORS>
NEVER_INLINE void run_of_tile(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c, i64 sc,
                              i64 K, const T* bias, bool earlier) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  V sum[ROWS][VECTORS];
  UNROLLED for (int v = 0; v < VECTORS; v++) {
    const V start = bias ? *(const V*)(bias + L * v) : V{};
    UNROLLED for (int m = 0; m < ROWS; m++) sum[m][v] = start;
  }
  for (i64 k = 0; k < K; k++) {
    V row[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) row[v] = *(const V*)(b + k * sb + v * sv);
    UNROLLED for (int m = 0; m < ROWS; m++) {
      const T value = a[m * sm + k * sk];
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[m][v] += value * row[v];
    }
  }
  if (earlier) {
    UNROLLED for (int m = 0; m < ROWS; m++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[m][v] += *(const V*)(c + m * sc + L * v);
    }
  }
  UNROLLED for (int m = 0; m < ROWS; m++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) *(V*)(c + m * sc + L * v) = sum[m][v];
  }
}

template <class T, int ROWS, int VECTORS>
static inline void tile(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c, i64 sc, i64 K,
                        const T* bias) {
  i64 k = 0;
  do {
    const i64 count = K - k < RUN ? K - k : RUN;
    run_of_tile<T, ROWS, VECTORS>(a + k * sk, sm, sk, b + k * sb, sb, sv, c, sc, count,
                                  k ? nullptr : bias, k > 0);
    k += RUN;
  } while (k < K);
}

template <class T, int VECTORS>
static void columns(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c, i64 sc, i64 M,
                    i64 K, const T* bias) {
  constexpr int ROWS = VECTORS == PANEL ? TILE_PANEL : VECTORS == 2 ? TILE_2 : TILE_1;
  i64 m = 0;
  for (; m + ROWS <= M; m += ROWS) {
    tile<T, ROWS, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K, bias);
  }
  if (ROWS > 8 && m + 8 <= M) {
    tile<T, 8, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K, bias);
    m += 8;
  }
  if (ROWS > 4 && m + 4 <= M) {
    tile<T, 4, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K, bias);
    m += 4;
  }
  if (ROWS > 2 && m + 2 <= M) {
    tile<T, 2, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K, bias);
    m += 2;
  }
  for (; m < M; m++) {
    tile<T, 1, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K, bias);
  }
}

template <class T, int ROWS>
static inline void inner_rows(const T* a, i64 sm, const T* b, T* c, i64 sc, i64 K) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  double result[ROWS] = {};
  i64 k = 0;
  while (k + L <= K) {
    const i64 stop = K - k < RUN * L ? K : k + RUN * L;
    V sum[ROWS];
    UNROLLED for (int m = 0; m < ROWS; m++) sum[m] = V{};
    for (; k + L <= stop; k += L) {
      const V other = *(const V*)(b + k);
      UNROLLED for (int m = 0; m < ROWS; m++) sum[m] += *(const V*)(a + m * sm + k) * other;
    }
    T part[ROWS];
    totals(sum, part);
    UNROLLED for (int m = 0; m < ROWS; m++) result[m] += part[m];
  }
  for (; k < K; k++) {
    UNROLLED for (int m = 0; m < ROWS; m++) result[m] += a[m * sm + k] * b[k];
  }
  UNROLLED for (int m = 0; m < ROWS; m++) c[m * sc] = T(result[m]);
}

// One or few columns of C, when rows of A and columns of B are contiguous: inner products.
template <class T>
static void inner_products(const T* a, i64 sm, const T* b, i64 bn, T* c, i64 sc, i64 cn, i64 M,
                           i64 N, i64 K) {
  for (i64 n = 0; n < N; n++) {
    i64 m = 0;
    for (; m + 4 <= M; m += 4) {
      inner_rows<T, 4>(a + m * sm, sm, b + n * bn, c + m * sc + n * cn, sc, K);
    }
    for (; m < M; m++) inner_rows<T, 1>(a + m * sm, sm, b + n * bn, c + m * sc + n * cn, sc, K);
  }
}

// The last columns, fewer than a vector has lanes: B is copied to a padded panel in `room`, K * L
// elements, and C comes by way of M * L more.
template <class T>
static void last_columns(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc,
                         i64 M, i64 N, i64 K, T* room, const T* bias) {
  constexpr int L = Vector<T>::lanes;
  if (N * 4 <= L && sk == 1 && bk == 1) {
    inner_products(a, sm, b, bn, c, sc, 1, M, N, K);
    for (i64 m = 0; bias && m < M; m++) {
      for (i64 n = 0; n < N; n++) c[m * sc + n] += bias[n];
    }
    return;
  }
  T *panel = room, *result = room + K * L;
  for (i64 k = 0; k < K; k++) {
    for (int n = 0; n < L; n++) panel[k * L + n] = n < N ? b[k * bk + n * bn] : T(0);
  }
  columns<T, 1>(a, sm, sk, panel, L, L, result, L, M, K, (const T*)nullptr);
  for (i64 m = 0; m < M; m++) {
    for (i64 n = 0; n < N; n++) {
      const T sum = result[m * L + n];
      c[m * sc + n] = bias ? sum + bias[n] : sum;
    }
  }
}

// Whole vectors of columns; returns how many columns there were. B is transposed as it is copied,
// and copied where its rows lie on a page of memory each and are read often.
template <class T, int VECTORS>
static i64 panels(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc, i64 M,
                  i64 N, i64 K, T* room, const T* bias) {
  constexpr int L = Vector<T>::lanes;
  const bool far = bk * i64(sizeof(T)) >= 4096 && M >= 192;
  i64 n = 0;
  for (; n + VECTORS * L <= N; n += VECTORS * L) {
    const T* const start = bias ? bias + n : nullptr;
    if (bn == 1 && !far) {
      columns<T, VECTORS>(a, sm, sk, b + n, bk, L, c + n, sc, M, K, start);
      continue;
    }
    for (int v = 0; v < VECTORS; v++) {
      const T* from = b + (n + v * L) * bn;
      T* to = room + v * K * L;
      if (bn != 1) {
        turned(from, bk, bn, to, K);
      } else {
        for (i64 k = 0; k < K; k++) memcpy(to + k * L, from + k * bk, L * sizeof(T));
      }
    }
    columns<T, VECTORS>(a, sm, sk, room, L, K * L, c + n, sc, M, K, start);
  }
  return n;
}

// `room` holds at least PANEL * K * lanes elements, and (K + M) * lanes, or what `room_for` says.
template <class T>
static void part_of_product(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc,
                            i64 M, i64 N, i64 K, T* room, const T* bias) {
  const auto from = [=](i64 n) { return bias ? bias + n : nullptr; };
  i64 n = panels<T, PANEL>(a, sm, sk, b, bk, bn, c, sc, M, N, K, room, bias);
  if (PANEL > 2) {
    n += panels<T, 2>(a, sm, sk, b + n * bn, bk, bn, c + n, sc, M, N - n, K, room, from(n));
  }
  n += panels<T, 1>(a, sm, sk, b + n * bn, bk, bn, c + n, sc, M, N - n, K, room, from(n));
  if (n < N) last_columns(a, sm, sk, b + n * bn, bk, bn, c + n, sc, M, N - n, K, room, from(n));
}

// Bytes of `room` that a product wants: for copies of B's panels, or for the last columns.
template <class T>
static i64 room_for(i64 M, i64 N, i64 K, i64 sk, i64 bk, i64 bn) {
  constexpr i64 L = Vector<T>::lanes;
  const bool copied = bn != 1 || (bk * i64(sizeof(T)) >= 4096 && M >= 192), odd = N % L != 0;
  const i64 vectors = N >= PANEL * L ? PANEL : N >= 2 * L ? 2 : N / L;
  const i64 panels = copied ? vectors * K * L : 0;
  const i64 rest = odd && !(N % L * 4 <= L && sk == 1 && bk == 1) ? (K + M) * L : 0;
  return (panels > rest ? panels : rest) * sizeof(T);
}
