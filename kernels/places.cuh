// Loops over all places of a three-dimensional array, and windows that slide over images.
#pragma once
#include "common.cuh"

// body(o, j, c, i) for all elements i = (o, j, c) of (outer, count, inner). There must be fewer
// than 2^31 of them: a GPU divides numbers of 32 bits several times as fast.
template <class Body>
DEVICE void for_each_place(i64 outer, i64 count, i64 inner, Body body) {
#if defined(GRADLITE_NATIVE)
  i64 i = 0;
  for (i64 o = 0; o < outer; o++) {
    for (i64 j = 0; j < count; j++, i += inner) {
      INDEPENDENT
      for (i64 c = 0; c < inner; c++) body(o, j, c, i + c);
    }
  }
#else
  const u32 n = u32(outer * count * inner), columns = u32(inner), rows = u32(count);
  for (u32 i = u32(thread_index()); i < n; i += u32(thread_count())) {
    const u32 row = i / columns, o = row / rows;
    body(i64(o), i64(row - o * rows), i64(i - row * columns), i64(i));
  }
#endif
}

// body(r, i) for all elements i of (outer, n, inner), r being the one of (outer, inner) that a
// reduction of n has made of it and its like.
template <class Body>
DEVICE void for_each_reduced(i64 outer, i64 n, i64 inner, Body body) {
#if defined(GRADLITE_NATIVE)
  if (inner == 1) {  // the loop that is vectorised goes along n
    for_each_place(outer, 1, n, [&](i64 o, i64, i64, i64 i) { body(o, i); });
    return;
  }
#endif
  for_each_place(outer, n, inner, [&](i64 o, i64, i64 c, i64 i) { body(o * inner + c, i); });
}

// How windows slide along one direction of an image: window w covers the places
// w * stride - before + k * dilation for k < kernel, as far as they are in the image.
struct Slide {
  int size, windows, kernel, stride, before, dilation;

  // The first k inside the image, and the first one beyond it.
  __device__ int first(int window) const {
    const int outside = before - window * stride;
    return outside <= 0 ? 0 : (outside + dilation - 1) / dilation;
  }
  __device__ int last(int window) const {
    const int inside = size - 1 - (window * stride - before);
    if (inside < 0) return 0;
    const int k = inside / dilation + 1;
    return k < kernel ? k : kernel;
  }
  __device__ int place(int window, int k) const { return window * stride - before + k * dilation; }
};

// body(window, k) for every window that covers a place, and which of its elements that is.
template <class Body>
DEVICE void for_each_window(const Slide& slide, int place, Body body) {
  const int reach = (slide.kernel - 1) * slide.dilation;
  const int behind = place + slide.before;  // the first place of window 0
  if (behind < 0) return;
  int window = behind / slide.stride;
  if (window >= slide.windows) window = slide.windows - 1;
  for (; window >= 0; window--) {
    const int within = behind - window * slide.stride;
    if (within > reach) break;
    const int k = slide.dilation == 1 ? within : within / slide.dilation;
    if (k * slide.dilation == within) body(window, k);
  }
}
