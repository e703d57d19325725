// Convolutions whose kernels meet one channel each, of images (N, C, H, W) in row-major order outside
// of captured steps; comes after prelude.hpp, shuffles.hpp, images.hpp and convolution.hpp, compiled
// for one type of numbers, REAL.
//
// A plane is laid out as in convolution.hpp, so that an element of the kernel meets all pixels of the
// result in one run. Output o reads channel o / (O / C).

typedef Batch<REAL>::V Lanes;
typedef Batch<REAL>::Loose Loose;
static constexpr int LANES = Batch<REAL>::L, AT_ONCE = 4;

// The slide of one plane, and where the elements of the kernel meet its copy.
struct Plane {
  Slide s;
  i64 area;
  i64* offsets;
  explicit Plane(const Slide& whole) : s(whole) {
    s.C = 1;
    area = s.plane() + AT_ONCE * LANES;
    offsets = (i64*)scratch<5>(s.taps() * 8);
    offsets_of(s, offsets);
  }
  // Zeros, as large as the copy.
  REAL* blank() const {
    REAL* const image = (REAL*)scratch<0>(area * sizeof(REAL));
    memset(image, 0, area * sizeof(REAL));
    return image;
  }
  // The padded copy; padding stays zero from plane to plane.
  void copy(const REAL* x, REAL* image) const {
    lay_out<REAL>(s, x, 0, s.W, 1, image, s.rows() * s.width());
  }
  // A copy back in its place, without padding; zero where no element of the kernel gets to.
  void back(const REAL* image, REAL* x) const {
    const i64 rows = s.rows(), width = s.width();
    memset(x, 0, s.H * s.W * sizeof(REAL));
    for (i64 phase = 0; phase < s.SH * s.SW; phase++) {
      const i64 shift = phase % s.SW - s.left, above = phase / s.SW - s.top;
      const i64 first = shift < 0 ? (s.SW - 1 - shift) / s.SW : 0;
      const i64 end = s.W - shift <= 0 ? 0 : (s.W - shift - 1) / s.SW + 1;
      const i64 last = end < width ? end : width;
      for (i64 r = 0; r < rows; r++) {
        const i64 y = r * s.SH + above;
        if (y < 0 || y >= s.H) continue;
        const REAL* const line = image + (phase * rows + r) * width;
        REAL* const to = x + y * s.W + shift;
        if (s.SW == 1) {
          LOOP for (i64 i = first; i < last; i++) to[i] = line[i];
        } else {
          LOOP for (i64 i = first; i < last; i++) to[i * s.SW] = line[i];
        }
      }
    }
  }
};

extern "C" {
// y = x * w + bias
void depthwise_convolved(const Slide* whole, const REAL* x, const REAL* w, const REAL* bias, REAL* y) {
  const Plane plane(*whole);
  const Slide& s = plane.s;
  const i64 C = whole->C, many = s.O / C, K = s.taps(), pixels = s.pixels(), width = s.width();
  parallel(s.N * s.O * s.OH * s.OW * K >= SHARED, s.N, [=](i64 n) {
    REAL* const image = plane.blank();
    REAL* const result = (REAL*)scratch<1>((pixels + AT_ONCE * LANES) * sizeof(REAL));
    for (i64 c = 0; c < C; c++) {
      plane.copy(x + (n * C + c) * s.H * s.W, image);
      for (i64 o = c * many; o < (c + 1) * many; o++) {
        const REAL* const taps = w + o * K;
        for (i64 p = 0; p < pixels; p += AT_ONCE * LANES) {
          Lanes sum[AT_ONCE] = {};
          for (i64 k = 0; k < K; k++) {
            const REAL* at = image + plane.offsets[k] + p;
            UNROLLED for (int v = 0; v < AT_ONCE; v++) sum[v] += taps[k] * *(const Loose*)(at + v * LANES);
          }
          UNROLLED for (int v = 0; v < AT_ONCE; v++) *(Loose*)(result + p + v * LANES) = sum[v];
        }
        const REAL add = bias ? bias[o] : REAL(0);
        REAL* to = y + (n * s.O + o) * s.OH * s.OW;
        for (i64 r = 0; r < s.OH; r++, to += s.OW) {
          LOOP for (i64 i = 0; i < s.OW; i++) to[i] = result[r * width + i] + add;
        }
      }
    }
  });
}

// dx = the gradient of x
void depthwise_spread(const Slide* whole, const REAL* g, const REAL* w, REAL* dx) {
  const Plane plane(*whole);
  const Slide& s = plane.s;
  const i64 C = whole->C, many = s.O / C, K = s.taps(), width = s.width(), pixels = s.pixels();
  parallel(s.N * s.O * s.OH * s.OW * K >= SHARED, s.N, [=](i64 n) {
    // The gradient in lines as long as the copy's, with zeros between and behind them.
    REAL* const grads = (REAL*)scratch<1>((pixels + LANES) * sizeof(REAL));
    memset(grads, 0, (pixels + LANES) * sizeof(REAL));
    for (i64 c = 0; c < C; c++) {
      REAL* const image = plane.blank();
      for (i64 o = c * many; o < (c + 1) * many; o++) {
        const REAL* const from = g + (n * s.O + o) * s.OH * s.OW;
        for (i64 r = 0; r < s.OH; r++) {
          LOOP for (i64 i = 0; i < s.OW; i++) grads[r * width + i] = from[r * s.OW + i];
        }
        for (i64 k = 0; k < K; k++) {
          const REAL tap = w[o * K + k];
          REAL* const to = image + plane.offsets[k];
          if (tap - tap == 0) {
            for (i64 p = 0; p < pixels; p += LANES) {
              *(Loose*)(to + p) += tap * *(const Loose*)(grads + p);
            }
            continue;
          }
          for (i64 r = 0; r < s.OH; r++) {  // times a zero it would not be zero
            LOOP for (i64 i = 0; i < s.OW; i++) to[r * width + i] += tap * grads[r * width + i];
          }
        }
      }
      plane.back(image, dx + (n * C + c) * s.H * s.W);
    }
  });
}

// dw = the gradient of the kernels; the lanes' sums are kept until all images are in
void depthwise_kernels(const Slide* whole, const REAL* x, const REAL* g, REAL* dw) {
  const Plane plane(*whole);
  const Slide& s = plane.s;
  const i64 C = whole->C, many = s.O / C, K = s.taps(), width = s.width();
  const i64 padded = (K + AT_ONCE - 1) / AT_ONCE * AT_ONCE, runs = (s.OW + LANES - 1) / LANES;
  parallel(s.N * s.O * s.OH * s.OW * K >= SHARED, C, [=](i64 c) {
    REAL* const image = plane.blank();
    // Rows of the gradient that end with a whole vector, beyond which images do not count.
    REAL* const grads = (REAL*)scratch<1>((s.OH * runs + 1) * sizeof(Lanes));
    Lanes* const total = (Lanes*)scratch<2>(many * padded * sizeof(Lanes));
    memset(grads, 0, s.OH * runs * sizeof(Lanes));
    memset(total, 0, many * padded * sizeof(Lanes));
    Batch<REAL>::Places rest;
    for (int l = 0; l < LANES; l++) rest[l] = l < s.OW - (runs - 1) * LANES ? -1 : 0;
    for (i64 n = 0; n < s.N; n++) {
      plane.copy(x + (n * C + c) * s.H * s.W, image);
      for (i64 m = 0; m < many; m++) {
        const REAL* const from = g + (n * s.O + c * many + m) * s.OH * s.OW;
        for (i64 r = 0; r < s.OH; r++) memcpy(grads + r * runs * LANES, from + r * s.OW, s.OW * sizeof(REAL));
        for (i64 k = 0; k < K; k += AT_ONCE) {
          const REAL* at[AT_ONCE];
          Lanes sum[AT_ONCE];
          UNROLLED for (int t = 0; t < AT_ONCE; t++) {
            at[t] = image + plane.offsets[k + t < K ? k + t : K - 1];
            sum[t] = total[m * padded + k + t];
          }
          for (i64 r = 0; r < s.OH; r++) {
            for (i64 v = 0; v < runs; v++) {
              const Lanes grad = *(const Lanes*)(grads + (r * runs + v) * LANES);
              UNROLLED for (int t = 0; t < AT_ONCE; t++) {
                const Lanes pixels = *(const Loose*)(at[t] + r * width + v * LANES);
                sum[t] += grad * (v + 1 < runs ? pixels : rest ? pixels : Lanes{});
              }
            }
          }
          UNROLLED for (int t = 0; t < AT_ONCE; t++) total[m * padded + k + t] = sum[t];
        }
      }
    }
    for (i64 m = 0; m < many; m++) {
      for (i64 k = 0; k < K; k++) {
        REAL sum = 0;
        for (int l = 0; l < LANES; l++) sum += total[m * padded + k][l];
        dw[(c * many + m) * K + k] = sum;
      }
    }
  });
}
}
