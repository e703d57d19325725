// Convolutions of images (N, C, H, W) in row-major order outside of captured steps; comes after
// prelude.hpp, images.hpp and batches.hpp, compiled for one type of numbers, REAL.
//
// A vector holds a pixel of as many images as it has lanes: images are transposed, in registers,
// on their way into the copies of batches.hpp and out of their results. Lanes beyond the last
// image are zero.
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

// Results of some rows in memory of the thread's own, vector by vector, until they are complete.
template <class T, int R, int C>
struct Turned {
  static constexpr int ROWS = R, COLUMNS = C;
  typedef typename Batch<T>::V V;
  T* y;
  i64 N, O, OH, OW, rows;  // so many rows are made from one copy
  const T* bias;
  V* own = nullptr;
  i64 y0 = 0;
  Turned from(const Slide&, i64, i64 row) const {
    Turned block = *this;
    block.own = (V*)scratch<2>(O * rows * OW * sizeof(V));
    block.y0 = row;
    return block;
  }
  template <int OUTS, int POSITIONS>
  void put(i64, i64 o, i64 row, i64 x, V (&sum)[OUTS][POSITIONS]) const {
    V* const to = own + (o * rows + row - y0) * OW + x;
    for (int k = 0; k < OUTS; k++) {
      const T add = bias ? bias[o + k] : T(0);
      for (int p = 0; p < POSITIONS; p++) {
        to[k * rows * OW + p / C * OW + p % C] = sum[k][p] + add;
      }
    }
  }
  void finish(i64 first, i64 stop) const {
    const i64 count = N - first < Batch<T>::L ? N - first : Batch<T>::L, n = O * OH * OW;
    for (i64 o = 0; o < O; o++) {
      put_down<T>(own + o * rows * OW, (stop - y0) * OW, y + first * n + (o * OH + y0) * OW, n,
                  count);
    }
  }
};

// The maxima of windows of 2 x 2 after relu and their winners; see `Pooled`. Whole vectors only.
template <class T>
struct TurnedMaxima {
  static constexpr int ROWS = 2, COLUMNS = 2;
  typedef typename Batch<T>::V V;
  typedef typename Batch<T>::Places Places;
  T* y;
  u8* winners;
  i64 O, H, W, rows;  // sizes of the maxima, rows of pixels that are made from one copy
  const T* bias;
  V* own = nullptr;
  i64 y0 = 0;
  TurnedMaxima from(const Slide&, i64, i64 row) const {
    TurnedMaxima block = *this;
    block.own = (V*)scratch<2>(2 * O * (rows / 2) * W * sizeof(V));
    block.y0 = row;
    return block;
  }
  template <int OUTS, int POSITIONS>
  void put(i64, i64 o, i64 row, i64 x, V (&sum)[OUTS][POSITIONS]) const {
    V* to = own + (o * rows / 2 + (row - y0) / 2) * W + x / 2;
    V* const which_to = to + O * (rows / 2) * W;
    for (int k = 0; k < OUTS; k++) {
      V best = sum[k][0];
      Places which{};
      for (int p = 1; p < POSITIONS; p++) {
        const V value = sum[k][p];
        const Places wins = (value > best) | (value != value);
        best = wins ? value : best;
        which = wins ? Places{} + p : which;
      }
      best += bias ? bias[o + k] : T(0);
      to[k * (rows / 2) * W] = best < T(0) ? V{} : best;
      which_to[k * (rows / 2) * W] = (V)which;
    }
  }
  void finish(i64 first, i64 stop) const {
    typedef Square<T> S;
    constexpr int L = S::L;
    const i64 n = O * H * W, pixels = (stop - y0) / 2 * W;
    for (i64 o = 0; o < O; o++) {
      const i64 place = first * n + (o * H + y0 / 2) * W;
      const V* from = own + o * (rows / 2) * W;
      put_down<T>(from, pixels, y + place, n, L);
      from += O * (rows / 2) * W;
      u8* to = winners + place;
      V v[L];
      for (i64 p = 0; p < pixels;) {
        if (pixels < L) {
          for (int l = 0; l < L; l++) to[p + l * n] = u8(((Places)from[p])[l]);
          p++;
          continue;
        }
        p = p + L > pixels ? pixels - L : p;
        for (int l = 0; l < L; l++) v[l] = from[p + l];
        S::template transpose<L / 2>(v);
        for (int l = 0; l < L; l++) Batch<T>::store((Places)v[l], to + p + l * n);
        p += L;
      }
    }
  }
};

// The gradient of maxima of windows of 2 x 2: a window's gradient where its winner is.
template <class T>
struct SpreadPlanes {
  static constexpr int KIND = 1;
  const T* g;
  const u8* winners;
  i64 n, H, W;  // the stride from image to image, sizes of the maxima
};

template <class T>
static void gather(const SpreadPlanes<T>& x, i64 first, i64 C, i64, i64, i64 top, i64 left, i64 y0,
                   i64 rows, i64 width, T* out, i64 plane) {
  typedef Square<T> S;
  typedef typename S::V V;
  typedef typename Batch<T>::Places Places;
  constexpr int L = S::L;
  const i64 low = y0 > top ? y0 - top : 0, end = y0 + rows - top;
  const i64 high = end < 2 * x.H ? end : 2 * x.H;
  const i64 from = low / 2, pixels = low < high ? ((high - 1) / 2 - from + 1) * x.W : 0;
  V* const values = (V*)scratch<4>(2 * (pixels + L) * sizeof(V));
  V* const places = values + pixels + L;
  for (i64 c = 0; c < C; c++) {
    T* const lines = out + c * plane;
    const i64 above = low < high ? low + top - y0 : rows;
    memset(lines, 0, above * width * sizeof(V));
    const i64 place = first * x.n + (c * x.H + from) * x.W;
    for (i64 p = 0; p < pixels;) {
      if (pixels < L) {
        Places which;
        for (int l = 0; l < L; l++) {
          values[p][l] = x.g[place + p + l * x.n];
          which[l] = x.winners[place + p + l * x.n];
        }
        places[p++] = (V)which;
        continue;
      }
      p = p + L > pixels ? pixels - L : p;
      S::load(x.g + place + p, x.n, L, values + p);
      const u8* winners = x.winners + place + p;
      for (int l = 0; l < L; l++) {
        places[p + l] = (V)Batch<T>::places(winners + l * x.n);
      }
      S::template transpose<L / 2>(places + p);
      p += L;
    }
    V* to = (V*)lines + above * width;
    for (i64 y = low; y < high; y++) {
      const V* value = values + (y / 2 - from) * x.W;
      const V* place_of = places + (y / 2 - from) * x.W;
      const int number = int(y % 2 * 2);
      for (i64 i = 0; i < left; i++) *to++ = V{};
      for (i64 i = 0; i < x.W; i++, to += 2) {
        const Places which = (Places)place_of[i];
        to[0] = which == number ? value[i] : V{};
        to[1] = which == number + 1 ? value[i] : V{};
      }
      for (i64 i = left + 2 * x.W; i < width; i++) *to++ = V{};
    }
    for (V* const end_of = (V*)lines + rows * width; to < end_of; to++) *to = V{};
  }
}

struct Job {
  Slide s;
  i64 xn, xc;          // strides of the images
  i64 so, sc, sh, sw;  // strides of the kernels
  i64 gn, gc, GH, GW;  // strides of the gradient; sizes of that of maxima
  i64 rows;            // how many rows of the result are made from one copy
};

// The sizes with lanes for images beyond the last one.
static inline Slide filled(Slide s) {
  s.N = (s.N + Batch<REAL>::L - 1) / Batch<REAL>::L * Batch<REAL>::L;
  return s;
}

template <class Source, class Sink>
static void convolved(const Job* job, const Source& x, const REAL* w, const Sink& sink) {
  const Slide s = filled(job->s);
  char* const room = scratch<3>(up(s.taps() * 8) + s.taps() * s.O * sizeof(REAL));
  convolve_batch<REAL>(s, x, w, job->so, job->sc, job->sh, job->sw, sink, job->rows, room);
}

template <int R, int C>
static Turned<REAL, R, C> images(const Slide& s, i64 rows, const REAL* bias, REAL* y) {
  return {y, s.N, s.O, s.OH, s.OW, rows, bias};
}

template <class Grads>
static void kernels_of(const Job* job, const REAL* x, const Grads& g, REAL* dw) {
  const Slide s = filled(job->s);
  const Planes<REAL> images{x, job->xn, job->xc, job->s.N};
  weight_gradient_batch<REAL>(s, images, g, dw, job->rows, scratch<3>(up(s.taps() * 8)));
}

static SpreadPlanes<REAL> spread(const Job* job, const REAL* g, const u8* winners) {
  return {g, winners, job->gn, job->GH, job->GW};
}

extern "C" {
int vector_bytes = WIDE;
// y = x * w + bias
void images_convolved(const Job* job, const REAL* x, const REAL* w, const REAL* bias, REAL* y) {
  const Slide& s = job->s;
  const Planes<REAL> source{x, job->xn, job->xc, s.N};
  if (s.OH % 2 == 0 && s.OW % 2 == 0) {
    convolved(job, source, w, images<2, 2>(s, job->rows, bias, y));
  } else {
    convolved(job, source, w, images<1, 4>(s, job->rows, bias, y));
  }
}
// y = the maxima of windows of 2 x 2 of relu(x * w + bias)
void maxima_of_convolved(const Job* job, const REAL* x, const REAL* w, const REAL* bias, REAL* y,
                         u8* winners) {
  const Slide& s = job->s;
  convolved(job, Planes<REAL>{x, job->xn, job->xc, s.N}, w,
            TurnedMaxima<REAL>{y, winners, s.O, s.OH / 2, s.OW / 2, job->rows, bias});
}
// y = the gradient of such maxima, spread over the windows, * w; of even height and width
void spread_convolved(const Job* job, const REAL* g, const u8* winners, const REAL* w, REAL* y) {
  convolved(job, spread(job, g, winners), w, images<2, 2>(job->s, job->rows, nullptr, y));
}
// dw = the gradient of kernels (O, C, KH, KW)
void kernels_gradient(const Job* job, const REAL* x, const REAL* g, REAL* dw) {
  kernels_of(job, x, Planes<REAL>{g, job->gn, job->gc, job->s.N}, dw);
}
void spread_kernels_gradient(const Job* job, const REAL* x, const REAL* g, const u8* winners,
                             REAL* dw) {
  kernels_of(job, x, spread(job, g, winners), dw);
}
}
