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
  i64 inner;   // the columns below which a pack that begins there is whole; 0 where none is
  int before;  // of the first pack's lanes, how many lie ahead of the row

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

  __device__ bool is_whole(int c) const { return u32(c) < u32(inner); }
  __device__ bool is_whole(i64 c) const { return u64(c) < u64(inner); }

  template <class Index>
  __device__ Pack load(const scalar_t* data, Index c, acc_t otherwise) const {
    Pack pack;
    if (is_whole(c)) {
      pack = *reinterpret_cast<const Pack*>(data + unsigned_of(c));
    } else {
#pragma unroll
      for (int l = 0; l < LANES; l++) pack.lane[l] = narrow(otherwise);
      if (c < Index(columns)) {
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          if (c + l >= 0 && c + l < Index(columns)) pack.lane[l] = data[c + l];
        }
      }
    }
    return pack;
  }

  template <class Index>
  __device__ void store(scalar_t* data, Index c, const Pack& pack) const {
    if (is_whole(c)) {
      *reinterpret_cast<Pack*>(data + unsigned_of(c)) = pack;
    } else if (c < Index(columns)) {
#pragma unroll
      for (int l = 0; l < LANES; l++) {
        if (c + l >= 0 && c + l < Index(columns)) data[c + l] = pack.lane[l];
      }
    }
  }

 private:
  // Of a column in the row, for addresses that take one instruction.
  static __device__ u32 unsigned_of(int c) { return u32(c); }
  static __device__ i64 unsigned_of(i64 c) { return c; }
};

// Of a row that lies in several arrays. Where they do not start alike, no pack is whole.
template <class... More>
DEVICE Packs packs_of(i64 columns, const scalar_t* data, const More*... more) {
  const bool alike = (... && (((u64(data) ^ u64(more)) & 15u) == 0));
  const i64 inner = alike && columns >= LANES ? columns - LANES + 1 : 0;
  return {columns, inner, alike ? int((u64(data) & 15u) / sizeof(scalar_t)) : 0};
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
