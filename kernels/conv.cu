// Convolutions: windows laid out as columns for a product of matrices, and back; depthwise ones
// directly.
//
// Images are (images, channels, h, w), columns (images, channels * kh * kw, oh * ow). Windows slide
// as `Slide` (places.cuh) says; the padding before may be negative, which cuts places off.
#include "places.cuh"
#include "team.cuh"

// columns[n, (c, i, j), (oy, ox)] = x[n, c, y, x], 0 outside the image; a team for each row
KERNEL_BLOCKS(image_to_columns, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ columns, i64 planes, i64 h, i64 oh, i64 kh,
 i64 sh, i64 top, i64 dh, i64 w, i64 ow, i64 kw, i64 sw, i64 left, i64 dw) {
  for_each_row(planes * kh * kw, [&](auto team, i64 row) {
    const u32 above = u32(row) / u32(kw), plane = above / u32(kh);
    const int i = int(above - plane * u32(kh)), j = int(u32(row) - above * u32(kw));
    const scalar_t* in = x + i64(plane) * h * w;
    scalar_t* out = columns + row * oh * ow;
    const int wide = int(ow), count = int(oh * ow);
    const int down = int(team.size()) / wide, along = int(team.size()) - down * wide;
    int p = int(team.rank()), oy = p / wide, ox = p - oy * wide;
    for (; p < count; p += int(team.size())) {
      const int y = oy * int(sh) - int(top) + i * int(dh);
      const int c = ox * int(sw) - int(left) + j * int(dw);
      const bool inside = y >= 0 && y < int(h) && c >= 0 && c < int(w);
      out[p] = inside ? in[y * int(w) + c] : narrow(0);
      oy += down;
      ox += along;
      if (ox >= wide) {
        ox -= wide;
        oy++;
      }
    }
  });
}

// The sum of all places of the columns that a place of the image went to.
KERNEL(columns_to_image)
(const scalar_t* __restrict__ columns, scalar_t* __restrict__ x, i64 planes, i64 h, i64 oh, i64 kh,
 i64 sh, i64 top, i64 dh, i64 w, i64 ow, i64 kw, i64 sw, i64 left, i64 dw) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), int(dh)};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), int(dw)};
  const int pixels = int(oh * ow);
  for_each_place(planes, h, w, [&](i64 plane, i64 y, i64 c, i64 at) {
    const scalar_t* in = columns + plane * kh * kw * pixels;
    acc_t total = 0;
    for_each_window(down, int(y), [&](int oy, int i) {
      for_each_window(along, int(c), [&](int ox, int j) {
        total += widen(in[i64(i * along.kernel + j) * pixels + oy * along.windows + ox]);
      });
    });
    x[at] = narrow(total);
  });
}

// ----------------------------------------------------------------------------------- depthwise
// Output channel o reads input channel o / multiplier alone; weights are (outputs, kh, kw).

// y = bias + the sum of the window times the weights
KERNEL(depthwise_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ y, i64 images, i64 outputs,
 i64 multiplier, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w, i64 ow, i64 kw, i64 sw,
 i64 left, i64 dw) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), int(dh)};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), int(dw)};
  for_each_place(images * outputs, oh, ow, [&](i64 plane, i64 oy, i64 ox, i64 at) {
    const u32 o = u32(plane) % u32(outputs), from = u32(plane) / u32(multiplier);
    const scalar_t* in = x + i64(from) * h * w;
    const scalar_t* taps = weight + i64(o) * kh * kw;
    acc_t total = bias ? widen(bias[o]) : acc_t(0);
    const int j_first = along.first(int(ox)), j_last = along.last(int(ox));
    for (int i = down.first(int(oy)); i < down.last(int(oy)); i++) {
      const scalar_t* row = in + i64(down.place(int(oy), i)) * w;
      for (int j = j_first; j < j_last; j++) {
        total += widen(row[along.place(int(ox), j)]) * widen(taps[i * along.kernel + j]);
      }
    }
    y[at] = narrow(total);
  });
}

// The gradient of x, gathered from all windows that cover a place.
KERNEL(depthwise_input_gradient)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ weight, scalar_t* __restrict__ dx,
 i64 images, i64 outputs, i64 multiplier, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w,
 i64 ow, i64 kw, i64 sw, i64 left, i64 dw) {
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), int(dh)};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), int(dw)};
  const u32 channels = u32(outputs) / u32(multiplier);
  for_each_place(images * channels, h, w, [&](i64 plane, i64 y, i64 c, i64 at) {
    const u32 channel = u32(plane) % channels;
    const scalar_t* g = grad + plane * multiplier * oh * ow;
    const scalar_t* taps = weight + i64(channel) * multiplier * kh * kw;
    acc_t total = 0;
    for (int m = 0; m < int(multiplier); m++) {
      for_each_window(down, int(y), [&](int oy, int i) {
        for_each_window(along, int(c), [&](int ox, int j) {
          total += widen(g[oy * along.windows + ox]) * widen(taps[i * along.kernel + j]);
        });
      });
      g += oh * ow;
      taps += kh * kw;
    }
    dx[at] = narrow(total);
  });
}

// The gradient of one weight by a block: a sum over all windows of all images.
KERNEL(depthwise_weight_gradient)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ grad, scalar_t* __restrict__ dw_,
 i64 images, i64 outputs, i64 multiplier, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w,
 i64 ow, i64 kw, i64 sw, i64 left, i64 dw) {
  const u32 channels = u32(outputs) / u32(multiplier), pixels = u32(oh * ow), wide = u32(ow);
  for_each_block(outputs * kh * kw, [&](auto team, i64 place) {
    const u32 above = u32(place) / u32(kw), o = above / u32(kh);
    const int i = int(above - o * u32(kh)), j = int(u32(place) - above * u32(kw));
    const i64 channel = o / u32(multiplier);
    const u32 count = u32(images) * pixels;
    acc_t total = 0;
    for (u32 q = u32(team.rank()); q < count; q += u32(team.size())) {
      const u32 n = q / pixels, p = q - n * pixels, oy = p / wide, ox = p - oy * wide;
      const int y = int(oy * u32(sh)) - int(top) + i * int(dh);
      const int c = int(ox * u32(sw)) - int(left) + j * int(dw);
      if (y >= 0 && y < int(h) && c >= 0 && c < int(w)) {
        total += widen(x[((n * channels + channel) * h + y) * w + c]) *
                 widen(grad[(i64(n) * outputs + o) * pixels + p]);
      }
    }
    total = team.sum(total);
    if (team.rank() == 0) dw_[place] = narrow(total);
  });
}
