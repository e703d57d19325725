// Matrix products; comes after prelude.hpp. Compiled once: steps call it through pointers.
//
// C[m, n] = sum over k of A[m, k] B[k, n]: A with any strides, rows of B and C contiguous.
// A tile of C stays in registers while k runs.
#if defined(__AVX512F__)
static constexpr int TILE_1 = 8, TILE_2 = 12, TILE_4 = 6;
#else
static constexpr int TILE_1 = 8, TILE_2 = 6, TILE_4 = 3;
#endif

template <class T, int ROWS, int VECTORS>
static inline void tile(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c, i64 sc,
                        i64 K) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  V sum[ROWS][VECTORS] = {};
  for (i64 k = 0; k < K; k++) {
    V row[VECTORS];
    for (int v = 0; v < VECTORS; v++) row[v] = *(const V*)(b + k * sb + v * sv);
    for (int m = 0; m < ROWS; m++) {
      T value = a[m * sm + k * sk];
      for (int v = 0; v < VECTORS; v++) sum[m][v] += value * row[v];
    }
  }
  for (int m = 0; m < ROWS; m++) {
    for (int v = 0; v < VECTORS; v++) *(V*)(c + m * sc + L * v) = sum[m][v];
  }
}

template <class T, int VECTORS>
static void columns(const T* a, i64 sm, i64 sk, const T* b, i64 sb, i64 sv, T* c, i64 sc, i64 M,
                    i64 K) {
  constexpr int ROWS = VECTORS == 4 ? TILE_4 : VECTORS == 2 ? TILE_2 : TILE_1;
  i64 m = 0;
  for (; m + ROWS <= M; m += ROWS) {
    tile<T, ROWS, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
  }
  if (ROWS > 8 && m + 8 <= M) {
    tile<T, 8, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
    m += 8;
  }
  if (ROWS > 4 && m + 4 <= M) {
    tile<T, 4, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
    m += 4;
  }
  if (ROWS > 2 && m + 2 <= M) {
    tile<T, 2, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
    m += 2;
  }
  for (; m < M; m++) tile<T, 1, VECTORS>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
}

// The last columns, fewer than a vector has lanes: B is copied to a padded panel in `room`, K * L
// elements, and C comes by way of M * L more.
template <class T>
static void last_columns(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc,
                         i64 M, i64 N, i64 K, T* room) {
  constexpr int L = Vector<T>::lanes;
  T *panel = room, *result = room + K * L;
  for (i64 k = 0; k < K; k++) {
    for (int n = 0; n < L; n++) panel[k * L + n] = n < N ? b[k * bk + n * bn] : T(0);
  }
  columns<T, 1>(a, sm, sk, panel, L, L, result, L, M, K);
  for (i64 m = 0; m < M; m++) {
    for (i64 n = 0; n < N; n++) c[m * sc + n] = result[m * L + n];
  }
}

// One or few columns of C, when rows of A and columns of B are contiguous: inner products.
template <class T>
static void inner_products(const T* a, i64 sm, const T* b, i64 bn, T* c, i64 sc, i64 cn, i64 M,
                           i64 N, i64 K) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  for (i64 n = 0; n < N; n++) {
    for (i64 m = 0; m < M; m++) {
      const T *x = a + m * sm, *y = b + n * bn;
      V first = {}, second = {};
      i64 k = 0;
      for (; k + 2 * L <= K; k += 2 * L) {
        first += *(const V*)(x + k) * *(const V*)(y + k);
        second += *(const V*)(x + k + L) * *(const V*)(y + k + L);
      }
      for (; k + L <= K; k += L) first += *(const V*)(x + k) * *(const V*)(y + k);
      first += second;
      T total = 0;
      for (int l = 0; l < L; l++) total += first[l];
      for (; k < K; k++) total += x[k] * y[k];
      c[m * sc + n * cn] = total;
    }
  }
}

// As many columns of K elements as a vector has lanes, side by side.
template <class T>
static inline void turned(const T* b, i64 bk, i64 bn, T* out, i64 K) {
  constexpr int L = Vector<T>::lanes;
  if (bk == 1) {  // which makes the compiler transpose in registers
    for (i64 k = 0; k < K; k++) {
      for (int l = 0; l < L; l++) out[k * L + l] = b[k + l * bn];
    }
  } else {
    for (i64 k = 0; k < K; k++) {
      for (int l = 0; l < L; l++) out[k * L + l] = b[k * bk + l * bn];
    }
  }
}

// `room` holds at least 2 * K * lanes elements, and (K + M) * lanes.
template <class T>
static void part_of_product(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc,
                            i64 M, i64 N, i64 K, T* room) {
  constexpr int L = Vector<T>::lanes;
  i64 n = 0;
  if (bn == 1) {
    for (; n + 4 * L <= N; n += 4 * L) columns<T, 4>(a, sm, sk, b + n, bk, L, c + n, sc, M, K);
    for (; n + 2 * L <= N; n += 2 * L) columns<T, 2>(a, sm, sk, b + n, bk, L, c + n, sc, M, K);
    for (; n + L <= N; n += L) columns<T, 1>(a, sm, sk, b + n, bk, L, c + n, sc, M, K);
  } else {  // B is transposed as it is copied, a vector of columns at a time
    for (; n + 2 * L <= N; n += 2 * L) {
      turned(b + n * bn, bk, bn, room, K);
      turned(b + (n + L) * bn, bk, bn, room + K * L, K);
      columns<T, 2>(a, sm, sk, room, L, K * L, c + n, sc, M, K);
    }
    for (; n + L <= N; n += L) {
      turned(b + n * bn, bk, bn, room, K);
      columns<T, 1>(a, sm, sk, room, L, L, c + n, sc, M, K);
    }
  }
  if (n < N) last_columns(a, sm, sk, b + n * bn, bk, bn, c + n, sc, M, N - n, K, room);
}

// On several threads, where it is worth it.
template <class T>
static void product(const T* a, i64 sm, i64 sk, const T* b, i64 bk, i64 bn, T* c, i64 sc, i64 M,
                    i64 N, i64 K, T* room) {
  if (M * N * K < SHARED || threads() < 2) {
    return part_of_product(a, sm, sk, b, bk, bn, c, sc, M, N, K, room);
  }
  constexpr i64 L = Vector<T>::lanes;
  const i64 columns = bn == 1 ? 4 * L : 2 * L;
  if (N >= 2 * columns) {
    parallel(true, (N + columns - 1) / columns, [=](i64 i) {
      const i64 n = i * columns, count = N - n < columns ? N - n : columns;
      T* own = (T*)scratch((2 * K + M) * L * sizeof(T));
      part_of_product(a, sm, sk, b + n * bn, bk, bn, c + n, sc, M, count, K, own);
    });
    return;
  }
  const i64 rows = M >= 192 ? 48 : 24;
  parallel(true, (M + rows - 1) / rows, [=](i64 i) {
    const i64 m = i * rows, count = M - m < rows ? M - m : rows;
    T* own = (T*)scratch((2 * K + count) * L * sizeof(T));
    part_of_product(a + m * sm, sm, sk, b, bk, bn, c + m * sc, sc, count, N, K, own);
  });
}

extern "C" void* const products[] = {
    (void*)product<float>, (void*)product<double>, (void*)inner_products<float>,
    (void*)inner_products<double>,
};
