// Images sampled at points, and the gradients of the images and of the points.
//
// Images are (batch, channels, [depth,] height, width), points (batch, points, 2 or 3) with
// coordinates (x, y[, z]) that run from -1 to 1 over the image: between the centres of its end
// pixels with `align`, else between their far sides. `padding` says what is outside: 0 for nothing,
// 1 for the end pixels, 2 for the image in a mirror.
//
// Gradients of images are added where points read, in no fixed order, or in that of the points: see
// `backward`.
#include "places.cuh"

// The CPU finds the pixels of several points before it reads any, which is quick with vectors.
#if defined(GRADLITE_NATIVE)
constexpr int STRIP = 64;
#else
constexpr int STRIP = 1;
#endif

template <int N>
struct Int {
  static constexpr int value = N;
};

// body(Int<0>()), body(Int<1>()), ...: each with its own number, which is known to the compiler.
template <int N, class Body>
DEVICE void unrolled(Body body) {
  if constexpr (N > 0) {
    unrolled<N - 1>(body);
    body(Int<N - 1>());
  }
}

DEVICE void atomic_add(acc_t* place, acc_t value) {
#if defined(GRADLITE_NATIVE)
  *place += value;
#else
  atomicAdd(place, value);
#endif
}

// One direction of an image: its pixels, and how far apart they are in memory.
struct Axis {
  int size, step;
  i64 padding;
  bool align;

  // The place of a coordinate among the pixels, before it is brought inside.
  __device__ acc_t place(acc_t coordinate) const {
    return align ? math::product(coordinate + 1, acc_t(size - 1) / 2)
                 : math::product(coordinate + 1, acc_t(size) / 2) - acc_t(0.5);
  }
  // Brought to pixels that exist. `slope` is then by how much it moves with the coordinate: not at
  // all where it is held at an end. What is not a number, or mirrored without end, is at pixel 0.
  __device__ acc_t inside(acc_t x, acc_t* slope) const {
    if (padding == 0) return x;
    if (padding == 2) {
      const acc_t low = align ? acc_t(0) : acc_t(-0.5), span = acc_t(align ? size - 1 : size);
      const acc_t away = math::abs(x - low);
      const acc_t extra = away - math::product(math::floor(away / (2 * span)), 2 * span);
      const acc_t mirrored = 2 * span - extra;
      if ((x < low) != (extra > mirrored)) *slope = -*slope;
      x = (extra > mirrored ? mirrored : extra) + low;
    }
    const acc_t last = acc_t(size - 1);
    if (!(x > 0 && x < last)) *slope = 0;
    return x > 0 ? (x < last ? x : last) : acc_t(0);
  }
};

// The pixels along one direction between which each point of a strip lies.
template <int TAPS>
struct Taps {
  int place[TAPS][STRIP];
  int there[TAPS][STRIP];  // whether the pixel exists: its place is that of one that does
  acc_t weight[TAPS][STRIP];
  acc_t steep[TAPS][STRIP];  // of the weight, by the pixel
  acc_t slope[STRIP];        // of the place, by the coordinate

  __device__ void set(const Axis& axis, int k, int s, acc_t pixel) {
    const bool exists = pixel >= 0 && pixel <= acc_t(axis.size - 1);
    there[k][s] = exists ? -1 : 0;
    place[k][s] = exists ? int(pixel) * axis.step : 0;
  }

  __device__ void find(const Axis& axis, int s, acc_t coordinate) {
    slope[s] = acc_t(axis.align ? axis.size - 1 : axis.size) / 2;
    acc_t x = axis.place(coordinate);
    if constexpr (TAPS == 1) {
      set(axis, 0, s, math::rint(axis.inside(x, &slope[s])));
      weight[0][s] = 1;
      steep[0][s] = 0;
    } else if constexpr (TAPS == 2) {
      x = axis.inside(x, &slope[s]);
      const acc_t low = math::floor(x);
      set(axis, 0, s, low);
      set(axis, 1, s, low + 1);
      weight[0][s] = low + 1 - x;
      weight[1][s] = x - low;
      steep[0][s] = -1;
      steep[1][s] = 1;
    } else {  // cubic convolution with a = -0.75 (Keys, 1981)
      const acc_t a = acc_t(-0.75), low = math::floor(x), t = x - low;
      unrolled<4>([&](auto k) {
        acc_t unused = 0;
        set(axis, k.value, s, axis.inside(low + (k.value - 1), &unused));
        const acc_t d = k.value < 2 ? t + (1 - k.value) : acc_t(k.value - 1) - t;
        const acc_t sign = k.value < 2 ? acc_t(1) : acc_t(-1);
        if (k.value == 0 || k.value == 3) {
          weight[k.value][s] = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a;
          steep[k.value][s] = sign * ((3 * a * d - 10 * a) * d + 8 * a);
        } else {
          weight[k.value][s] = ((a + 2) * d - (a + 3)) * d * d + 1;
          steep[k.value][s] = sign * ((3 * (a + 2)) * d - 2 * (a + 3)) * d;
        }
      });
    }
  }
};

// The pixels around a point: those of each direction with those of the others.
template <int DIMS, int TAPS>
struct Around {
  Taps<TAPS> along[DIMS];  // x, y, z
  static constexpr int BITS = TAPS / 2;  // of the number of a tap
  static constexpr int COUNT = 1 << BITS * DIMS;
  static __device__ constexpr int tap(int k, int d) { return k >> BITS * d & (TAPS - 1); }

  template <int K>
  __device__ int place(int s) const {
    int total = 0;
    unrolled<DIMS>([&](auto d) { total += along[d.value].place[tap(K, d.value)][s]; });
    return total;
  }
  template <int K>
  __device__ int there(int s) const {
    int all = -1;
    unrolled<DIMS>([&](auto d) { all &= along[d.value].there[tap(K, d.value)][s]; });
    return all;
  }
  // A pixel's value times its weight. One that does not exist counts as 0, but in images as NaN
  // where the weight is: so does PyTorch.
  template <int K>
  __device__ acc_t term(int s, acc_t value, acc_t weight) const {
    if constexpr (DIMS == 2) {
      return (there<K>(s) ? value : acc_t(0)) * weight;
    } else {
      return there<K>(s) ? value * weight : acc_t(0);
    }
  }
  // The product of the weights, with the steepness in the place of one of them.
  template <int K, int STEEP = -1>
  __device__ acc_t weight(int s) const {
    acc_t product = 1;
    unrolled<DIMS>([&](auto d) {
      const Taps<TAPS>& taps = along[d.value];
      const int k = tap(K, d.value);
      product *= d.value == STEEP ? taps.steep[k][s] : taps.weight[k][s];
    });
    return product;
  }
};

template <int DIMS>
struct Image {
  Axis axes[DIMS];  // x, y, z
  __device__ int pixels() const { return axes[DIMS - 1].size * axes[DIMS - 1].step; }
};

DEVICE Image<2> image(i64 h, i64 w, i64 padding, i64 align) {
  return {{{int(w), 1, padding, align != 0}, {int(h), int(w), padding, align != 0}}};
}
DEVICE Image<3> image(i64 d, i64 h, i64 w, i64 padding, i64 align) {
  return {{{int(w), 1, padding, align != 0},
           {int(h), int(w), padding, align != 0},
           {int(d), int(h * w), padding, align != 0}}};
}

// body(n, c, p, count) for every image n, every `group`-th channel c of it and strips of points
// from p on.
template <class Body>
DEVICE void for_each_strip(i64 batch, i64 channels, i64 group, i64 points, Body body) {
#if defined(GRADLITE_NATIVE)
  for (i64 n = 0; n < batch; n++) {
    for (i64 c = 0; c < channels; c += group) {
      for (i64 p = 0; p < points; p += STRIP) {
        body(n, c, p, int(points - p < STRIP ? points - p : STRIP));
      }
    }
  }
#else
  for_each_place(batch, (channels + group - 1) / group, points,
                 [&](i64 n, i64 g, i64 p, i64) { body(n, g * group, p, 1); });
#endif
}

template <int DIMS, int TAPS>
DEVICE void find_taps(const scalar_t* points, const Image<DIMS>& image, int count,
                      Around<DIMS, TAPS>& around) {
  unrolled<DIMS>([&](auto d) {
    INDEPENDENT
    for (int s = 0; s < count; s++) {
      around.along[d.value].find(image.axes[d.value], s, widen(points[s * DIMS + d.value]));
    }
  });
}

// Each thread does a group of channels at a point.
template <int DIMS, int TAPS>
DEVICE void forward(const scalar_t* x, const scalar_t* grid, scalar_t* out, i64 batch, i64 channels,
                    i64 group, i64 points, const Image<DIMS> image) {
  const i64 pixels = image.pixels();
  for_each_strip(batch, channels, group, points, [&](i64 n, i64 first, i64 p, int count) {
    Around<DIMS, TAPS> around;
    find_taps(grid + (n * points + p) * DIMS, image, count, around);
    const i64 last = first + group < channels ? first + group : channels;
    ROLLED
    for (i64 c = first; c < last; c++) {
      const scalar_t* from = x + (n * channels + c) * pixels;
      scalar_t* to = out + (n * channels + c) * points + p;
      INDEPENDENT
      for (int s = 0; s < count; s++) {
        acc_t total = 0;
        unrolled<Around<DIMS, TAPS>::COUNT>([&](auto k) {
          total += around.template term<k.value>(s, widen(from[around.template place<k.value>(s)]),
                                                around.template weight<k.value>(s));
        });
        to[s] = narrow(total);
      }
    }
  });
}

// What points read goes back to the images' dx, and how it changes as they move to dgrid; either
// may be null. Without dgrid, `ordered` has one thread do all points of a channel in their order.
template <int DIMS, int TAPS>
DEVICE void backward(const scalar_t* grad, const scalar_t* x, const scalar_t* grid, acc_t* dx,
                     scalar_t* dgrid, i64 batch, i64 channels, i64 ordered, i64 points,
                     const Image<DIMS> image) {
  const i64 pixels = image.pixels(), rows = ordered ? channels : 1;
  const i64 in_turn = ordered ? points : 1;
  for_each_strip(batch, rows, 1, points / in_turn, [&](i64 n, i64 row, i64 start, int count) {
    const i64 first = ordered ? row : 0, last = ordered ? row + 1 : channels;
    ROLLED
    for (i64 turn = 0; turn < in_turn; turn++) {
      const i64 p = start + turn;
      Around<DIMS, TAPS> around;
      find_taps(grid + (n * points + p) * DIMS, image, count, around);
      acc_t toward[DIMS][STRIP] = {};
      ROLLED
      for (i64 c = first; c < last; c++) {
        const scalar_t* g = grad + (n * channels + c) * points + p;
        if (TAPS > 1 && dgrid) {
          const scalar_t* from = x + (n * channels + c) * pixels;
          INDEPENDENT
          for (int s = 0; s < count; s++) {
            unrolled<Around<DIMS, TAPS>::COUNT>([&](auto k) {
              constexpr int K = decltype(k)::value;
              const acc_t seen = widen(g[s]) * widen(from[around.template place<K>(s)]);
              unrolled<DIMS>([&](auto d) {
                toward[d.value][s] +=
                    around.template term<K>(s, seen, around.template weight<K, d.value>(s));
              });
            });
          }
        }
        if (dx) {
          acc_t* to = dx + (n * channels + c) * pixels;
          for (int s = 0; s < count; s++) {
            unrolled<Around<DIMS, TAPS>::COUNT>([&](auto k) {
              if (!around.template there<k.value>(s)) return;
              atomic_add(to + around.template place<k.value>(s),
                         widen(g[s]) * around.template weight<k.value>(s));
            });
          }
        }
      }
      if (dgrid) {
        scalar_t* to = dgrid + (n * points + p) * DIMS;
        for (int s = 0; s < count; s++) {
          unrolled<DIMS>([&](auto d) {
            const acc_t slope = around.along[d.value].slope[s];
            to[s * DIMS + d.value] = narrow(toward[d.value][s] * slope);
          });
        }
      }
    }
  });
}

KERNEL(grid_sample_nearest)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ grid, scalar_t* __restrict__ out,
 i64 batch, i64 channels, i64 group, i64 points, i64 h, i64 w, i64 padding, i64 align) {
  forward<2, 1>(x, grid, out, batch, channels, group, points, image(h, w, padding, align));
}

KERNEL(grid_sample_nearest_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ grid, acc_t* __restrict__ dx, scalar_t* __restrict__ dgrid, i64 batch,
 i64 channels, i64 ordered, i64 points, i64 h, i64 w, i64 padding, i64 align) {
  backward<2, 1>(grad, x, grid, dx, dgrid, batch, channels, ordered, points,
                 image(h, w, padding, align));
}

KERNEL(grid_sample_linear)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ grid, scalar_t* __restrict__ out,
 i64 batch, i64 channels, i64 group, i64 points, i64 h, i64 w, i64 padding, i64 align) {
  forward<2, 2>(x, grid, out, batch, channels, group, points, image(h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_linear_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ grid, acc_t* __restrict__ dx, scalar_t* __restrict__ dgrid, i64 batch,
 i64 channels, i64 ordered, i64 points, i64 h, i64 w, i64 padding, i64 align) {
  backward<2, 2>(grad, x, grid, dx, dgrid, batch, channels, ordered, points,
                 image(h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_cubic, 1)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ grid, scalar_t* __restrict__ out,
 i64 batch, i64 channels, i64 group, i64 points, i64 h, i64 w, i64 padding, i64 align) {
  forward<2, 4>(x, grid, out, batch, channels, group, points, image(h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_cubic_backward, 1)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ grid, acc_t* __restrict__ dx, scalar_t* __restrict__ dgrid, i64 batch,
 i64 channels, i64 ordered, i64 points, i64 h, i64 w, i64 padding, i64 align) {
  backward<2, 4>(grad, x, grid, dx, dgrid, batch, channels, ordered, points,
                 image(h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_volume_nearest, 2)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ grid, scalar_t* __restrict__ out,
 i64 batch, i64 channels, i64 group, i64 points, i64 d, i64 h, i64 w, i64 padding, i64 align) {
  forward<3, 1>(x, grid, out, batch, channels, group, points, image(d, h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_volume_nearest_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ grid, acc_t* __restrict__ dx, scalar_t* __restrict__ dgrid, i64 batch,
 i64 channels, i64 ordered, i64 points, i64 d, i64 h, i64 w, i64 padding, i64 align) {
  backward<3, 1>(grad, x, grid, dx, dgrid, batch, channels, ordered, points,
                 image(d, h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_volume_linear, 2)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ grid, scalar_t* __restrict__ out,
 i64 batch, i64 channels, i64 group, i64 points, i64 d, i64 h, i64 w, i64 padding, i64 align) {
  forward<3, 2>(x, grid, out, batch, channels, group, points, image(d, h, w, padding, align));
}

KERNEL_BLOCKS(grid_sample_volume_linear_backward, 1)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ grid, acc_t* __restrict__ dx, scalar_t* __restrict__ dgrid, i64 batch,
 i64 channels, i64 ordered, i64 points, i64 d, i64 h, i64 w, i64 padding, i64 align) {
  backward<3, 2>(grad, x, grid, dx, dgrid, batch, channels, ordered, points,
                 image(d, h, w, padding, align));
}
