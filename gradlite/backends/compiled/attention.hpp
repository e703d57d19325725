// Attention head by head, softmax(scale q kᵀ + mask) v, and its gradients, causal or not; comes
// after prelude.hpp, shuffles.hpp and heads.hpp. Compiled once: steps call it through pointers.
//
// Scores are made for STRIP queries at a time and the keys that these see, key by key with the
// queries side by side, so that maxima and sums over keys are those of whole vectors. What is kept
// of each strip, for the gradients, is (keys + 1, STRIP): the powers 2^(score - largest score), and
// in the last row what turns them into weights, the inverse of their sum.
static constexpr int LANES = Vector<float>::lanes, SIDES = STRIP / LANES;
typedef Vector<float>::type Queries;
typedef int Places __attribute__((vector_size(WIDE), aligned(4)));
#if defined(__AVX512F__)
static constexpr int TILE = 8;  // rows whose sums are in registers at once
#else
static constexpr int TILE = 4;
#endif

// (M, VECTORS * LANES) products of A, with any strides, and of B, whose vectors lie `sv` apart; they
// are added to what is in C, or take its place.
template <int ROWS, int VECTORS, bool ADDED>
static inline void sums(const float* a, i64 sm, i64 sk, const float* b, i64 sb, i64 sv, float* c,
                        i64 sc, i64 K) {
  Queries sum[ROWS][VECTORS];
  UNROLLED for (int m = 0; m < ROWS; m++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) sum[m][v] = Queries{};
  }
  for (i64 k = 0; k < K; k++) {
    Queries row[VECTORS];
    UNROLLED for (int v = 0; v < VECTORS; v++) row[v] = *(const Queries*)(b + k * sb + v * sv);
    UNROLLED for (int m = 0; m < ROWS; m++) {
      const float value = a[m * sm + k * sk];
      UNROLLED for (int v = 0; v < VECTORS; v++) sum[m][v] += value * row[v];
    }
  }
  UNROLLED for (int m = 0; m < ROWS; m++) {
    UNROLLED for (int v = 0; v < VECTORS; v++) {
      Queries& at = *(Queries*)(c + m * sc + v * LANES);
      at = ADDED ? at + sum[m][v] : sum[m][v];
    }
  }
}

template <int VECTORS, bool ADDED>
static inline void all_rows(const float* a, i64 sm, i64 sk, const float* b, i64 sb, i64 sv, float* c,
                            i64 sc, i64 M, i64 K) {
  constexpr int MOST = VECTORS == 1 ? 2 * TILE : TILE;
  i64 m = 0;
  for (; m + MOST <= M; m += MOST) {
    sums<MOST, VECTORS, ADDED>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
  }
  if (MOST > TILE && m + TILE <= M) {
    sums<TILE, VECTORS, ADDED>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
    m += TILE;
  }
  for (; m < M; m++) sums<1, VECTORS, ADDED>(a + m * sm, sm, sk, b, sb, sv, c + m * sc, sc, K);
}

// C = A B or C += A B for rows of B and C of whole vectors, N elements.
template <bool ADDED>
static inline void times(const float* a, i64 sm, i64 sk, const float* b, i64 sb, float* c, i64 sc,
                         i64 M, i64 N, i64 K) {
  i64 n = 0;
  for (; n + 2 * LANES <= N; n += 2 * LANES) {
    all_rows<2, ADDED>(a, sm, sk, b + n, sb, LANES, c + n, sc, M, K);
  }
  if (n < N) all_rows<1, ADDED>(a, sm, sk, b + n, sb, LANES, c + n, sc, M, K);
}

// 2^x for x <= 0, where it is 0 from -127.5 down; the polynomial is our own minimax fit.
static inline Queries power_of_two(Queries x) {
  x = x < -127.0f ? Queries{} - 127.0f : x;
  const Queries shifted = x + 12582912.0f;  // the nearest whole number is in its last places
  const Queries f = x - (shifted - 12582912.0f);
  Queries p = f * 1.3264727e-3f + 9.6715130e-3f;
  p = p * f + 5.5507336e-2f;
  p = p * f + 2.4022242e-1f;
  p = p * f + 6.9314700e-1f;
  p = p * f + 1.0f;
  return p * (Queries)(((Places)shifted + 127) << 23);
}

// A head's queries, keys or values: elements lie `column` apart and rows `row`.
struct Rows {
  float* data;
  i64 row, column;
};

static Rows of_head(const Stack& x, const Heads& h, i64 number) {
  if (!x.data) return {nullptr, 0, 0};
  char* data = x.data;
  for (i64 d = h.dimensions - 1; d >= 0; number /= h.counts[d--]) {
    data += number % h.counts[d] * x.strides[d];
  }
  const i64 item = sizeof(float), *const inner = x.strides + h.dimensions;
  return {(float*)data, inner[0] / item, inner[1] / item};
}

static inline i64 whole_vectors(i64 n) { return (n + LANES - 1) / LANES * LANES; }

// One head's sizes; rows of `size` and of `value_size` are padded to whole vectors in copies.
struct Head {
  i64 queries, keys, size, value_size, padded, value_padded;
  bool causal;
  float scale;

  Head(const Heads& h)
      : queries(h.queries), keys(h.keys), size(h.size), value_size(h.value_size),
        padded(whole_vectors(h.size)), value_padded(whole_vectors(h.value_size)),
        causal(h.causal), scale(float(h.scale)) {}

  // The keys that a strip of queries sees.
  i64 seen(i64 first) const { return causal && first + STRIP < keys ? first + STRIP : keys; }
};

// Rows of whole vectors, `row` apart.
struct Padded {
  const float* data;
  i64 row;
};

// Rows as they are or, where they do not consist of whole vectors or are so many that they had
// better lie close together, copied to `room` and padded with zeros.
static Padded padded(const Rows& x, i64 rows, i64 size, i64 padded, float* room) {
  if (x.column == 1 && size == padded && rows <= 128) return {x.data, x.row};
  for (i64 r = 0; r < rows; r++) {
    const float* from = x.data + r * x.row;
    float* to = room + r * padded;
    if (x.column == 1) {
      memcpy(to, from, size * sizeof(float));
    } else {
      for (i64 c = 0; c < size; c++) to[c] = from[c * x.column];
    }
    for (i64 c = size; c < padded; c++) to[c] = 0;
  }
  return {room, padded};
}

// A strip's rows from first on, of which there may be fewer, as columns: SIDES times (size, LANES).
static void turned_strip(const Rows& x, i64 first, i64 rows, i64 size, float* out) {
  for (int side = 0; side < SIDES; side++, first += LANES, rows -= LANES, out += size * LANES) {
    const float* from = x.data + first * x.row;
    if (rows >= LANES) {
      turned(from, x.column, x.row, out, size);
      continue;
    }
    for (i64 k = 0; k < size; k++) {
      for (int l = 0; l < LANES; l++) out[k * LANES + l] = l < rows ? from[k * x.column + l * x.row] : 0;
    }
  }
}

static inline void scaled(float* panel, i64 size, const Queries (&factors)[SIDES]) {
  for (int side = 0; side < SIDES; side++, panel += size * LANES) {
    for (i64 k = 0; k < size; k++) *(Queries*)(panel + k * LANES) *= factors[side];
  }
}

// A pointer: clang takes a reference that a function returns to lie where vectors usually do.
static inline Queries* at(float* strip, i64 key, int side) {
  return (Queries*)(strip + key * STRIP + side * LANES);
}

// What is added to the scores of a head: bools, which hide a key, or numbers; rows of queries may be
// one and the same.
struct Hidden {
  const char* data;
  i64 row, column;  // in bytes
  int item;         // of numbers, or of bools

  Hidden(const Mask& mask, const Heads& h, i64 number) : data(mask.stack.data), item(mask.item) {
    if (!data) return;
    for (i64 d = h.dimensions - 1; d >= 0; number /= h.counts[d--]) {
      data += number % h.counts[d] * mask.stack.strides[d];
    }
    row = mask.stack.strides[h.dimensions], column = mask.stack.strides[h.dimensions + 1];
  }

  // A query's part of it, in units of ln 2.
  void query(i64 number, i64 keys, float* out) const {
    const char* from = data + number * row;
    if (item == 1 && column == 1) {
      for (i64 k = 0; k < keys; k++) out[k] = from[k] ? 0.0f : -__builtin_inff();
    } else if (item == 1) {
      for (i64 k = 0; k < keys; k++) out[k] = from[k * column] ? 0.0f : -__builtin_inff();
    } else {
      for (i64 k = 0; k < keys; k++) out[k] = *(const float*)(from + k * column) * 1.44269504f;
    }
  }

  // Add it to the scores of some queries; `room` is for 2 STRIP * keys numbers.
  void add(float* strip, i64 keys, i64 first, i64 rows, float* room) const {
    if (row == 0 || rows == 1) {
      query(first, keys, room);
      for (i64 key = 0; key < keys; key++) {
        UNROLLED for (int side = 0; side < SIDES; side++) *at(strip, key, side) += room[key];
      }
      return;
    }
    for (i64 r = 0; r < rows; r++) query(first + r, keys, room + r * keys);
    float* columns = room + STRIP * keys;
    turned_strip({room, keys, 1}, 0, rows, keys, columns);
    for (int side = 0; side < SIDES; side++, columns += keys * LANES) {
      for (i64 key = 0; key < keys; key++) {
        *at(strip, key, side) += *(const Queries*)(columns + key * LANES);
      }
    }
  }
};

// Scores in units of ln 2 to powers and, behind them, the inverse of their sums. From key `first` on
// a causal query sees no more than the keys up to its own place.
static void weigh(float* strip, i64 keys, i64 first, bool causal) {
  const i64 open = causal && first < keys ? first : keys;
  for (int side = 0; side < SIDES; side++) {
    Places place;
    UNROLLED for (int l = 0; l < LANES; l++) place[l] = side * LANES + l;
    Queries top = Queries{} - __builtin_inff();
    for (i64 key = 0; key < open; key++) {
      const Queries score = *at(strip, key, side);
      top = score > top ? score : top;
    }
    for (i64 key = open; key < keys; key++) {
      Queries& score = *at(strip, key, side);
      score = place < int(key - first) ? Queries{} - __builtin_inff() : score;
      top = score > top ? score : top;
    }
    const Queries magnitude = top < 0 ? -top : top;
    top = magnitude < __builtin_inff() ? top : Queries{};
    Queries total = {};
    for (i64 key = 0; key < keys; key++) {
      Queries& score = *at(strip, key, side);
      total += score = power_of_two(score - top);
    }
    *at(strip, keys, side) = 1.0f / (total == 0 ? total + 1.0f : total);
  }
}

// out = (A B) for a strip's queries, A the strip (keys, STRIP) turned, rows times a factor each.
template <class Store>
static void times_strip(const Head& h, const float* strip, i64 keys, i64 first, i64 rows,
                        const Padded& b, i64 padded, float* room, const Store& store) {
  for (i64 q = 0; q < rows; q += TILE) {
    const i64 last = h.causal && first + q + TILE < keys ? first + q + TILE : keys;
    times<false>(strip + q, 1, STRIP, b.data, b.row, room + q * padded, padded, TILE, padded, last);
  }
  for (i64 q = 0; q < rows; q++) store(q, room + q * padded);
}

static void put(const Rows& out, i64 row, const float* from, i64 size, float factor) {
  float* to = out.data + row * out.row;
  i64 c = 0;
  for (; c + LANES <= size; c += LANES) *(Queries*)(to + c) = *(const Queries*)(from + c) * factor;
  for (; c < size; c++) to[c] = from[c] * factor;
}

static void forward(const Head& h, const Rows& q, const Rows& k, const Rows& v, float* strips,
                    const Rows& out, const Hidden& mask) {
  const i64 D = h.padded, E = h.value_padded, masks = mask.data ? 2 * STRIP * h.keys : 0;
  const i64 wanted = h.keys * (D + E) + STRIP * (h.size + E) + masks;
  float* const room = (float*)scratch(wanted * sizeof(float));
  float *const panel = room + STRIP * E, *const copies = panel + STRIP * h.size;
  const Padded keys = padded(k, h.keys, h.size, D, copies);
  const Padded values = padded(v, h.keys, h.value_size, E, copies + h.keys * D);
  Queries factor[SIDES];
  UNROLLED for (Queries& one : factor) one = Queries{} + h.scale * 1.44269504f;
  for (i64 first = 0; first < h.queries; first += STRIP) {
    const i64 seen = h.seen(first), rows = h.queries - first < STRIP ? h.queries - first : STRIP;
    turned_strip(q, first, rows, h.size, panel);
    scaled(panel, h.size, factor);
    all_rows<SIDES, false>(keys.data, keys.row, 1, panel, LANES, h.size * LANES, strips, STRIP, seen,
                           h.size);
    if (mask.data) mask.add(strips, seen, first, rows, copies + h.keys * (D + E));
    weigh(strips, seen, first, h.causal);
    const float* inverse = strips + seen * STRIP;
    times_strip(h, strips, seen, first, rows, values, E, room, [&](i64 r, const float* sum) {
      put(out, first + r, sum, h.value_size, inverse[r]);
    });
    strips += (seen + 1) * STRIP;
  }
}

static void backward(const Head& h, const Rows& grad, const Rows& q, const Rows& k, const Rows& v,
                     float* strips, const Rows& dq, const Rows& dk, const Rows& dv) {
  const i64 D = h.padded, E = h.value_padded;
  const i64 wanted = 2 * h.keys * (D + E) + STRIP * (h.value_size + E + 2 * D + h.keys);
  float* const of_keys = (float*)scratch(wanted * sizeof(float));
  float *const of_values = of_keys + h.keys * D, *const panel = of_values + h.keys * E;
  float *const grads = panel + STRIP * h.value_size, *const room = grads + STRIP * E;
  float *const slopes = room + STRIP * D, *const queries = slopes + STRIP * h.keys;
  float* const copies = queries + STRIP * D;
  const Padded keys = padded(k, h.keys, h.size, D, copies);
  const Padded values = padded(v, h.keys, h.value_size, E, copies + h.keys * D);
  memset(of_keys, 0, h.keys * (D + E) * sizeof(float));
  for (i64 first = 0; first < h.queries; first += STRIP) {
    const i64 seen = h.seen(first), rows = h.queries - first < STRIP ? h.queries - first : STRIP;
    const float* inverse = strips + seen * STRIP;
    Queries factor[SIDES], own[SIDES];
    for (int side = 0; side < SIDES; side++) {
      own[side] = *at(strips, seen, side);
      factor[side] = own[side] * h.scale;
    }
    turned_strip(grad, first, rows, h.value_size, panel);
    scaled(panel, h.value_size, factor);
    const Padded given = padded({grad.data + first * grad.row, grad.row, grad.column}, rows,
                                h.value_size, E, grads);
    for (i64 r = 0; r < rows; r++) {
      for (i64 c = 0; c < E; c += LANES) {
        *(Queries*)(grads + r * E + c) = *(const Queries*)(given.data + r * given.row + c) * inverse[r];
      }
    }
    const Padded own_queries =
        padded({q.data + first * q.row, q.row, q.column}, rows, h.size, D, queries);
    all_rows<SIDES, false>(values.data, values.row, 1, panel, LANES, h.value_size * LANES, slopes, STRIP, seen,
                           h.value_size);
    for (int side = 0; side < SIDES; side++) {
      Queries along = {};
      for (i64 key = 0; key < seen; key++) along += *at(strips, key, side) * *at(slopes, key, side);
      along *= own[side];
      for (i64 key = 0; key < seen; key++) {
        Queries& slope = *at(slopes, key, side);
        slope = *at(strips, key, side) * (slope - along);
      }
    }
    if (dq.data) {
      times_strip(h, slopes, seen, first, rows, keys, D, room,
                  [&](i64 r, const float* sum) { put(dq, first + r, sum, h.size, 1.0f); });
    }
    if (dk.data) {
      times<true>(slopes, STRIP, 1, own_queries.data, own_queries.row, of_keys, D, seen, D, rows);
    }
    if (dv.data) times<true>(strips, STRIP, 1, grads, E, of_values, E, seen, E, rows);
    strips += (seen + 1) * STRIP;
  }
  for (i64 key = 0; key < h.keys; key++) {
    if (dk.data) put(dk, key, of_keys + key * D, h.size, 1.0f);
    if (dv.data) put(dv, key, of_values + key * E, h.value_size, 1.0f);
  }
}

static void attend(const Heads& h, const Stack& q, const Stack& k, const Stack& v, float* strips,
                   const Stack& out, const Mask& mask) {
  const i64 room = h.room();
  parallel(h.worth(2), h.number(), [=](i64 i) {
    forward(Head(h), of_head(q, h, i), of_head(k, h, i), of_head(v, h, i), strips + i * room,
            of_head(out, h, i), Hidden(mask, h, i));
  });
}

static void attention_gradients(const Heads& h, const Stack& grad, const Stack& q, const Stack& k,
                                const Stack& v, float* strips, const Stack& dq, const Stack& dk,
                                const Stack& dv) {
  const i64 room = h.room();
  parallel(h.worth(5), h.number(), [=](i64 i) {
    backward(Head(h), of_head(grad, h, i), of_head(q, h, i), of_head(k, h, i), of_head(v, h, i),
             strips + i * room, of_head(dq, h, i), of_head(dk, h, i), of_head(dv, h, i));
  });
}

extern "C" void* const attention[] = {(void*)attend, (void*)attention_gradients};
