// Convolutions of images (N, C, H, W) in row-major order outside of captured steps; comes after
// prelude.hpp, images.hpp and batches.hpp, compiled for one type of numbers, REAL.
//
// A vector holds a pixel of as many images as it has lanes: images are transposed, in registers,
// on their way into the copies of batches.hpp and out of their results. Lanes beyond the last
// image are zero.
#include <utility>

template <class T>
struct Square {
  static constexpr int L = Batch<T>::L;
  typedef typename Batch<T>::V V;
  typedef typename Batch<T>::Loose Loose;
  typedef decltype(V{} == V{}) Places;

  // Of two vectors: the parts of STEP lanes with an even number, or with an odd one, by turns.
  static constexpr int even(int lane, int step) { return lane & step ? L + lane - step : lane; }
  static constexpr int odd(int lane, int step) { return lane & step ? L + lane : lane + step; }
  template <int STEP, size_t... LANES>
  static inline void exchange(V& a, V& b, std::index_sequence<LANES...>) {
#if defined(__clang__)
    const V first = __builtin_shufflevector(a, b, even(LANES, STEP)...);
    b = __builtin_shufflevector(a, b, odd(LANES, STEP)...);
#else
    const V first = __builtin_shuffle(a, b, Places{even(LANES, STEP)...});
    b = __builtin_shuffle(a, b, Places{odd(LANES, STEP)...});
#endif
    a = first;
  }
  template <int STEP>
  static inline void transpose(V* v) {
    for (int i = 0; i < L; i++) {
      if (!(i & STEP)) exchange<STEP>(v[i], v[i + STEP], std::make_index_sequence<L>());
    }
    if constexpr (STEP > 1) transpose<STEP / 2>(v);
  }

  // A pixel of each image, from `count` rows that lie n apart.
  static inline void load(const T* at, i64 n, i64 count, V* v) {
    if (count == L) {
      for (int l = 0; l < L; l++) v[l] = *(const Loose*)(at + l * n);
    } else {
      for (int l = 0; l < L; l++) v[l] = l < count ? *(const Loose*)(at + l * n) : V{};
    }
    transpose<L / 2>(v);
  }
  static inline void store(V* v, T* at, i64 n, i64 count) {
    transpose<L / 2>(v);
    if (count == L) {
      for (int l = 0; l < L; l++) *(Loose*)(at + l * n) = v[l];
    } else {
      for (int l = 0; l < count; l++) *(Loose*)(at + l * n) = v[l];
    }
  }
};

template <class T>
struct Planes {
  static constexpr int KIND = 0;
  const T* at;
  i64 n, c, N;  // strides, and how many images there are
};

// So many pixels of a plane that lie one after the other, to lines of W pixels that lie `pitch`
// apart: the first of them is pixel x of a line.
template <class T>
static inline void spread_out(const T* at, i64 n, i64 count, i64 pixels, i64 W, i64 pitch, T* out) {
  typedef Square<T> S;
  typedef typename S::V V;
  constexpr int L = S::L;
  const i64 skip = (pitch - W) * L;
  i64 x = 0;
  T* to = out;
  i64 p = 0;
  for (; p + L <= pixels; p += L) {
    V v[L];
    S::load(at + p, n, count, v);
    for (int l = 0; l < L; l++) {
      *(V*)to = v[l];
      to += L;
      if (++x == W) {
        x = 0;
        to += skip;
      }
    }
  }
  for (; p < pixels; p++) {
    for (int l = 0; l < L; l++) to[l] = l < count ? at[p + l * n] : T(0);
    to += L;
    if (++x == W) {
      x = 0;
      to += skip;
    }
  }
}

template <class T>
static void gather(const Planes<T>& x, i64 first, i64 C, i64 H, i64 W, i64 top, i64 left, i64 y0,
                   i64 rows, i64 width, T* out, i64 plane) {
  constexpr int L = Batch<T>::L;
  const i64 count = x.N - first < L ? x.N - first : L, pitch = width * L;
  const i64 low = y0 > top ? y0 - top : 0, high = y0 + rows - top < H ? y0 + rows - top : H;
  const i64 from = left > 0 ? left : 0, to = W + left < width ? W + left : width;
  for (i64 c = 0; c < C; c++) {
    T* const lines = out + c * plane;
    if (low >= high || from >= to) {
      memset(lines, 0, rows * pitch * sizeof(T));
      continue;
    }
    const i64 above = low + top - y0;
    memset(lines, 0, above * pitch * sizeof(T));
    memset(lines + (above + high - low) * pitch, 0,
           (rows - above - (high - low)) * pitch * sizeof(T));
    T* line = lines + above * pitch;
    const T* at = x.at + first * x.n + c * x.c + low * W;
    const bool whole = left >= 0 && W + left <= width;
    if (whole) spread_out<T>(at, x.n, count, (high - low) * W, W, width, line + from * L);
    for (i64 y = low; y < high; y++, line += pitch, at += W) {
      memset(line, 0, from * L * sizeof(T));
      if (!whole) spread_out<T>(at + from - left, x.n, count, to - from, to - from, width, line + from * L);
      memset(line + to * L, 0, (width - to) * L * sizeof(T));
    }
  }
}

// The result of some rows, in memory of the thread's own until it is complete.
template <class T, int R, int C>
struct Turned {
  static constexpr int ROWS = R, COLUMNS = C;
  T* y;
  i64 N, O, OH, OW, rows;  // so many rows are made from one copy
  const T* bias;
  T* own() const { return (T*)scratch<2>(O * rows * OW * Batch<T>::L * sizeof(T)); }
  template <int OUTS, int POSITIONS>
  void put(i64, i64 o, i64 row, i64 x, typename Batch<T>::V (&sum)[OUTS][POSITIONS]) const {
    typedef typename Batch<T>::V V;
    V* const to = (V*)own() + (o * rows + row % rows) * OW + x;
    for (int k = 0; k < OUTS; k++) {
      const T add = bias ? bias[o + k] : T(0);
      for (int p = 0; p < POSITIONS; p++) {
        to[k * rows * OW + p / C * OW + p % C] = sum[k][p] + add;
      }
    }
  }
  void finish(i64 first, i64 y0, i64 stop) const {
    typedef Square<T> S;
    typedef typename S::V V;
    constexpr int L = S::L;
    const i64 count = N - first < L ? N - first : L, pixels = (stop - y0) * OW, n = O * OH * OW;
    for (i64 o = 0; o < O; o++) {
      const V* from = (const V*)own() + o * rows * OW;
      T* to = y + first * n + (o * OH + y0) * OW;
      V v[L];
      i64 p = 0;
      for (; p + L <= pixels; p += L) {
        for (int l = 0; l < L; l++) v[l] = from[p + l];
        S::store(v, to + p, n, count);
      }
      for (; p < pixels; p++) {
        for (i64 l = 0; l < count; l++) to[p + l * n] = ((const T*)(from + p))[l];
      }
    }
  }
};

struct Job {
  Slide s;
  i64 xn, xc;             // strides of the images
  i64 so, sc, sh, sw;     // strides of the kernels
  i64 rows;               // how many rows of the result are made from one copy
};

extern "C" void images_convolved(const Job* job, const REAL* x, const REAL* w, const REAL* bias,
                                 REAL* y) {
  const Slide& s = job->s;
  const Planes<REAL> images{x, job->xn, job->xc, s.N};
  Slide whole = s;
  whole.N = (s.N + Batch<REAL>::L - 1) / Batch<REAL>::L * Batch<REAL>::L;
  char* const room = scratch<3>(up(s.taps() * 8) + s.taps() * s.O * sizeof(REAL));
  const i64 rows = job->rows;
  if (s.OH % 2 == 0 && s.OW % 2 == 0) {
    const Turned<REAL, 2, 2> sink{y, s.N, s.O, s.OH, s.OW, rows, bias};
    convolve_batch<REAL>(whole, images, w, job->so, job->sc, job->sh, job->sw, sink, rows, room);
  } else {
    const Turned<REAL, 1, 4> sink{y, s.N, s.O, s.OH, s.OW, rows, bias};
    convolve_batch<REAL>(whole, images, w, job->so, job->sc, job->sh, job->sw, sink, rows, room);
  }
}

// The gradient of kernels (O, C, KH, KW); `so` and `sc` are the strides of the result's gradient.
extern "C" void kernels_gradient(const Job* job, const REAL* x, const REAL* g, REAL* dw) {
  Slide s = job->s;
  const Planes<REAL> images{x, job->xn, job->xc, s.N}, grads{g, job->so, job->sc, s.N};
  s.N = (s.N + Batch<REAL>::L - 1) / Batch<REAL>::L * Batch<REAL>::L;
  weight_gradient_batch<REAL>(s, images, grads, dw, job->rows, scratch<3>(up(s.taps() * 8)));
}
