// Borders of an array taken from its inside: mirrored, repeated or wrapped around.
//
// An array is seen as (outer, planes, rows, columns), of which the last three may get borders. A
// border is as wide as what it is taken from at most (but where it repeats the edge), and of a
// negative width where elements are cut off. There must be fewer than 2^31 elements.
#include "common.cuh"

constexpr i64 REFLECT = 0, REPLICATE = 1;  // else circular

// One padded dimension of n elements.
struct Border {
  int n, before, size, kind;

  // The element that a place copies.
  __device__ int source(int place) const {
    const int p = place - before;
    if (kind == REPLICATE) return math::smaller(math::larger(p, 0), n - 1);
    if (kind == REFLECT) {
      const int q = p < 0 ? -p : p;
      return q < n ? q : 2 * (n - 1) - q;
    }
    const int q = p < cut() ? p + kept() : p;
    return q < cut() + kept() ? q : q - kept();
  }
  // What is left of the elements for a circle, and how many are cut off before it.
  __device__ int cut() const { return before < 0 ? -before : 0; }
  __device__ int kept() const {
    const int after = size - n - before;
    return n - cut() + (after < 0 ? after : 0);
  }
};

DEVICE Border border_of(i64 n, i64 before, i64 after, i64 kind) {
  return {int(n), int(before), int(n + before + after), int(kind)};
}

// body(place) for every place that copies element i.
template <class Body>
DEVICE void for_each_copy(Border border, int i, Body body) {
  const int own = i + border.before, last = border.n - 1;
  if (border.kind == REPLICATE) {
    const int first = math::larger(i == 0 ? 0 : own, 0);
    const int end = math::smaller(i == last ? border.size : own + 1, border.size);
    ROLLED
    for (int place = first; place < end; place++) body(place);
    return;
  }
  const bool mirrors = border.kind == REFLECT;
  const bool inside = mirrors || (i >= border.cut() && i < border.cut() + border.kept());
  ROLLED
  for (int k = 0; k < 3; k++) {  // itself, and its copies in the two borders
    int place = own;
    bool copied = inside;
    if (mirrors && k > 0) {
      copied = k == 1 ? i > 0 : i < last;
      place = border.before + (k == 1 ? 0 : 2 * last) - i;
    } else if (k > 0) {
      place += k == 1 ? -border.kept() : border.kept();
    }
    if (copied && place >= 0 && place < border.size) body(place);
  }
}

KERNEL(border_pad)
(const scalar_t* __restrict__ x, scalar_t* __restrict__ out, i64 outer, i64 kind, i64 planes,
 i64 planes_before, i64 planes_after, i64 rows, i64 rows_before, i64 rows_after, i64 columns,
 i64 columns_before, i64 columns_after) {
  const Border z = border_of(planes, planes_before, planes_after, kind);
  const Border y = border_of(rows, rows_before, rows_after, kind);
  const Border w = border_of(columns, columns_before, columns_after, kind);
  const u32 count = u32(outer) * u32(z.size) * u32(y.size) * u32(w.size);
  for (u32 at = u32(thread_index()); at < count; at += u32(thread_count())) {
    const u32 row = at / u32(w.size), plane = row / u32(y.size), o = plane / u32(z.size);
    const u32 from_plane = o * u32(z.n) + u32(z.source(int(plane - o * u32(z.size))));
    const u32 from_row = from_plane * u32(y.n) + u32(y.source(int(row - plane * u32(y.size))));
    out[at] = x[from_row * u32(w.n) + u32(w.source(int(at - row * u32(w.size))))];
  }
}

// The gradient of x: each element's is the sum of those of its copies.
KERNEL(border_pad_backward)
(const scalar_t* __restrict__ grad, scalar_t* __restrict__ dx, i64 outer, i64 kind, i64 planes,
 i64 planes_before, i64 planes_after, i64 rows, i64 rows_before, i64 rows_after, i64 columns,
 i64 columns_before, i64 columns_after) {
  const Border z = border_of(planes, planes_before, planes_after, kind);
  const Border y = border_of(rows, rows_before, rows_after, kind);
  const Border w = border_of(columns, columns_before, columns_after, kind);
  const u32 count = u32(outer) * u32(z.n) * u32(y.n) * u32(w.n);
  for (u32 at = u32(thread_index()); at < count; at += u32(thread_count())) {
    const u32 row = at / u32(w.n), plane = row / u32(y.n), o = plane / u32(z.n);
    acc_t total = 0;
    for_each_copy(z, int(plane - o * u32(z.n)), [&](int p) {
      for_each_copy(y, int(row - plane * u32(y.n)), [&](int r) {
        const u32 start = ((o * u32(z.size) + u32(p)) * u32(y.size) + u32(r)) * u32(w.size);
        for_each_copy(w, int(at - row * u32(w.n)),
                      [&](int c) { total += widen(grad[start + u32(c)]); });
      });
    });
    dx[at] = narrow(total);
  }
}
