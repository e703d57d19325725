// Convolutions of volumes: windows laid out as columns for a product of matrices, and back.
//
// Volumes are (volumes, channels, d, h, w), columns (volumes, channels * kd * kh * kw, od * oh * ow).
// Windows slide as `Slide` (places.cuh) says, as those of images do in conv.cu. A launch may have
// columns of a part of the windows, that of some frames: `front` then counts from the first of them.
#include "places.cuh"
#include "team.cuh"

// columns[n, (c, k, i, j), (oz, oy, ox)] = x[n, c, z, y, x], 0 outside the volume; a team for each
// row
KERNEL_BLOCKS(volume_to_columns, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ columns, i64 planes, i64 d, i64 od, i64 kd,
 i64 sd, i64 front, i64 dd, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w, i64 ow, i64 kw,
 i64 sw, i64 left, i64 dw) {
  for_each_row(planes * kd * kh * kw, [&](auto team, i64 row) {
    const u32 above = u32(row) / u32(kw), before = above / u32(kh), plane = before / u32(kd);
    const int first_z = int(before - plane * u32(kd)) * int(dd) - int(front);
    const int first_y = int(above - before * u32(kh)) * int(dh) - int(top);
    const int first_c = int(u32(row) - above * u32(kw)) * int(dw) - int(left);
    const scalar_t* in = x + i64(plane) * d * h * w;
    scalar_t* out = columns + row * od * oh * ow;
    const int wide = int(ow), high = int(oh), frame = wide * high, count = int(od) * frame;
    // What the team goes on by, as numbers of frames, rows and places: no thread has to divide.
    const int size = int(team.size()), deep = size / frame;
    const int down = (size - deep * frame) / wide, along = size - deep * frame - down * wide;
    int p = int(team.rank()), oz = p / frame;
    int oy = (p - oz * frame) / wide, ox = p - oz * frame - oy * wide;
    for (; p < count; p += size) {
      const int z = oz * int(sd) + first_z, y = oy * int(sh) + first_y, c = ox * int(sw) + first_c;
      const bool inside =
          z >= 0 && z < int(d) && y >= 0 && y < int(h) && c >= 0 && c < int(w);
      out[p] = inside ? in[(z * int(h) + y) * int(w) + c] : narrow(0);
      oz += deep;
      oy += down;
      ox += along;
      if (ox >= wide) {
        ox -= wide;
        oy++;
      }
      if (oy >= high) {
        oy -= high;
        oz++;
      }
    }
  });
}

// The sum of all places of the columns that a place of the volume went to, which is added to what
// is there if `add` says so.
KERNEL(columns_to_volume)
(const scalar_t* __restrict__ columns, scalar_t* __restrict__ x, i64 add, i64 planes, i64 d, i64 od,
 i64 kd, i64 sd, i64 front, i64 dd, i64 h, i64 oh, i64 kh, i64 sh, i64 top, i64 dh, i64 w, i64 ow,
 i64 kw, i64 sw, i64 left, i64 dw) {
  const Slide deep = {int(d), int(od), int(kd), int(sd), int(front), int(dd)};
  const Slide down = {int(h), int(oh), int(kh), int(sh), int(top), int(dh)};
  const Slide along = {int(w), int(ow), int(kw), int(sw), int(left), int(dw)};
  const int frame = int(oh * ow);
  const i64 pixels = od * frame;
  for_each_place(planes * d, h, w, [&](i64 slice, i64 y, i64 c, i64 at) {
    const u32 plane = u32(slice) / u32(d);
    const scalar_t* in = columns + plane * (kd * kh * kw * pixels);
    acc_t total = add ? widen(x[at]) : acc_t(0);
    for_each_window(deep, int(u32(slice) - plane * u32(d)), [&](int oz, int k) {
      for_each_window(down, int(y), [&](int oy, int i) {
        for_each_window(along, int(c), [&](int ox, int j) {
          const int tap = (k * down.kernel + i) * along.kernel + j;
          total += widen(in[tap * pixels + oz * frame + oy * along.windows + ox]);
        });
      });
    });
    x[at] = narrow(total);
  });
}
