// Rows that are read more than once: kept in registers where they fit, read again elsewhere.
//
//     for_each_row(rows, [&](auto team, i64 r) {
//       with_row<1>(team, columns, aligned(x, y, weight), [&](auto row) {
//         const auto in = row.keep(x + r * columns);
//         acc_t total = 0;
//         row.each([&](acc_t value) { total += value; }, in);
//         total = team.sum(total);
//         row.map(y + r * columns, [&](acc_t value, acc_t w) { return value / total * w; }, in,
//                 Optional{weight, 1});
//       });
//     });
//
// Both go through the row 16 bytes at a time where memory lies so that they can. What `each` and
// `map` take after the function is a kept row, a pointer, an Optional or Channels.
#pragma once
#include "team.cuh"

// A row that may be absent: `otherwise` stands for all of its elements then.
struct Optional {
  const scalar_t* data;
  acc_t otherwise;
};

// A row of planes of `length` elements, each of which has one element of `data`; or `otherwise`.
// Such a row has at most 2^31 elements: division of larger numbers is slow.
struct Channels {
  const scalar_t* data;
  acc_t otherwise;
  u32 length;
};

DEVICE acc_t element(const scalar_t* data, i64 c) { return widen(data[c]); }
DEVICE acc_t element(Optional row, i64 c) { return row.data ? widen(row.data[c]) : row.otherwise; }
DEVICE acc_t element(Channels row, i64 c) {
  return row.data ? widen(row.data[u32(c) / row.length]) : row.otherwise;
}

#if defined(GRADLITE_NATIVE)

// One value for a run of elements.
struct Constant {
  acc_t value;
};
DEVICE acc_t element(Constant row, i64) { return row.value; }

// For how long a row's elements come from one loop, and what they are from element c on.
DEVICE i64 run_of(i64 columns) { return columns; }
template <class... More>
DEVICE i64 run_of(i64 columns, Channels row, More... more) {
  return run_of(math::smaller(columns, i64(row.length)), more...);
}
template <class First, class... More>
DEVICE i64 run_of(i64 columns, First, More... more) {
  return run_of(columns, more...);
}
template <class Row>
DEVICE Row at(i64, Row row) {
  return row;
}
DEVICE Constant at(i64 c, Channels row) { return {element(row, c)}; }

struct SerialRow {
  i64 columns;

  const scalar_t* keep(const scalar_t* data) const { return data; }

  template <class Function, class... In>
  void each(Function function, In... in) const {
    const i64 run = run_of(columns, in...);
    for (i64 first = 0; first < columns; first += run) {
      each_of(first, first + run, function, at(first, in)...);
    }
  }

  template <class Function, class... In>
  void map(scalar_t* out, Function function, In... in) const {
    const i64 run = run_of(columns, in...);
    for (i64 first = 0; first < columns; first += run) {
      map_of(first, first + run, out, function, at(first, in)...);
    }
  }

 private:
  template <class Function, class... In>
  static void each_of(i64 first, i64 last, Function& function, In... in) {
    for (i64 c = first; c < last; c++) function(element(in, c)...);
  }
  template <class Function, class... In>
  static void map_of(i64 first, i64 last, scalar_t* out, Function& function, In... in) {
    INDEPENDENT
    for (i64 c = first; c < last; c++) out[c] = narrow(function(element(in, c)...));
  }
};

template <int ROWS, class Team, class Body>
DEVICE void with_row(Team, i64 columns, bool, Body body) {
  body(SerialRow{columns});
}

template <int PACKS, class Team, class Body>
DEVICE void with_short_row(Team, i64 columns, bool, Body body) {
  body(SerialRow{columns});
}

template <class Team>
DEVICE SerialRow row_of(Team, i64 columns) {
  return {columns};
}

template <class Team>
DEVICE SerialRow plain_row(Team, i64 columns) {
  return {columns};
}

#else

// The packs of a row that a thread keeps, 16 bytes each.
template <int PACKS>
struct Kept {
  Pack packs[PACKS];
};

// The k-th pack of a thread is pack p of the row.
template <int PACKS>
DEVICE Pack pack_of(const Kept<PACKS>& row, int k, i64) {
  return row.packs[k];
}
DEVICE Pack pack_of(const scalar_t* data, int, i64 p) {
  return reinterpret_cast<const Pack*>(data)[p];
}
DEVICE Pack pack_of(Optional row, int k, i64 p) {
  if (row.data) return pack_of(row.data, k, p);
  Pack result;
#pragma unroll
  for (int l = 0; l < LANES; l++) result.lane[l] = narrow(row.otherwise);
  return result;
}

// Planes of one element are a row as any other, whose memory has to lie so that it has packs.
DEVICE Pack pack_of(Channels row, int k, i64 p) {
  if (!row.data || row.length == 1) return pack_of(Optional{row.data, row.otherwise}, k, p);
  const u32 first = u32(p) * LANES;
  u32 channel = first / row.length, left = (channel + 1) * row.length - first;
  scalar_t value = row.data[channel];
  Pack result;
#pragma unroll
  for (int l = 0; l < LANES; l++) {
    if (left-- == 0) {
      left = row.length - 1;
      value = row.data[++channel];
    }
    result.lane[l] = value;
  }
  return result;
}

template <class Function, class... Packs>
DEVICE void each_lane(Function function, Packs... packs) {
#pragma unroll
  for (int l = 0; l < LANES; l++) function(widen(packs.lane[l])...);
}

// A row of whole packs, at most PACKS to a thread.
template <int PACKS, class Team>
struct KeptRow {
  Team team;
  i64 columns;

  __device__ Kept<PACKS> keep(const scalar_t* data) const {
    Kept<PACKS> row;
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      const i64 p = team.rank() + k * team.size();
      if (p * LANES < columns) row.packs[k] = pack_of(data, k, p);
    }
    return row;
  }

  template <class Function, class... In>
  __device__ void each(Function function, const In&... in) const {
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      const i64 p = team.rank() + k * team.size();
      if (p * LANES < columns) each_lane(function, pack_of(in, k, p)...);
    }
  }

  template <class Function, class... In>
  __device__ void map(scalar_t* out, Function function, const In&... in) const {
#pragma unroll
    for (int k = 0; k < PACKS; k++) {
      const i64 p = team.rank() + k * team.size();
      if (p * LANES < columns) {
        reinterpret_cast<Pack*>(out)[p] = map_lanes(function, pack_of(in, k, p)...);
      }
    }
  }
};

// Whether packs can be read from element `head` on, and the row that begins there.
DEVICE bool packs_from(i64 head, const scalar_t* data) { return aligned(data + head); }
DEVICE bool packs_from(i64 head, Optional row) { return !row.data || aligned(row.data + head); }
DEVICE bool packs_from(i64 head, Channels row) {
  return row.length == 1 ? packs_from(head, Optional{row.data, row.otherwise}) : head == 0;
}
DEVICE const scalar_t* from(i64 head, const scalar_t* data) { return data + head; }
DEVICE Optional from(i64 head, Optional row) {
  return {row.data ? row.data + head : nullptr, row.otherwise};
}
DEVICE Channels from(i64 head, Channels row) {  // head is 0 where a plane has several elements
  return {row.data ? row.data + head : nullptr, row.otherwise, row.length};
}

// Any row, read from memory every time. Rows of odd lengths start anywhere: what lies before the
// first 16-byte boundary goes element by element, and everything does where rows differ in it.
template <class Team>
struct LongRow {
  Team team;
  i64 columns;

  __device__ const scalar_t* keep(const scalar_t* data) const { return data; }

  template <class Function, class... In>
  __device__ void each(Function function, In... in) const {
    constexpr int AT_ONCE = sizeof...(In) < 4 ? 4 / sizeof...(In) : 1;
    const i64 head = before_packs(in...), packs = (columns - head) / LANES;
    for (i64 c = team.rank(); c < head; c += team.size()) function(element(in, c)...);
#pragma unroll AT_ONCE
    for (i64 p = team.rank(); p < packs; p += team.size()) {
      each_lane(function, pack_of(from(head, in), 0, p)...);
    }
    for (i64 c = head + packs * LANES + team.rank(); c < columns; c += team.size()) {
      function(element(in, c)...);
    }
  }

  template <class Function, class... In>
  __device__ void map(scalar_t* out, Function function, In... in) const {
    constexpr int AT_ONCE = sizeof...(In) < 4 ? 4 / sizeof...(In) : 1;
    const i64 head = before_packs(out, in...), packs = (columns - head) / LANES;
    for (i64 c = team.rank(); c < head; c += team.size()) {
      out[c] = narrow(function(element(in, c)...));
    }
#pragma unroll AT_ONCE
    for (i64 p = team.rank(); p < packs; p += team.size()) {
      reinterpret_cast<Pack*>(out + head)[p] = map_lanes(function, pack_of(from(head, in), 0, p)...);
    }
    for (i64 c = head + packs * LANES + team.rank(); c < columns; c += team.size()) {
      out[c] = narrow(function(element(in, c)...));
    }
  }

 private:
  // How many elements lie before the first pack: all where packs do not fit.
  template <class... More>
  __device__ i64 before_packs(const scalar_t* first, More... more) const {
    const i64 head = i64((0 - u64(first)) & 15u) / i64(sizeof(scalar_t));
    return (... && packs_from(head, more)) ? math::smaller(head, columns) : columns;
  }
};

// A row that is read once.
template <class Team>
DEVICE LongRow<Team> row_of(Team team, i64 columns) {
  return {team, columns};
}

// body(row) with a KeptRow or a LongRow. ROWS is how many rows are kept at once, `vectors`
// whether all arrays start on 16 bytes.
template <int ROWS, class Team, class Body>
DEVICE void with_row(Team team, i64 columns, bool vectors, Body body) {
  constexpr int PACKS = 8 / ROWS;  // 32 registers
  if (vectors && columns % LANES == 0 && columns <= PACKS * LANES * team.size()) {
    body(KeptRow<PACKS, Team>{team, columns});
  } else {
    body(LongRow<Team>{team, columns});
  }
}

// A row that is read element by element, every time.
template <class Team>
struct PlainRow {
  Team team;
  i64 columns;

  __device__ const scalar_t* keep(const scalar_t* data) const { return data; }

  template <class Function, class... In>
  __device__ void each(Function function, In... in) const {
    ROLLED
    for (i64 c = team.rank(); c < columns; c += team.size()) function(element(in, c)...);
  }

  template <class Function, class... In>
  __device__ void map(scalar_t* out, Function function, In... in) const {
    ROLLED
    for (i64 c = team.rank(); c < columns; c += team.size()) {
      out[c] = narrow(function(element(in, c)...));
    }
  }
};

template <class Team>
DEVICE PlainRow<Team> plain_row(Team team, i64 columns) {
  return {team, columns};
}

// The same for rows so short that their packs, at most PACKS to a thread, are kept in any case.
template <int PACKS, class Team, class Body>
DEVICE void with_short_row(Team team, i64 columns, bool vectors, Body body) {
  if (vectors && columns % LANES == 0) {
    body(KeptRow<PACKS, Team>{team, columns});
  } else {
    body(plain_row(team, columns));
  }
}

#endif
