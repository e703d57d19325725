// Max-pooling of images (N, H, W) in row-major order; comes after prelude.hpp.

struct Windows {
  i64 N, H, W, OH, OW;            // sizes of input and result
  i64 top, left, SH, SW, DH, DW;  // padding, stride, dilation
};

// A window with padding or a NaN in it: the first of equal elements wins, and the last NaN.
template <class T>
static inline void careful(const Windows& s, const T* image, i64 y0, i64 x0, int KH, int KW,
                           T& best, int& which) {
  best = -T(__builtin_inff());
  which = -1;
  for (int k = 0; k < KH * KW; k++) {
    const i64 r = y0 + k / KW * s.DH, c = x0 + k % KW * s.DW;
    if (r < 0 || r >= s.H || c < 0 || c >= s.W) continue;
    const T value = image[r * s.W + c];
    if (which < 0 || value > best || value != value) {
      best = value;
      which = k;
    }
  }
  which = which < 0 ? 0 : which;
}

// The maximum of every window and the number of the element that it is.
template <class T, class I, int KH, int KW>
static void max_pool(const Windows& s, const T* x, T* y, I* winners) {
  i64 offsets[KH * KW];
  for (int k = 0; k < KH * KW; k++) offsets[k] = k / KW * s.DH * s.W + k % KW * s.DW;
  const i64 down = (KH - 1) * s.DH, along = (KW - 1) * s.DW;
  for (i64 n = 0; n < s.N; n++) {
    const T* image = x + n * s.H * s.W;
    for (i64 oy = 0; oy < s.OH; oy++) {
      const i64 y0 = oy * s.SH - s.top;
      const bool inside = y0 >= 0 && y0 + down < s.H;
      for (i64 ox = 0; ox < s.OW; ox++) {
        const i64 x0 = ox * s.SW - s.left;
        T best;
        int which = 0;
        if (inside && x0 >= 0 && x0 + along < s.W) {
          const T* at = image + y0 * s.W + x0;
          best = *at;
          T sum = best;
#pragma GCC unroll 9
          for (int k = 1; k < KH * KW; k++) {  // without a branch
            const T value = at[offsets[k]];
            which = value > best ? k : which;
            best = value > best ? value : best;
            sum += value;
          }
          if (__builtin_expect(sum != sum, 0)) careful(s, image, y0, x0, KH, KW, best, which);
        } else {
          careful(s, image, y0, x0, KH, KW, best, which);
        }
        *y++ = best;
        *winners++ = I(which);
      }
    }
  }
}

// Zeros with each window's gradient added at its winner.
template <class T, class I, int KW>
static void max_pool_scatter(const Windows& s, const T* g, const I* winners, T* out) {
  memset(out, 0, s.N * s.H * s.W * sizeof(T));
  for (i64 n = 0; n < s.N; n++) {
    T* image = out + n * s.H * s.W;
    for (i64 oy = 0; oy < s.OH; oy++) {
      for (i64 ox = 0; ox < s.OW; ox++) {
        const i64 k = *winners++;
        const i64 r = oy * s.SH - s.top + k / KW * s.DH, c = ox * s.SW - s.left + k % KW * s.DW;
        if (r >= 0 && r < s.H && c >= 0 && c < s.W) image[r * s.W + c] += *g;
        g++;
      }
    }
  }
}
