// Pooling of images (images, height, width): maxima and means of windows, and their gradients.
//
// A gradient is gathered, each element from the windows that cover it, so that no two threads add
// to the same place. Windows slide as `Slide` (places.cuh) says: down the image with size h,
// windows oh, kernel kh, stride sh, padding `top` and dilation dh, along its rows likewise.
#include "places.cuh"
#include "team.cuh"

DEVICE bool beats(acc_t value, acc_t best) { return value > best || value != value; }

// The maximum of each window, and the number i * kw + j of the element that it is: the first of
// equal ones, the last one that is not a number. `places`, if not null, becomes its place y * w + x.
// A window that a dilation has miss the image has the element behind the padding, wherever it is.
KERNEL(max_pool_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, u8* __restrict__ winners,
 i64* __restrict__ places, i64 images, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w,
 i64 ow, i64 kw, i64 sw, i64 left, i64 dw) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), int(dh)};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), int(dw)};
  for_each_place(images, oh, ow, [&](i64 image, i64 oy, i64 ox, i64 o) {
    const scalar_t* in = x + image * h * w;
    acc_t best = -infinity();
    int winner = -1, place = 0;
    const int i_first = down.first(int(oy));
    const int j_first = along.first(int(ox)), j_last = along.last(int(ox));
    for (int i = i_first; i < down.last(int(oy)); i++) {
      const int row = down.place(int(oy), i) * along.size;
      for (int j = j_first; j < j_last; j++) {
        const int at = row + along.place(int(ox), j);
        const acc_t value = widen(in[at]);
        if (winner < 0 || beats(value, best)) {
          best = value;
          winner = i * along.kernel + j;
          place = at;
        }
      }
    }
    if (winner < 0) {
      winner = i_first * along.kernel + j_first;
      place = down.place(int(oy), i_first) * along.size + along.place(int(ox), j_first);
      place = math::smaller(place, int(h * w) - 1);
    }
    out[o] = narrow(best);
    if (winners) winners[o] = u8(winner);
    if (places) places[o] = place;
  });
}

// Zeros with each window's gradient added at its winner.
KERNEL(max_pool_backward)
(const scalar_t* __restrict__ grad, const u8* __restrict__ winners, scalar_t* __restrict__ dx,
 i64 images, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w, i64 ow, i64 kw, i64 sw,
 i64 left, i64 dw) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), int(dh)};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), int(dw)};
  for_each_place(images, h, w, [&](i64 image, i64 y, i64 x, i64 at) {
    const scalar_t* g = grad + image * oh * ow;
    const u8* won = winners + image * oh * ow;
    acc_t total = 0;
    for_each_window(down, int(y), [&](int oy, int i) {
      for_each_window(along, int(x), [&](int ox, int j) {
        const int o = oy * along.windows + ox;
        if (won[o] == i * along.kernel + j) total += widen(g[o]);
      });
    });
    dx[at] = narrow(total);
  });
}

// The sum of each window over a divisor, which is a number, or for each window another one.
KERNEL(avg_pool_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, const acc_t* __restrict__ divisors,
 double divisor, i64 images, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 w, i64 ow, i64 kw, i64 sw,
 i64 left) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), 1};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), 1};
  for_each_place(images, oh, ow, [&](i64 image, i64 oy, i64 ox, i64 o) {
    const scalar_t* in = x + image * h * w;
    acc_t total = 0;
    const int j_first = along.first(int(ox)), j_last = along.last(int(ox));
    for (int i = down.first(int(oy)); i < down.last(int(oy)); i++) {
      const int row = down.place(int(oy), i) * along.size;
      for (int j = j_first; j < j_last; j++) total += widen(in[row + along.place(int(ox), j)]);
    }
    out[o] = narrow(total / (divisors ? divisors[oy * ow + ox] : acc_t(divisor)));
  });
}

// Each window's share of the gradient on all its elements.
KERNEL(avg_pool_backward)
(const scalar_t* __restrict__ grad, scalar_t* __restrict__ dx, const acc_t* __restrict__ divisors,
 double divisor, i64 images, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 w, i64 ow, i64 kw, i64 sw,
 i64 left) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), 1};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), 1};
  for_each_place(images, h, w, [&](i64 image, i64 y, i64 x, i64 at) {
    const scalar_t* g = grad + image * oh * ow;
    acc_t total = 0;
    for_each_window(down, int(y), [&](int oy, int) {
      for_each_window(along, int(x), [&](int ox, int) {
        const int o = oy * along.windows + ox;
        total += widen(g[o]) / (divisors ? divisors[o] : acc_t(divisor));
      });
    });
    dx[at] = narrow(total);
  });
}

// ----------------------------------------------------------------------------------- adaptive
// Parts that divide `size` places as evenly as it goes; neighbours may share a place. Products of
// the two numbers have to fit into 31 bits.
struct Parts {
  int size, parts;
  __device__ int start(int part) const { return part * size / parts; }
  __device__ int stop(int part) const { return ((part + 1) * size + parts - 1) / parts; }
  __device__ int first_with(int place) const { return place * parts / size; }
};

// The mean of each window, by a team for each.
KERNEL(adaptive_avg_pool_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, i64 images, i64 h, i64 oh, i64 w,
 i64 ow) {
  const Parts down = {int(h), int(oh)}, along = {int(w), int(ow)};
  for_each_row(images * oh * ow, [&](auto team, i64 o) {
    const u32 line = u32(o) / u32(ow), image = line / u32(oh);
    const int oy = int(line - image * u32(oh)), ox = int(u32(o) - line * u32(ow));
    const int top = down.start(oy), left = along.start(ox);
    const int width = along.stop(ox) - left, count = (down.stop(oy) - top) * width;
    const scalar_t* in = x + (i64(image) * h + top) * w + left;
    acc_t total = 0;
    for (int k = int(team.rank()); k < count; k += int(team.size())) {
      const int row = k / width;
      total += widen(in[row * w + (k - row * width)]);
    }
    total = team.sum(total);
    if (team.rank() == 0) out[o] = narrow(total / acc_t(count));
  });
}

KERNEL(adaptive_avg_pool_backward)
(const scalar_t* __restrict__ grad, scalar_t* __restrict__ dx, i64 images, i64 h, i64 oh, i64 w,
 i64 ow) {
  const Parts down = {int(h), int(oh)}, along = {int(w), int(ow)};
  for_each_place(images, h, w, [&](i64 image, i64 y, i64 x, i64 at) {
    const scalar_t* g = grad + image * oh * ow;
    acc_t total = 0;
    for (int oy = down.first_with(int(y)); oy < oh && down.start(oy) <= y; oy++) {
      const int height = down.stop(oy) - down.start(oy);
      for (int ox = along.first_with(int(x)); ox < ow && along.start(ox) <= x; ox++) {
        const int count = height * (along.stop(ox) - along.start(ox));
        total += widen(g[oy * ow + ox]) / acc_t(count);
      }
    }
    dx[at] = narrow(total);
  });
}

// The maximum of each window and its place y * w + x.
KERNEL(adaptive_max_pool_forward)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, i64* __restrict__ places, i64 images,
 i64 h, i64 oh, i64 w, i64 ow) {
  const Parts down = {int(h), int(oh)}, along = {int(w), int(ow)};
  for_each_place(images, oh, ow, [&](i64 image, i64 oy, i64 ox, i64 o) {
    const scalar_t* in = x + image * h * w;
    const int left = along.start(int(ox)), right = along.stop(int(ox));
    int place = down.start(int(oy)) * along.size + left;
    acc_t best = widen(in[place]);
    for (int y = down.start(int(oy)); y < down.stop(int(oy)); y++) {
      for (int c = left; c < right; c++) {
        const acc_t value = widen(in[y * along.size + c]);
        if (beats(value, best)) {
          best = value;
          place = y * along.size + c;
        }
      }
    }
    out[o] = narrow(best);
    places[o] = place;
  });
}

KERNEL(adaptive_max_pool_backward)
(const scalar_t* __restrict__ grad, const i64* __restrict__ places, scalar_t* __restrict__ dx,
 i64 images, i64 h, i64 oh, i64 w, i64 ow) {
  const Parts down = {int(h), int(oh)}, along = {int(w), int(ow)};
  for_each_place(images, h, w, [&](i64 image, i64 y, i64 x, i64 at) {
    const i64 base = image * oh * ow;
    acc_t total = 0;
    for (int oy = down.first_with(int(y)); oy < oh && down.start(oy) <= y; oy++) {
      for (int ox = along.first_with(int(x)); ox < ow && along.start(ox) <= x; ox++) {
        const i64 o = base + oy * ow + ox;
        if (places[o] == y * w + x) total += widen(grad[o]);
      }
    }
    dx[at] = narrow(total);
  });
}

// Where in its volume the maximum of each box is: it is in frame `place / row` of those with `plane`
// elements, `place` being the one of the frames' maxima, `row` of each, that `outer` names; and
// in that frame it is where `inner` says.
KERNEL(box_places)
(const i64* __restrict__ inner, const i64* __restrict__ outer, i64* __restrict__ places,
 i64 volumes, i64 maxima, i64 boxes, i64 row, i64 plane) {
  for_each_place(volumes, 1, boxes, [&](i64 volume, i64, i64, i64 i) {
    const u32 place = u32(outer[i]);
    places[i] = i64(place / u32(row)) * plane + inner[volume * maxima + place];
  });
}
