// Images and volumes whose directions are resampled each by itself: every place of the result is a
// weighted sum of places of the input. So are images resized, and so are their gradients, with the
// tables turned round.
#include "places.cuh"

// What the places along one direction are made of: place i of the terms from starts[i] on, before
// starts[i + 1]. Without starts each has one term, without weights they are 1, and without places
// as well it is the place itself.
struct Line {
  const int* starts;
  const int* places;
  const acc_t* weights;
  __device__ int first(int i) const { return starts ? starts[i] : i; }
  __device__ int last(int i) const { return starts ? starts[i + 1] : i + 1; }
  __device__ int place(int term) const { return places ? places[term] : term; }
  __device__ acc_t weight(int term) const { return weights ? weights[term] : acc_t(1); }
};

// (planes, d, h, w) to (planes, od, oh, ow)
KERNEL_BLOCKS(resample, 4)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, i64 planes, i64 d, i64 h, i64 w,
 i64 od, i64 oh, i64 ow, const int* __restrict__ z_starts, const int* __restrict__ z_places,
 const acc_t* __restrict__ z_weights, const int* __restrict__ y_starts,
 const int* __restrict__ y_places, const acc_t* __restrict__ y_weights,
 const int* __restrict__ x_starts, const int* __restrict__ x_places,
 const acc_t* __restrict__ x_weights) {
  const Line deep = {z_starts, z_places, z_weights};
  const Line down = {y_starts, y_places, y_weights};
  const Line along = {x_starts, x_places, x_weights};
  for_each_place(planes * od, oh, ow, [&](i64 slice, i64 oy, i64 ox, i64 i) {
    const u32 plane = u32(slice) / u32(od);
    const int oz = int(u32(slice) - plane * u32(od));
    acc_t total = 0;
    for (int a = deep.first(oz); a < deep.last(oz); a++) {
      for (int b = down.first(int(oy)); b < down.last(int(oy)); b++) {
        const scalar_t* row = x + ((plane * d + deep.place(a)) * h + down.place(b)) * w;
        const acc_t weight = deep.weight(a) * down.weight(b);
        for (int c = along.first(int(ox)); c < along.last(int(ox)); c++) {
          total += weight * along.weight(c) * widen(row[along.place(c)]);
        }
      }
    }
    out[i] = narrow(total);
  });
}
