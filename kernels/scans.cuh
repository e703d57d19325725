// Running results along the middle dimension of (outer, n, inner), in one pass over the array.
//
// A state is what a run of neighbouring elements comes to: `State::none()` of no element, and
// `a.then(b)` of a run and of the one behind it. A column is the n elements that belong together.
//
//     scan<Total>(columns, scratch, leaves, [=](i64 at, i64) { return Total{widen(x[at])}; },
//                 [=](i64 at, i64, Total so_far) { y[at] = narrow(so_far.value); });
//
// Where columns are few and long, each is cut into parts, by two launches: the first, which
// `leaves`, puts what each part comes to into `scratch`; the second begins with the parts before.
//
// A block of 256 threads has `width` columns, a power of two, and shares the steps of each: a
// thread has some that follow one another, in shared memory it finds what those before it have.
#pragma once
#include "common.cuh"

struct Columns {
  i64 outer, n, inner, parts, width;
  bool backwards;  // from the end of each column to its beginning

  __device__ i64 count() const { return outer * inner; }
  __device__ i64 start(i64 column) const {
    const i64 o = inner == 1 ? column : column / inner;
    return o * n * inner + (column - o * inner);
  }
  // Which element of the column a step comes to.
  __device__ i64 element(i64 step) const { return backwards ? n - 1 - step : step; }
};

// What the parts before one come to.
template <class State>
DEVICE State parts_before(const State* scratch, i64 part, i64 column, i64 count) {
  State result = State::none();
  for (i64 p = 0; p < part; p++) result = result.then(scratch[p * count + column]);
  return result;
}

#if defined(GRADLITE_NATIVE)

// Some columns go together, so that one need not wait for the other: those beside each other, of
// which a step is one piece of memory, or whole ones.
template <int SOME, bool BESIDE, class State, class Element, class Write>
DEVICE void scan_some(const Columns& columns, State* so_far, i64 first, i64 last, i64 start,
                      bool leaves, Element element, Write write) {
  const i64 apart = BESIDE ? 1 : columns.n;
  for (i64 step = first; step < last; step++) {
    const i64 j = columns.element(step), at = start + j * columns.inner;
    for (int c = 0; c < SOME; c++) {
      so_far[c] = so_far[c].then(element(at + c * apart, j));
      if (!leaves) write(at + c * apart, j, so_far[c]);
    }
  }
}

template <class State, class Element, class Write>
DEVICE void scan(const Columns& columns, void* scratch, bool leaves, Element element, Write write) {
  constexpr int SOME = 8;
  const i64 count = columns.count(), size = (columns.n + columns.parts - 1) / columns.parts;
  State* of_parts = static_cast<State*>(scratch);
  for (i64 part = 0; part < columns.parts; part++) {
    const i64 first = part * size, last = math::smaller(first + size, columns.n);
    i64 column = 0;
    while (column < count) {
      const bool beside = columns.inner > 1;
      const i64 left = (beside ? columns.inner - column % columns.inner : count - column);
      const int some = left < SOME ? 1 : SOME;
      State so_far[SOME];
      for (int c = 0; c < some; c++) {
        so_far[c] = leaves ? State::none() : parts_before(of_parts, part, column + c, count);
      }
      const i64 start = columns.start(column);
      if (some == 1) {
        scan_some<1, true>(columns, so_far, first, last, start, leaves, element, write);
      } else if (beside) {
        scan_some<SOME, true>(columns, so_far, first, last, start, leaves, element, write);
      } else {
        scan_some<SOME, false>(columns, so_far, first, last, start, leaves, element, write);
      }
      for (int c = 0; c < some && leaves; c++) of_parts[part * count + column + c] = so_far[c];
      column += some;
    }
  }
}

#else

template <class State, class Element, class Write>
DEVICE void scan(const Columns& columns, void* scratch, bool leaves, Element element, Write write) {
  constexpr int EACH = 4;
  __shared__ State ahead[2][256];
  const int thread = int(threadIdx.x), width = int(columns.width), depth = 256 / width;
  // Threads beside each other read what lies beside each other.
  const int reach = columns.inner == 1 ? 1 : width;
  const int y = columns.inner == 1 ? thread % depth : thread / width;
  const int x = columns.inner == 1 ? thread / depth : thread % width;
  const i64 count = columns.count(), tiles = (count + width - 1) / width;
  const i64 size = (columns.n + columns.parts - 1) / columns.parts;
  State* of_parts = static_cast<State*>(scratch);
  for (i64 block = blockIdx.x; block < tiles * columns.parts; block += gridDim.x) {
    const i64 part = block / tiles, column = (block - part * tiles) * width + x;
    const i64 first = part * size, last = math::smaller(first + size, columns.n);
    const bool mine = column < count;
    const i64 start = mine ? columns.start(column) : 0;
    State so_far = mine && !leaves ? parts_before(of_parts, part, column, count) : State::none();
    ROLLED
    for (i64 from = first; from < last; from += depth * EACH) {
      State own[EACH], total = State::none();
#pragma unroll
      for (int k = 0; k < EACH; k++) {
        const i64 step = from + y * EACH + k, j = columns.element(step);
        if (mine && step < last) total = total.then(element(start + j * columns.inner, j));
        own[k] = total;
      }
      int turn = 0;
      ahead[0][thread] = total;
      __syncthreads();
      ROLLED
      for (int distance = 1; distance < depth; distance *= 2) {
        if (y >= distance) total = ahead[turn][thread - distance * reach].then(total);
        turn = 1 - turn;
        ahead[turn][thread] = total;
        __syncthreads();
      }
      const State before = y == 0 ? so_far : so_far.then(ahead[turn][thread - reach]);
      so_far = so_far.then(ahead[turn][thread + (depth - 1 - y) * reach]);
      __syncthreads();  // before the next steps are written there
      if (leaves) continue;
#pragma unroll
      for (int k = 0; k < EACH; k++) {
        const i64 step = from + y * EACH + k, j = columns.element(step);
        if (mine && step < last) write(start + j * columns.inner, j, before.then(own[k]));
      }
    }
    if (leaves && mine && y == 0) of_parts[part * count + column] = so_far;
  }
}

#endif
