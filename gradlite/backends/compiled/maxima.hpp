// Max-pooling of planes (N, H, W) in row-major order by windows of 2 x 2 that do not overlap, outside
// of captured steps; comes after prelude.hpp and images.hpp, compiled for one type of numbers, REAL.
#include <utility>

static constexpr i64 WORTH = 1 << 20;  // so many pixels are worth a second thread

// N windows side by side.
template <class T, int N>
struct Row {
  typedef T V __attribute__((vector_size(N * sizeof(T)), aligned(sizeof(T))));
  typedef decltype(V{} == V{}) Places;
#if defined(__clang__)
#define CHOSEN(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define CHOSEN(a, b, ...) __builtin_shuffle(a, b, Places{__VA_ARGS__})
#endif
  // Of numbers side by side, each second one from place `first` on.
  template <size_t... I>
  static inline V second(const T* at, std::index_sequence<I...>) {
    const V a = *(const V*)at, b = *(const V*)(at + N);
    return CHOSEN(a, b, (2 * int(I))...);
  }
  template <size_t... I>
  static inline V other(const T* at, std::index_sequence<I...>) {
    const V a = *(const V*)at, b = *(const V*)(at + N);
    return CHOSEN(a, b, (2 * int(I) + 1)...);
  }
  // Two vectors' numbers by turns.
  template <size_t... I>
  static inline void by_turns(V a, V b, T* to, std::index_sequence<I...>) {
    *(V*)to = CHOSEN(a, b, (int(I) / 2 + int(I) % 2 * N)...);
    *(V*)(to + N) = CHOSEN(a, b, (int(I) / 2 + int(I) % 2 * N + N / 2)...);
  }
#undef CHOSEN

  // The first of equal elements wins, and the last NaN.
  static inline void fold(V value, int number, V& best, Places& which) {
    const Places wins = (value > best) | (value != value);
    best = wins ? value : best;
    which = wins ? Places{} + number : which;
  }
  static inline void pool(const T* a, const T* b, T* y, u8* winners) {
    const std::make_index_sequence<N> all;
    V best = second(a, all);
    Places which{};
    fold(other(a, all), 1, best, which);
    fold(second(b, all), 2, best, which);
    fold(other(b, all), 3, best, which);
    *(V*)y = best;
    to_bytes<N>(which, winners);
  }
  static inline void scatter(const T* g, const u8* winners, T* a, T* b) {
    const std::make_index_sequence<N> all;
    const V value = *(const V*)g;
    const Places which = from_bytes<N, Places>(winners);
    by_turns(which == 0 ? value : V{}, which == 1 ? value : V{}, a, all);
    by_turns(which == 2 ? value : V{}, which == 3 ? value : V{}, b, all);
  }
};

template <class T>
struct Row<T, 1> {
  static inline void pool(const T* a, const T* b, T* y, u8* winners) {
    T best = a[0];
    int which = 0;
    const T values[] = {a[1], b[0], b[1]};
    for (int k = 0; k < 3; k++) {
      const bool wins = (values[k] > best) | (values[k] != values[k]);
      best = wins ? values[k] : best;
      which = wins ? k + 1 : which;
    }
    *y = best;
    *winners = u8(which);
  }
  static inline void scatter(const T* g, const u8* winners, T* a, T* b) {
    for (int k = 0; k < 4; k++) (k < 2 ? a : b)[k % 2] = *winners == k ? *g : T(0);
  }
};

// Call body(first, size) for the windows of a row, 8, 4 or 1 at once; the last ones perhaps again.
template <class Body>
static inline void row_of(i64 n, const Body& body) {
  if (n >= 8) {
    for (i64 j = 0; j < n; j += 8) body(j + 8 > n ? n - 8 : j, std::integral_constant<int, 8>());
  } else if (n >= 4) {
    body(0, std::integral_constant<int, 4>());
    if (n > 4) body(n - 4, std::integral_constant<int, 4>());
  } else {
    for (i64 j = 0; j < n; j++) body(j, std::integral_constant<int, 1>());
  }
}

extern "C" void max_pool(const i64* sizes, const REAL* x, REAL* y, u8* winners) {
  const i64 N = sizes[0], H = sizes[1], W = sizes[2], OH = H / 2, OW = W / 2;
  parallel(N * H * W >= WORTH, N, [=](i64 n) {
    for (i64 i = 0; i < OH; i++) {
      const REAL *a = x + (n * H + 2 * i) * W, *b = a + W;
      const i64 row = (n * OH + i) * OW;
      row_of(OW, [=](i64 j, auto size) {
        Row<REAL, size>::pool(a + 2 * j, b + 2 * j, y + row + j, winners + row + j);
      });
    }
  });
}

// Zeros with each window's value at its winner.
extern "C" void max_pool_scatter(const i64* sizes, const REAL* g, const u8* winners, REAL* out) {
  const i64 N = sizes[0], H = sizes[1], W = sizes[2], OH = H / 2, OW = W / 2;
  parallel(N * H * W >= WORTH, N, [=](i64 n) {
    for (i64 i = 0; i < OH; i++) {
      const i64 row = (n * OH + i) * OW;
      REAL *a = out + (n * H + 2 * i) * W, *b = a + W;
      row_of(OW, [=](i64 j, auto size) {
        Row<REAL, size>::scatter(g + row + j, winners + row + j, a + 2 * j, b + 2 * j);
      });
      if (W % 2) a[W - 1] = b[W - 1] = 0;
    }
    if (H % 2) memset(out + (n * H + H - 1) * W, 0, W * sizeof(REAL));
  });
}
