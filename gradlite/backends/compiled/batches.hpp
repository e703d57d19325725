// Convolutions of batches whose size is a multiple of a vector's lanes, each lane another image;
// comes after prelude.hpp, shuffles.hpp and images.hpp. Compiled once: steps call it through pointers.
//
// The pixels that some rows of the result need are copied, padded, to (C, rows, width, lanes). Then
// every step of every sum is one multiplication of whole vectors, whatever stride, padding and
// size are, and pooling and activations see pixels that lie side by side in registers. Images may
// have any strides; the order (C, H, W, N) is copied fastest.

#include <utility>

#if defined(__AVX512F__)
static constexpr int MANY_OUTS = 4, MANY_GRADS = 4, MANY_TAPS = 6;
#else
static constexpr int MANY_OUTS = 2, MANY_GRADS = 3, MANY_TAPS = 3;
#endif

// As many vectors as they have lanes, exchanged with their lanes.
template <class T>
struct Square {
  static constexpr int L = Batch<T>::L;
  typedef typename Batch<T>::V V;
  typedef typename Batch<T>::Loose Loose;
  typedef typename Batch<T>::Places Places;

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

// So many pixels of each plane, to where they belong in planes n apart.
template <class T>
static inline void put_down(const typename Batch<T>::V* from, i64 pixels, T* to, i64 n, i64 count) {
  typedef Square<T> S;
  typename S::V v[S::L];
  for (i64 p = 0; p < pixels;) {
    if (pixels < S::L) {
      for (i64 l = 0; l < count; l++) to[p + l * n] = ((const T*)(from + p))[l];
      p++;
      continue;
    }
    p = p + S::L > pixels ? pixels - S::L : p;
    for (int l = 0; l < S::L; l++) v[l] = from[p + l];
    S::store(v, to + p, n, count);
    p += S::L;
  }
}

// The same to pixels that lie w apart, as those of one phase of a stride do.
template <class T>
static inline void apart(const typename Batch<T>::V* from, i64 pixels, T* to, i64 n, i64 w) {
  typedef Square<T> S;
  typename S::V v[S::L];
  for (i64 p = 0; p < pixels; p += S::L) {
    const int many = pixels - p < S::L ? int(pixels - p) : S::L;
    for (int l = 0; l < S::L; l++) v[l] = from[p + (l < many ? l : 0)];
    S::template transpose<S::L / 2>(v);
    for (int l = 0; l < S::L; l++) {
      for (int i = 0; i < many; i++) to[l * n + (p + i) * w] = v[l][i];
    }
  }
}
template <class T, int R, int C>
void Plain<T, R, C>::finish(i64 first, i64 stop) const {
  if (!own) return;
  const bool whole = h == OW * w;
  for (i64 o = 0; o < O; o++) {
    for (i64 y = y0; y < stop; y += whole ? stop - y0 : 1) {
      const i64 pixels = whole ? (stop - y0) * OW : OW;
      const V* from = own + (o * rows + y - y0) * OW;
      T* const to = at + first * n + o * c + y * h;
      if (w == 1) {
        put_down<T>(from, pixels, to, n, Batch<T>::L);
      } else {
        apart<T>(from, pixels, to, n, w);
      }
    }
  }
}

// Rows of the padded images, the first of them row y0 of the result's windows.
template <class T, class Source>
static void gather(const Source& x, i64 first, i64 C, i64 H, i64 W, i64 top, i64 left, i64 y0,
                   i64 rows, i64 width, T* out, i64 plane) {
  constexpr int L = Batch<T>::L;
  const i64 from = left > 0 ? left : 0, to = W + left < width ? W + left : width;
  for (i64 c = 0; c < C; c++) {
    for (i64 r = 0; r < rows; r++) {
      const i64 y = y0 + r - top;
      T* line = out + c * plane + r * width * L;
      if (y < 0 || y >= H || from >= to) {
        memset(line, 0, width * L * sizeof(T));
        continue;
      }
      memset(line, 0, from * L * sizeof(T));
      x.line(first, c, y, from - left, to - left, line + from * L);
      memset(line + to * L, 0, (width - to) * L * sizeof(T));
    }
  }
}

// One run of the sums of a tile: of products with some elements of the kernels.
template <class T, int OUTS, int POSITIONS, class Sink>
static inline void batch_run(const T* w, i64 count, const T* at, const i64* offsets, i64 down,
                             i64 along, typename Batch<T>::V (&sum)[OUTS][POSITIONS]) {
  typedef typename Batch<T>::V V;
  UNROLLED for (int o = 0; o < OUTS; o++) {
    UNROLLED for (int p = 0; p < POSITIONS; p++) sum[o][p] = V{};
  }
  for (i64 k = 0; k < count; k++) {
    const T* tap = at + offsets[k];
    V pixels[POSITIONS];
    UNROLLED for (int p = 0; p < POSITIONS; p++) {
      pixels[p] = *(const V*)(tap + p / Sink::COLUMNS * down + p % Sink::COLUMNS * along);
    }
    UNROLLED for (int o = 0; o < OUTS; o++) {
      const T value = w[k * OUTS + o];
      UNROLLED for (int p = 0; p < POSITIONS; p++) sum[o][p] += value * pixels[p];
    }
  }
}

// The runs after the first.
template <class T, int OUTS, int POSITIONS, class Sink>
NEVER_INLINE void batch_runs(const T* w, i64 K, const T* at, const i64* offsets, i64 down, i64 along,
                             typename Batch<T>::V (&total)[OUTS][POSITIONS]) {
  typedef typename Batch<T>::V V;
  for (i64 k = RUN; k < K; k += RUN) {
    V sum[OUTS][POSITIONS];
    batch_run<T, OUTS, POSITIONS, Sink>(w + k * OUTS, K - k < RUN ? K - k : RUN, at, offsets + k,
                                        down, along, sum);
    for (int o = 0; o < OUTS; o++) {
      for (int p = 0; p < POSITIONS; p++) total[o][p] = k > RUN ? total[o][p] + sum[o][p] : sum[o][p];
    }
  }
}

template <class T, int OUTS, int POSITIONS, class Sink>
static inline void batch_tile(const T* w, i64 K, const T* at, const i64* offsets, i64 down,
                              i64 along, const Sink& sink, i64 first, i64 o, i64 y, i64 x) {
  typedef typename Batch<T>::V V;
  V sum[OUTS][POSITIONS];
  batch_run<T, OUTS, POSITIONS, Sink>(w, K < RUN ? K : RUN, at, offsets, down, along, sum);
  if (K > RUN) {
    V others[OUTS][POSITIONS];
    batch_runs<T, OUTS, POSITIONS, Sink>(w, K, at, offsets, down, along, others);
    UNROLLED for (int o = 0; o < OUTS; o++) {
      UNROLLED for (int p = 0; p < POSITIONS; p++) sum[o][p] += others[o][p];
    }
  }
  sink.template put<OUTS, POSITIONS>(first, o, y, x, sum);
}

// Outputs in tiles of almost the same size, at most `most`: small ones wait for memory.
struct Tiles {
  int size, larger;  // the first `larger` tiles have one more
  Tiles(i64 n, int most) {
    const i64 tiles = (n + most - 1) / most;
    size = int(n / tiles);
    larger = int(n % tiles);
  }
  int of(i64 number) const { return size + (number < larger); }
};

template <class T, int OUTS, int POSITIONS, class Sink>
static inline void batch_outs(int outs, const T* w, i64 K, const T* at, const i64* offsets, i64 down,
                              i64 along, const Sink& sink, i64 first, i64 o, i64 y, i64 x) {
  if constexpr (OUTS > 1) {
    if (outs < OUTS) {
      return batch_outs<T, OUTS - 1, POSITIONS>(outs, w, K, at, offsets, down, along, sink, first, o,
                                                y, x);
    }
  }
  batch_tile<T, OUTS, POSITIONS>(w, K, at, offsets, down, along, sink, first, o, y, x);
}

template <class T, int POSITIONS, class Sink>
static void batch_position(const Slide& s, const Tiles& tiles, const T* w, const T* at,
                           const i64* offsets, i64 down, i64 along, const Sink& sink, i64 first,
                           i64 y, i64 x) {
  const i64 K = s.taps();
  for (i64 o = 0, number = 0; o < s.O; number++) {
    const int outs = tiles.of(number);
    batch_outs<T, MANY_OUTS, POSITIONS>(outs, w + o * K, K, at, offsets, down, along, sink, first, o,
                                        y, x);
    o += outs;
  }
}

static inline i64 rows_read(const Slide& s, i64 rows) { return (rows - 1) * s.SH + s.DH * (s.KH - 1) + 1; }
static inline i64 columns_read(const Slide& s) { return (s.OW - 1) * s.SW + s.DW * (s.KW - 1) + 1; }

static void taps_of(const Slide& s, i64 plane, i64 L, i64* offsets) {
  for (i64 c = 0, k = 0; c < s.C; c++) {
    for (i64 i = 0; i < s.KH; i++) {
      for (i64 j = 0; j < s.KW; j++) {
        offsets[k++] = c * plane + (i * s.DH * columns_read(s) + j * s.DW) * L;
      }
    }
  }
}

// The kernels (O, C, KH, KW) with those of one tile side by side; `w` has any strides.
template <class T>
static void arrange(const Slide& s, const T* w, i64 so, i64 sc, i64 sh, i64 sw, T* out) {
  const i64 K = s.taps();
  const Tiles tiles(s.O, MANY_OUTS);
  for (i64 o = 0, number = 0; o < s.O; number++) {
    const int outs = tiles.of(number);
    for (i64 c = 0, k = 0; c < s.C; c++) {
      for (i64 i = 0; i < s.KH; i++) {
        for (i64 j = 0; j < s.KW; j++, k++) {
          for (i64 b = 0; b < outs; b++) {
            out[o * K + k * outs + b] = w[(o + b) * so + c * sc + i * sh + j * sw];
          }
        }
      }
    }
    o += outs;
  }
}

// Sums of products of the kernels with the images, handed to a sink. `rows` of the result are made
// from one copy. `room` has the offsets and the kernels.
template <class T, class Source, class Sink>
static void convolve_batch(const Slide& s, const Source& x, const T* w, i64 so, i64 sc, i64 sh,
                           i64 sw, const Sink& sink, i64 rows, char* room) {
  constexpr int L = Batch<T>::L;
  const i64 K = s.taps(), width = columns_read(s), plane = rows_read(s, rows) * width * L;
  i64* offsets = (i64*)room;
  T* kernels = (T*)(room + up(K * 8));
  taps_of(s, plane, L, offsets);
  arrange(s, w, so, sc, sh, sw, kernels);
  const i64 down = s.SH * width * L, along = s.SW * L;
  const i64 blocks = (s.OH + rows - 1) / rows;
  const Tiles tiles(s.O, MANY_OUTS);
  parallel(s.N * s.OH * s.OW * s.O * K >= SHARED, s.N / L * blocks, [=](i64 number) {
    const i64 first = number / blocks * L, y0 = number % blocks * rows;
    const i64 stop = y0 + rows < s.OH ? y0 + rows : s.OH;
    T* const copy = (T*)scratch(s.C * plane * sizeof(T));
    gather<T>(x, first, s.C, s.H, s.W, s.top, s.left, y0 * s.SH, rows_read(s, stop - y0), width,
              copy, plane);
    const Sink block = sink.from(s, rows, y0);
    for (i64 y = y0; y + Sink::ROWS <= stop; y += Sink::ROWS) {
      const T* line = copy + (y - y0) * down;
      i64 c = 0;
      for (; c + Sink::COLUMNS <= s.OW; c += Sink::COLUMNS) {
        batch_position<T, Sink::ROWS * Sink::COLUMNS>(s, tiles, kernels, line + c * along, offsets,
                                                      down, along, block, first, y, c);
      }
      if (Sink::ROWS == 1) {  // two rows are asked for where all windows are whole
        for (; c < s.OW; c++) {
          batch_position<T, 1>(s, tiles, kernels, line + c * along, offsets, down, along, block,
                               first, y, c);
        }
      }
    }
    block.finish(first, stop);
  });
}

template <class T, int OUTS, int TAPS>
static inline void grad_tile(const Slide& s, const T* g, i64 grads, const T* copy,
                             const i64* offsets, i64 rows, typename Batch<T>::V* total) {
  typedef typename Batch<T>::V V;
  constexpr int L = Batch<T>::L;
  const i64 K = s.taps(), down = s.SH * columns_read(s) * L, along = s.SW * L;
  V sum[OUTS][TAPS];
  UNROLLED for (int o = 0; o < OUTS; o++) {
    UNROLLED for (int k = 0; k < TAPS; k++) sum[o][k] = total[o * K + k];
  }
  const T* at[TAPS];
  UNROLLED for (int k = 0; k < TAPS; k++) at[k] = copy + offsets[k];
  for (i64 y = 0; y < rows; y++) {
    const T* one = g + y * s.OW * L;
    for (i64 x = 0, i = y * down; x < s.OW; x++, i += along) {
      V own[OUTS];
      UNROLLED for (int o = 0; o < OUTS; o++) own[o] = *(const V*)(one + o * grads + x * L);
      UNROLLED for (int k = 0; k < TAPS; k++) {
        V pixel = *(const V*)(at[k] + i);
        IN_REGISTER(pixel);
        UNROLLED for (int o = 0; o < OUTS; o++) sum[o][k] += own[o] * pixel;
      }
    }
  }
  UNROLLED for (int o = 0; o < OUTS; o++) {
    UNROLLED for (int k = 0; k < TAPS; k++) total[o * K + k] = sum[o][k];
  }
}

template <class T, int OUTS>
static void grad_taps(const Slide& s, const T* g, i64 grads, const T* copy, const i64* offsets,
                      i64 rows, typename Batch<T>::V* total) {
  const i64 K = s.taps();
  i64 k = 0;
  for (; k + MANY_TAPS <= K; k += MANY_TAPS) {
    grad_tile<T, OUTS, MANY_TAPS>(s, g, grads, copy, offsets + k, rows, total + k);
  }
  for (; k + 3 <= K; k += 3) grad_tile<T, OUTS, 3>(s, g, grads, copy, offsets + k, rows, total + k);
  for (; k < K; k++) grad_tile<T, OUTS, 1>(s, g, grads, copy, offsets + k, rows, total + k);
}

// The gradient of the kernels from images and the result's gradient, the sums lane by lane until
// all images are in, a part of them for each thread. `room` has the offsets.
template <class T, class Source, class Grads>
static void weight_gradient_batch(const Slide& s, const Source& x, const Grads& g, T* dw, i64 rows,
                                  char* room) {
  typedef typename Batch<T>::V V;
  constexpr int L = Batch<T>::L;
  const i64 K = s.taps(), width = columns_read(s), plane = rows_read(s, rows) * width * L;
  const i64 grads = rows * s.OW * L, blocks = (s.OH + rows - 1) / rows, all = s.N / L * blocks;
  i64* const offsets = (i64*)room;
  taps_of(s, plane, L, offsets);
  const i64 most = s.N * s.OH * s.OW * s.O * K >= SHARED ? threads() : 1;
  const i64 parts = most < all ? most : all;
  V* const totals = (V*)scratch<1>(parts * s.O * K * sizeof(V));
  const Tiles tiles(s.O, MANY_GRADS);
  memset(totals, 0, parts * s.O * K * sizeof(V));
  parallel(true, parts, [=](i64 part) {
    T* const copy = (T*)scratch((s.C * plane + s.O * grads) * sizeof(T));
    T* const own = copy + s.C * plane;
    V* const total = totals + part * s.O * K;
    for (i64 number = part; number < all; number += parts) {
      const i64 first = number / blocks * L, y0 = number % blocks * rows;
      const i64 count = s.OH - y0 < rows ? s.OH - y0 : rows;
      gather<T>(x, first, s.C, s.H, s.W, s.top, s.left, y0 * s.SH, rows_read(s, count), width, copy,
                plane);
      gather<T>(g, first, s.O, s.OH, s.OW, 0, 0, y0, count, s.OW, own, grads);
      for (i64 o = 0, tile = 0; o < s.O; tile++) {
        const int outs = tiles.of(tile);
        const auto taps = outs == MANY_GRADS ? grad_taps<T, MANY_GRADS>
                          : outs == 3        ? grad_taps<T, 3>
                          : outs == 2        ? grad_taps<T, 2>
                                             : grad_taps<T, 1>;
        taps(s, own + o * grads, grads, copy, offsets, count, total + o * K);
        o += outs;
      }
    }
  });
  for (i64 i = 0; i < s.O * K; i++) {
    V lanes = totals[i];
    for (i64 part = 1; part < parts; part++) lanes += totals[part * s.O * K + i];
    T sum = 0;
    for (int l = 0; l < L; l++) sum += lanes[l];
    dw[i] = sum;
  }
}

#ifndef REAL  // planes.hpp has functions of its own
#define OF_SOURCE(T, Source)                                                                   \
  (void*)convolve_batch<T, Source<T>, Plain<T, 2, 2>>,                                         \
      (void*)convolve_batch<T, Source<T>, Plain<T, 1, 4>>,                                     \
      (void*)convolve_batch<T, Source<T>, Pooled<T, false>>,                                   \
      (void*)convolve_batch<T, Source<T>, Pooled<T, true>>,                                    \
      (void*)weight_gradient_batch<T, Images<T>, Source<T>>
extern "C" void* const batches[] = {
    OF_SOURCE(float, Images), OF_SOURCE(float, Spread), OF_SOURCE(double, Images),
    OF_SOURCE(double, Spread),
};
#endif
