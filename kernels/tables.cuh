// Tables of tensors: one launch over many arrays of one dtype.
//
// A table has `width` integers per tensor, the first two being its number of elements and its
// address. Long tensors are cut into chunks; the table of chunks has for each the number of its
// tensor and its first element. A block takes a chunk at a time.
#pragma once
#include "team.cuh"

constexpr i64 LENGTH = 0, ADDRESS = 1;

DEVICE scalar_t* array_at(i64 address, i64 start) {
  return reinterpret_cast<scalar_t*>(address) + start;
}

// body(team, chunk, tensor, start, n) for every chunk: n elements of a tensor, from `start` on.
template <class Body>
DEVICE void for_each_chunk(const i64* tensors, i64 width, const i64* chunks, i64 chunk_count,
                           i64 chunk_size, Body body) {
  for_each_block(chunk_count, [&](auto team, i64 chunk) {
    const i64 tensor = chunks[2 * chunk], start = chunks[2 * chunk + 1];
    const i64 left = tensors[tensor * width + LENGTH] - start;
    body(team, chunk, tensor, start, left < chunk_size ? left : chunk_size);
  });
}

// What a function did to a pack goes back to where it came from, unless that is read-only.
DEVICE int put_back(scalar_t* array, i64 p, const Pack& pack) {
  reinterpret_cast<Pack*>(array)[p] = pack;
  return 0;
}
DEVICE int put_back(const scalar_t*, i64, const Pack&) { return 0; }

template <class Function, class... Packs>
DEVICE void each_lane(Function function, Packs&... packs) {
#pragma unroll
  for (int l = 0; l < LANES; l++) function(packs.lane[l]...);
}

// function(a[i], b[i], ...) for i < n, by a team; it may write to elements of arrays that are not
// const. No two of the arrays overlap.
template <class Team, class Function, class... Arrays>
DEVICE void for_each_element(Team team, i64 n, Function function, Arrays... arrays) {
  i64 done = 0;
#if !defined(GRADLITE_NATIVE)
  if (aligned(arrays...)) {
    done = n / LANES * LANES;
    for (i64 p = team.rank(); p < n / LANES; p += team.size()) {
      [&](auto... packs) {
        each_lane(function, packs...);
        const int stored[] = {put_back(arrays, p, packs)...};
        (void)stored;
      }(reinterpret_cast<const Pack*>(arrays)[p]...);
    }
  }
#endif
  INDEPENDENT
  for (i64 i = done + team.rank(); i < n; i += team.size()) function(arrays[i]...);
}
