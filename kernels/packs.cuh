// Rows of any length that start anywhere, 16 bytes at a time: what does not fill a pack at either
// end of a row goes element by element.
//
//     const Packs row = packs_of(columns, in, out);
//     for (i64 c = row.first(team); c < columns; c += row.step(team)) {
//       Pack pack = row.load(in, c, 0);  // of columns c to c + LANES - 1, with 0 beyond the row
//       ...
//       row.store(out, c, pack);
//     }
#pragma once
#include "team.cuh"

#if !defined(GRADLITE_NATIVE)

struct Packs {
  i64 columns;
  int before;  // of the first pack's lanes, how many lie ahead of the row
  bool whole;  // whether packs can be read and written at once

  template <class Team>
  __device__ i64 first(const Team& team) const {
    return team.rank() * LANES - before;
  }
  template <class Team>
  __device__ i64 step(const Team& team) const {
    return team.size() * LANES;
  }
  // Whether a team has its share of the row in N packs to a thread.
  template <int N, class Team>
  __device__ bool fits(const Team& team) const {
    return columns + before <= N * LANES * team.size();
  }

  template <class Index>
  __device__ Pack load(const scalar_t* data, Index c, acc_t otherwise) const {
    Pack pack;
#pragma unroll
    for (int l = 0; l < LANES; l++) pack.lane[l] = narrow(otherwise);
    if (whole && c >= 0 && c + LANES <= Index(columns)) {
      pack = *reinterpret_cast<const Pack*>(data + c);
    } else if (c < Index(columns)) {
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        if (c + l >= 0 && c + l < Index(columns)) pack.lane[l] = data[c + l];
      }
    }
    return pack;
  }

  template <class Index>
  __device__ void store(scalar_t* data, Index c, const Pack& pack) const {
    if (whole && c >= 0 && c + LANES <= Index(columns)) {
      *reinterpret_cast<Pack*>(data + c) = pack;
    } else if (c < Index(columns)) {
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        if (c + l >= 0 && c + l < Index(columns)) data[c + l] = pack.lane[l];
      }
    }
  }
};

// Of a row that lies in several arrays. Where they do not start alike, no pack is whole.
template <class... More>
DEVICE Packs packs_of(i64 columns, const scalar_t* data, const More*... more) {
  const bool alike = (... && (((u64(data) ^ u64(more)) & 15u) == 0));
  return {columns, alike ? int((u64(data) & 15u) / sizeof(scalar_t)) : 0, alike};
}

// body(k, c) for the thread's packs of a row that fits: its k-th starts at column c.
template <int N, class Team, class Body>
DEVICE void for_kept(const Team& team, const Packs& row, Body body) {
  const int step = int(row.step(team)), columns = int(row.columns);
  int c = int(row.first(team));
#pragma unroll
  for (int k = 0; k < N; k++, c += step) {
    if (k * step - row.before >= columns) break;
    body(k, c);
  }
}

#endif
