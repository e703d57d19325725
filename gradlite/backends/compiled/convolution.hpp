// Convolution of images (N, C, H, W) with kernels (O, C, KH, KW); comes after
// prelude.hpp, shuffles.hpp and images.hpp. Compiled once: steps call it through pointers.
//
// A padded copy of one image is laid out so that the elements which one element of the kernel meets
// lie in a row: then the result's pixels are a product whose operand is read where it is, at one
// offset for each element of the kernel. With strides the copy is taken apart into
// stride_h x stride_w smaller images first. Pixels are counted in rows of the copy's width; what
// falls between the ends of the result's rows is computed and dropped.

static void offsets_of(const Slide& s, i64* offsets) {
  i64 k = 0;
  for (i64 c = 0; c < s.C; c++) {
    for (i64 i = 0; i < s.KH; i++) {
      for (i64 j = 0; j < s.KW; j++) {
        const i64 y = i * s.DH, x = j * s.DW, phase = y % s.SH * s.SW + x % s.SW;
        offsets[k++] = c * s.plane() + phase * s.rows() * s.width() + y / s.SH * s.width() + x / s.SW;
      }
    }
  }
}

// The padded copy of one image, its planes that far apart; padding is zero already and stays so.
template <class T>
static void lay_out(const Slide& s, const T* image, i64 sc, i64 sh, i64 sw, T* out, i64 plane) {
  const i64 rows = s.rows(), width = s.width();
  for (i64 c = 0; c < s.C; c++) {
    for (i64 phase = 0; phase < s.SH * s.SW; phase++) {
      const i64 shift = phase % s.SW - s.left, above = phase / s.SW - s.top;
      i64 first = shift < 0 ? (-shift + s.SW - 1) / s.SW : 0;
      i64 last = s.W - shift <= 0 ? 0 : (s.W - shift - 1) / s.SW + 1;
      last = last < width ? last : width;
      for (i64 r = 0; r < rows; r++) {
        const i64 y = r * s.SH + above;
        if (y < 0 || y >= s.H) continue;
        T* line = out + (c * s.SH * s.SW + phase) * plane + r * width;
        const T* source = image + c * sc + y * sh + shift * sw;
        if (s.SW * sw == 1) {
          LOOP for (i64 x = first; x < last; x++) line[x] = source[x];
        } else {
          LOOP for (i64 x = first; x < last; x++) line[x] = source[x * s.SW * sw];
        }
      }
    }
  }
}

// The products with `count` elements of each kernel, RUN at most, whose rows lie K apart; they are
// added to those with earlier ones.
template <class T, int ROWS, int VECTORS>
NEVER_INLINE void run_of_slide(const T* w, i64 K, i64 count, const T* image, const i64* offsets, T* y,
                               i64 sy, bool earlier) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  V sum[ROWS][VECTORS];
  UNROLLED for (int o = 0; o < ROWS; o++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[o][v] = V{};
  }
  for (i64 k = 0; k < count; k++) {
    const T* at = image + offsets[k];
    V pixels[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) pixels[v] = *(const V*)(at + L * v);
    UNROLLED for (int o = 0; o < ROWS; o++) {
      const T value = w[o * K + k];
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[o][v] += value * pixels[v];
    }
  }
  if (earlier) {
    UNROLLED for (int o = 0; o < ROWS; o++) {
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[o][v] += *(const V*)(y + o * sy + L * v);
    }
  }
  UNROLLED for (int o = 0; o < ROWS; o++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) *(V*)(y + o * sy + L * v) = sum[o][v];
  }
}

template <class T, int ROWS, int VECTORS>
static inline void slide_tile(const T* w, i64 K, const T* image, const i64* offsets, T* y, i64 sy) {
  for (i64 k = 0; k < K; k += RUN) {
    const i64 count = K - k < RUN ? K - k : RUN;
    run_of_slide<T, ROWS, VECTORS>(w + k, K, count, image, offsets + k, y, sy, k > 0);
  }
}

#if defined(__AVX512F__)
static constexpr int SLIDE_ROWS = 8, SLIDE_VECTORS = 3, GRAD_ROWS = 4, GRAD_TAPS = 6;
#else
static constexpr int SLIDE_ROWS = 4, SLIDE_VECTORS = 3, GRAD_ROWS = 3, GRAD_TAPS = 3;
#endif

template <class T, int VECTORS>
static void slide_rows(const Slide& s, const T* w, const T* image, const i64* offsets, T* y, i64 sy) {
  const i64 K = s.taps();
  i64 o = 0;
  for (; o + SLIDE_ROWS <= s.O; o += SLIDE_ROWS) {
    slide_tile<T, SLIDE_ROWS, VECTORS>(w + o * K, K, image, offsets, y + o * sy, sy);
  }
  for (; o < s.O; o++) slide_tile<T, 1, VECTORS>(w + o * K, K, image, offsets, y + o * sy, sy);
}

// y = x * w + bias; y has any strides. `room` has the offsets, one image's copy, and one image's result.
template <class T>
static void convolve(const Slide& s, const T* x, i64 sn, i64 sc, i64 sh, i64 sw, const T* w,
                     const T* bias, T* y, i64 yn, i64 yc, i64 yh, i64 yw, char* room) {
  constexpr int L = Vector<T>::lanes;
  const i64 pixels = s.pixels(), sy = up(pixels + SLIDE_VECTORS * L);
  i64* offsets = (i64*)room;
  T* image = (T*)(room + up(s.taps() * 8));
  T* result = image + up(s.C * s.plane() + SLIDE_VECTORS * L);
  offsets_of(s, offsets);
  memset(image, 0, (s.C * s.plane() + SLIDE_VECTORS * L) * sizeof(T));
  for (i64 n = 0; n < s.N; n++) {
    lay_out(s, x + n * sn, sc, sh, sw, image, s.rows() * s.width());
    i64 p = 0;
    for (; p + (SLIDE_VECTORS - 1) * L < pixels; p += SLIDE_VECTORS * L) {
      slide_rows<T, SLIDE_VECTORS>(s, w, image + p, offsets, result + p, sy);
    }
    for (; p < pixels; p += L) slide_rows<T, 1>(s, w, image + p, offsets, result + p, sy);
    for (i64 o = 0; o < s.O; o++) {
      const T add = bias ? bias[o] : T(0);
      for (i64 r = 0; r < s.OH; r++) {
        const T* from = result + o * sy + r * s.width();
        T* to = y + n * yn + o * yc + r * yh;
        if (yw == 1) {
          LOOP for (i64 i = 0; i < s.OW; i++) to[i] = from[i] + add;
        } else {
          LOOP for (i64 i = 0; i < s.OW; i++) to[i * yw] = from[i] + add;
        }
      }
    }
  }
}

template <class T, int ROWS, int TAPS>
static inline void weight_tile(const T* g, i64 sg, const T* image, const i64* offsets, i64 pixels,
                               typename Vector<T>::type* total, i64 K) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  V sum[ROWS][TAPS];
  UNROLLED for (int o = 0; o < ROWS; o++) {
    UNROLLED for (int k = 0; k < TAPS; k++) sum[o][k] = total[o * K + k];
  }
  const T* at[TAPS];
  UNROLLED for (int k = 0; k < TAPS; k++) at[k] = image + offsets[k];
  for (i64 p = 0; p < pixels; p += L) {
    V grads[ROWS];
    UNROLLED for (int o = 0; o < ROWS; o++) grads[o] = *(const V*)(g + o * sg + p);
    UNROLLED for (int k = 0; k < TAPS; k++) {
      V value = *(const V*)(at[k] + p);
      IN_REGISTER(value);
      UNROLLED for (int o = 0; o < ROWS; o++) sum[o][k] += grads[o] * value;
    }
  }
  UNROLLED for (int o = 0; o < ROWS; o++) {
    UNROLLED for (int k = 0; k < TAPS; k++) total[o * K + k] = sum[o][k];
  }
}

template <class T, int ROWS>
static void weight_rows(const T* g, i64 sg, const T* image, const i64* offsets, i64 pixels,
                        typename Vector<T>::type* total, i64 K) {
  i64 k = 0;
  for (; k + GRAD_TAPS <= K; k += GRAD_TAPS) {
    weight_tile<T, ROWS, GRAD_TAPS>(g, sg, image, offsets + k, pixels, total + k, K);
  }
  for (; k < K; k++) weight_tile<T, ROWS, 1>(g, sg, image, offsets + k, pixels, total + k, K);
}

// How many images' copies lie side by side, so that sums stay in registers for longer.
static constexpr i64 GROUP_BYTES = 300000;
template <class T>
static inline i64 group_of(const Slide& s) {
  const i64 bytes = (s.C * s.SH * s.SW + s.O) * s.rows() * s.width() * i64(sizeof(T));
  const i64 most = GROUP_BYTES / bytes;
  return most < 1 ? 1 : most < s.N ? most : s.N;
}

// dw = sum over images and pixels of g x. The sums are kept lane by lane until all images are in.
template <class T>
static void weight_gradient(const Slide& s, const T* x, i64 sn, i64 sc, i64 sh, i64 sw, const T* g,
                            i64 gn, i64 gc, i64 gh, i64 gw, T* dw, char* room) {
  typedef typename Vector<T>::type V;
  constexpr int L = Vector<T>::lanes;
  const i64 K = s.taps(), group = group_of<T>(s), area = s.rows() * s.width();
  // In each plane the images of a group follow each other, as if they were one high image.
  const i64 plane = group * area, phases = s.SH * s.SW, pixels = group * area, sg = up(pixels + L);
  i64* offsets = (i64*)room;
  T* image = (T*)(room + up(K * 8));
  T* grads = image + up(s.C * phases * plane + area + 2 * L);
  V* total = (V*)(grads + s.O * sg);
  i64 k = 0;
  for (i64 c = 0; c < s.C; c++) {
    for (i64 i = 0; i < s.KH; i++) {
      for (i64 j = 0; j < s.KW; j++) {
        const i64 y = i * s.DH, x0 = j * s.DW, phase = y % s.SH * s.SW + x0 % s.SW;
        offsets[k++] = (c * phases + phase) * plane + y / s.SH * s.width() + x0 / s.SW;
      }
    }
  }
  memset(image, 0, (s.C * phases * plane + area + 2 * L) * sizeof(T));
  memset(grads, 0, s.O * sg * sizeof(T));
  memset(total, 0, s.O * K * sizeof(V));
  for (i64 start = 0; start < s.N; start += group) {
    const i64 count = s.N - start < group ? s.N - start : group;
    if (count < group) memset(grads, 0, s.O * sg * sizeof(T));
    for (i64 n = 0; n < count; n++) {
      lay_out(s, x + (start + n) * sn, sc, sh, sw, image + n * area, plane);
      for (i64 o = 0; o < s.O; o++) {
        for (i64 r = 0; r < s.OH; r++) {
          const T* from = g + (start + n) * gn + o * gc + r * gh;
          T* to = grads + o * sg + n * area + r * s.width();
          LOOP for (i64 i = 0; i < s.OW; i++) to[i] = from[i * gw];
        }
      }
    }
    i64 o = 0;
    for (; o + GRAD_ROWS <= s.O; o += GRAD_ROWS) {
      weight_rows<T, GRAD_ROWS>(grads + o * sg, sg, image, offsets, pixels, total + o * K, K);
    }
    for (; o < s.O; o++) {
      weight_rows<T, 1>(grads + o * sg, sg, image, offsets, pixels, total + o * K, K);
    }
  }
  for (i64 i = 0; i < s.O * K; i++) {
    T sum = 0;
    for (int l = 0; l < L; l++) sum += total[i][l];
    dw[i] = sum;
  }
}

// Kernels (A, B, KH, KW) of any strides, one after the other.
template <class T>
static void arranged(const T* w, i64 sa, i64 sb, i64 sh, i64 sw, T* out, i64 A, i64 B, i64 KH, i64 KW) {
  for (i64 a = 0; a < A; a++) {
    for (i64 b = 0; b < B; b++) {
      for (i64 i = 0; i < KH; i++) {
        for (i64 j = 0; j < KW; j++) *out++ = w[a * sa + b * sb + i * sh + j * sw];
      }
    }
  }
}

#ifndef REAL  // depthwise.hpp has functions of its own
extern "C" void* const convolution[] = {
    (void*)convolve<float>,        (void*)convolve<double>, (void*)weight_gradient<float>,
    (void*)weight_gradient<double>, (void*)arranged<float>,      (void*)arranged<double>,
};
#endif
