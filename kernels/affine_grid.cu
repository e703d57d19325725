// Where affine maps send the pixels of images and volumes, and the gradients of the maps.
//
// A map is (dims, dims + 1), the points of an image (d, h, w, dims); images have d = 1 and dims = 2.
#include "places.cuh"
#include "team.cuh"

// The number of a pixel of n: from -1 to 1 between the ends' centres, or between their far sides.
DEVICE acc_t centre(int i, int n, bool align) {
  const int steps = align ? n - 1 : n;
  return steps == 0 ? acc_t(0) : acc_t(2 * i + 1 - n) / acc_t(steps);
}

struct Pixels {
  int d, h, w;
  bool align;
  // The k-th coordinate of a pixel, and 1 after the last one.
  __device__ acc_t coordinate(int pixel, int k, int dims) const {
    if (k == dims) return 1;
    const u32 row = u32(pixel) / u32(w);
    if (k == 0) return centre(int(u32(pixel) - row * u32(w)), w, align);
    const u32 slice = row / u32(h);
    return k == 1 ? centre(int(row - slice * u32(h)), h, align) : centre(int(slice), d, align);
  }
};

KERNEL(affine_grid_forward)
(const scalar_t* __restrict__ theta, scalar_t* __restrict__ out, i64 batch, i64 d, i64 h, i64 w,
 i64 dims, i64 align) {
  const Pixels pixels = {int(d), int(h), int(w), align != 0};
  const int n = int(dims);
  for_each_place(batch, d * h * w, dims, [&](i64 image, i64 pixel, i64 i, i64 at) {
    const scalar_t* row = theta + (image * n + i) * (n + 1);
    acc_t total = 0;
    for (int k = 0; k <= n; k++) total += widen(row[k]) * pixels.coordinate(int(pixel), k, n);
    out[at] = narrow(total);
  });
}

// A team for each number of a map.
KERNEL_BLOCKS(affine_grid_backward, 3)
(const scalar_t* __restrict__ grad, scalar_t* __restrict__ dtheta, i64 batch, i64 d, i64 h, i64 w,
 i64 dims, i64 align) {
  const Pixels pixels = {int(d), int(h), int(w), align != 0};
  const int n = int(dims), count = int(d * h * w);
  for_each_row(batch * n * (n + 1), [&](auto team, i64 at) {
    const i64 row = at / (n + 1), image = row / n;
    const int k = int(at - row * (n + 1)), i = int(row - image * n);
    const scalar_t* g = grad + image * count * n + i;
    acc_t total = 0;
    for (int p = int(team.rank()); p < count; p += int(team.size())) {
      total += widen(g[i64(p) * n]) * pixels.coordinate(p, k, n);
    }
    total = team.sum(total);
    if (team.rank() == 0) dtheta[at] = narrow(total);
  });
}
