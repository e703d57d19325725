// out = softmax(scale q kᵀ + mask) v without the matrix of weights in memory (Dao et al. 2022,
// "FlashAttention"; Milakov and Gimelshein 2018 for the softmax in one pass), forward and backward.
//
// q is (problems, queries, size), k (problems, keys, size), v (problems, keys, value_size), where
// problem p is head p % heads of sample p / heads. They and grad lie as their strides say, with
// neighbours in a row side by side; what is written is (samples, rows, heads, size), row-major, as
// the projections around attention have it. Masks are as in attention_weights_forward (softmax.cu).
// There is a kernel for each head size up to which q, k and v are padded. Blocks have 128 threads;
// one takes TILE queries, or keys.
#define BLOCKS 3
#include "tiles.cuh"

// How many rows fit shared memory four times.
template <int D>
constexpr int TILE_OF = (D > 64 ? 16 : 32) / (sizeof(acc_t) == 8 && D <= 64 ? 2 : 1);
// In float64 rows of 128 are too large: the kernels for these are empty, and never launched.
template <int D>
constexpr bool FITS = sizeof(acc_t) == 4 || D <= 64;
// Whether backward reads, beside what forward has rounded, the rest: where a few weights are nearly
// 1, the gradients of scores are small differences with sums of grad * out.
constexpr bool HALVES = sizeof(scalar_t) == 2;

// How the rows of the problems lie: from sample to sample, head to head and row to row.
struct Layout {
  i64 sample, head, row;

  __device__ i64 start(i64 problem, i64 heads) const {
    return problem / heads * sample + problem % heads * head;
  }
};

// The sizes of a launch, and where the mask of a problem begins.
struct Sizes {
  i64 heads, queries, keys;
  int size, value_size;
  i64 inner, outer_stride, inner_stride, query_stride;
  bool causal;
  acc_t scale;

  // Of what is written.
  __device__ Layout written(i64 rows, i64 columns) const {
    return {rows * heads * columns, columns, heads * columns};
  }
};

struct Mask {
  const scalar_t* added;
  const bool* allowed;
  i64 start, query_stride, keys;
  bool causal;

  __device__ Mask(const scalar_t* added, const bool* allowed, const Sizes& sizes, i64 problem)
      : added(added),
        allowed(allowed),
        start(problem / sizes.inner * sizes.outer_stride +
              problem % sizes.inner * sizes.inner_stride),
        query_stride(sizes.query_stride),
        keys(sizes.keys),
        causal(sizes.causal) {}

  // A score as the mask leaves it. Queries beyond the last one are looked at like it.
  __device__ acc_t of(acc_t score, i64 query, i64 key, i64 queries) const {
    if (key >= keys || (causal && key > query)) return -infinity();
    const i64 at = start + math::smaller(query, queries - 1) * query_stride + key;
    if (added) score += widen(added[at]);
    return allowed && !allowed[at] ? -infinity() : score;
  }
};

template <int D>
DEVICE void forward(const scalar_t* q, const scalar_t* k, const scalar_t* v,
                    const scalar_t* added, const bool* allowed, scalar_t* out, scalar_t* rest,
                    acc_t* logs, i64 problems, const Sizes& sizes, const Layout& q_layout,
                    const Layout& k_layout, const Layout& v_layout) {
  constexpr int TILE = TILE_OF<D>, MINE = PER_Y<TILE>;
  SHARED Matrix<TILE, D> queries, keys, values;
  SHARED Matrix<TILE, TILE> weights;
  const i64 tiles = (sizes.queries + TILE - 1) / TILE;
  for_each_block(problems * tiles, [&](auto, i64 b) {
    const i64 problem = b / tiles, first = (tiles - 1 - b % tiles) * TILE;  // the longest first
    const Mask mask(added, allowed, sizes, problem);
    const Layout written = sizes.written(sizes.queries, sizes.value_size);
    const scalar_t* of_keys = k + k_layout.start(problem, sizes.heads);
    const scalar_t* of_values = v + v_layout.start(problem, sizes.heads);
    queries.load(q + q_layout.start(problem, sizes.heads), q_layout.row, first, sizes.queries,
                 sizes.size, sizes.scale);
    acc_t top[MINE], total[MINE];
    for (int r = 0; r < MINE; r++) {
      top[r] = -infinity();
      total[r] = 0;
    }
    Rows<TILE, D> result;
    const i64 last = sizes.causal ? math::smaller(first + TILE, sizes.keys) : sizes.keys;
    for (i64 key = 0; key < last; key += TILE) {
      tile_sync();  // the tiles before have been read
      keys.load(of_keys, k_layout.row, key, sizes.keys, sizes.size);
      values.load(of_values, v_layout.row, key, sizes.keys, sizes.value_size);
      tile_sync();
      Scores<TILE> scores;
      scores.products(queries, keys);
      acc_t higher[MINE];
      for (int r = 0; r < MINE; r++) higher[r] = top[r];
      scores.each([&](int row, int column, acc_t& score) {
        score = mask.of(score, first + row, key + column, sizes.queries);
        acc_t& largest = higher[row - tile_y() * MINE];
        largest = math::larger(score, largest);
      });
      // What there is so far is scaled down to the new largest score.
      acc_t shrink[MINE];
      for (int r = 0; r < MINE; r++) {
        higher[r] = row_max(higher[r]);
        const acc_t base = higher[r] == -infinity() ? acc_t(0) : higher[r];
        shrink[r] = math::exp(top[r] - base);
        top[r] = higher[r];
        higher[r] = base;
        total[r] *= shrink[r];
      }
      scores.each([&](int row, int, acc_t& score) {
        const int r = row - tile_y() * MINE;
        score = math::exp(score - higher[r]);
        total[r] += score;
      });
      result.each([&](int r, acc_t& value) { value *= shrink[r]; });
      scores.store(weights);
      tile_sync();
      result.template add<false>(weights, values);
    }
    for (int r = 0; r < MINE; r++) {
      total[r] = row_sum(total[r]);
      const i64 row = first + tile_y() * MINE + r;
      if (tile_x() == 0 && row < sizes.queries) {
        const acc_t log = total[r] == 0 ? infinity() : top[r] + math::log(total[r]);
        logs[problem * sizes.queries + row] = log;
      }
      total[r] = total[r] == 0 ? acc_t(0) : acc_t(1) / total[r];
    }
    result.each([&](int r, acc_t& value) { value *= total[r]; });
    result.store(out + written.start(problem, sizes.heads), written.row, first, sizes.queries,
                 sizes.value_size);
    if constexpr (HALVES) {
      result.each([&](int, acc_t& value) { value -= widen(narrow(value)); });
      result.store(rest + written.start(problem, sizes.heads), written.row, first, sizes.queries,
                   sizes.value_size);
    }
  });
}

// Of each query: the logarithm of the sum of its weights, and sum(grad * (out + rest)).
template <int TILE>
struct Statistics {
  acc_t logs[TILE], along[TILE];

  // grads is the tile of grad that has just been loaded.
  template <int D>
  __device__ void load(const Matrix<TILE, D>& grads, const scalar_t* out, const scalar_t* rest,
                       i64 step, const acc_t* of, i64 first, i64 queries, int value_size) {
    for (int r = 0; r < PER_Y<TILE>; r++) {
      const int row = tile_y() * PER_Y<TILE> + r;
      acc_t total = 0;
      if (first + row < queries) {
        for (int c = tile_x(); c < value_size; c += TILE_X) {
          const i64 at = (first + row) * step + c;
          total += grads.at[row][c] * widen(out[at]);
          if constexpr (HALVES) total += grads.at[row][c] * widen(rest[at]);
        }
      }
      total = row_sum(total);
      if (tile_x() == 0) {
        along[row] = total;
        logs[row] = first + row < queries ? of[first + row] : infinity();
      }
    }
  }
};

// What the two roles of a backward block share.
template <int D>
struct Backward {
  static constexpr int TILE = TILE_OF<D>;
  Matrix<TILE, D> queries, grads, keys, values;
  Matrix<TILE, TILE> weights;
  Statistics<TILE> statistics;

  __device__ void load_queries(const scalar_t* q, i64 q_step, const scalar_t* grad, i64 grad_step,
                               const Sizes& s, i64 first) {
    queries.load(q, q_step, first, s.queries, s.size, s.scale);
    grads.load(grad, grad_step, first, s.queries, s.value_size);
  }
  __device__ void load_keys(const scalar_t* k, i64 k_step, const scalar_t* v, i64 v_step,
                            const Sizes& s, i64 first) {
    keys.load(k, k_step, first, s.keys, s.size);
    values.load(v, v_step, first, s.keys, s.value_size);
  }

  // The weights, and the gradients of the scores, of the tiles that are loaded.
  __device__ void weigh(Scores<TILE>& p, Scores<TILE>& slopes, const Mask& mask, i64 query, i64 key,
                        i64 count) const {
    p.products(queries, keys);
    slopes.products(grads, values);
#pragma unroll
    for (int r = 0; r < PER_Y<TILE>; r++) {
      const int row = tile_y() * PER_Y<TILE> + r;
      const acc_t log = statistics.logs[row], along = statistics.along[row];
#pragma unroll
      for (int c = 0; c < PER_X<TILE>; c++) {
        const i64 column = key + tile_x() + TILE_X * c;
        p.at[r][c] = math::exp(mask.of(p.at[r][c], query + row, column, count) - log);
        slopes.at[r][c] = p.at[r][c] * (slopes.at[r][c] - along);
      }
    }
  }
};

template <int D>
DEVICE void backward(const scalar_t* grad, const scalar_t* q, const scalar_t* k, const scalar_t* v,
                     const scalar_t* out, const scalar_t* rest, const acc_t* logs,
                     const scalar_t* added, const bool* allowed, scalar_t* dq, scalar_t* dk,
                     scalar_t* dv, i64 problems, const Sizes& sizes, const Layout& grad_layout,
                     const Layout& q_layout, const Layout& k_layout, const Layout& v_layout) {
  constexpr int TILE = TILE_OF<D>;
  SHARED Backward<D> shared;
  const i64 query_tiles = (sizes.queries + TILE - 1) / TILE;
  const i64 key_tiles = (sizes.keys + TILE - 1) / TILE, tiles = query_tiles + key_tiles;
  for_each_block(problems * tiles, [&](auto, i64 b) {
    const i64 problem = b / tiles, tile = b % tiles;
    const i64 heads = sizes.heads, rows = problem * sizes.queries;
    const Mask mask(added, allowed, sizes, problem);
    const scalar_t* of_grad = grad + grad_layout.start(problem, heads);
    const scalar_t* of_q = q + q_layout.start(problem, heads);
    const scalar_t* of_k = k + k_layout.start(problem, heads);
    const scalar_t* of_v = v + v_layout.start(problem, heads);
    const Layout of_out = sizes.written(sizes.queries, sizes.value_size);
    const scalar_t* results = out + of_out.start(problem, heads);
    const scalar_t* rests = HALVES ? rest + of_out.start(problem, heads) : nullptr;
    Scores<TILE> p, slopes;
    if (tile < query_tiles) {  // the gradient of queries
      const i64 first = tile * TILE;
      Rows<TILE, D> result;
      shared.load_queries(of_q, q_layout.row, of_grad, grad_layout.row, sizes, first);
      tile_sync();
      shared.statistics.load(shared.grads, results, rests, of_out.row, logs + rows, first,
                             sizes.queries, sizes.value_size);
      const i64 last = sizes.causal ? math::smaller(first + TILE, sizes.keys) : sizes.keys;
      for (i64 key = 0; key < last; key += TILE) {
        tile_sync();
        shared.load_keys(of_k, k_layout.row, of_v, v_layout.row, sizes, key);
        tile_sync();
        shared.weigh(p, slopes, mask, first, key, sizes.queries);
        slopes.store(shared.weights);
        tile_sync();
        result.template add<false>(shared.weights, shared.keys);
      }
      result.each([&](int, acc_t& value) { value *= sizes.scale; });
      const Layout written = sizes.written(sizes.queries, sizes.size);
      result.store(dq + written.start(problem, heads), written.row, first, sizes.queries,
                   sizes.size);
    } else {  // the gradients of keys and values
      const i64 first = (tile - query_tiles) * TILE;
      Rows<TILE, D> of_keys, of_values;
      shared.load_keys(of_k, k_layout.row, of_v, v_layout.row, sizes, first);
      for (i64 query = sizes.causal ? first : 0; query < sizes.queries; query += TILE) {
        tile_sync();
        shared.load_queries(of_q, q_layout.row, of_grad, grad_layout.row, sizes, query);
        tile_sync();
        shared.statistics.load(shared.grads, results, rests, of_out.row, logs + rows, query,
                               sizes.queries, sizes.value_size);
        tile_sync();
        shared.weigh(p, slopes, mask, query, first, sizes.queries);
        p.store(shared.weights);
        tile_sync();
        of_values.template add<true>(shared.weights, shared.grads);
        tile_sync();
        slopes.store(shared.weights);
        tile_sync();
        of_keys.template add<true>(shared.weights, shared.queries);
      }
      const Layout slopes_of_k = sizes.written(sizes.keys, sizes.size);
      const Layout slopes_of_v = sizes.written(sizes.keys, sizes.value_size);
      of_keys.store(dk + slopes_of_k.start(problem, heads), slopes_of_k.row, first, sizes.keys,
                    sizes.size);
      of_values.store(dv + slopes_of_v.start(problem, heads), slopes_of_v.row, first, sizes.keys,
                      sizes.value_size);
    }
    tile_sync();  // before the next keys are loaded
  });
}

KERNEL_OF(attention_forward_32, 128)
(const scalar_t* __restrict__ q, const scalar_t* __restrict__ k, const scalar_t* __restrict__ v,
 const scalar_t* __restrict__ mask, const bool* __restrict__ allowed, scalar_t* __restrict__ out,
 scalar_t* __restrict__ rest, acc_t* __restrict__ logs, i64 problems, i64 heads, i64 queries,
 i64 keys, i64 size, i64 value_size, i64 q_sample, i64 q_head, i64 q_row, i64 k_sample, i64 k_head,
 i64 k_row, i64 v_sample, i64 v_head, i64 v_row, i64 inner, i64 outer_stride, i64 inner_stride,
 i64 query_stride, i64 causal, double scale) {
  if constexpr (FITS<32>) {
    const Sizes sizes{heads, queries, keys, int(size), int(value_size), inner, outer_stride,
                      inner_stride, query_stride, causal != 0, acc_t(scale)};
    forward<32>(q, k, v, mask, allowed, out, rest, logs, problems, sizes, {q_sample, q_head, q_row},
                {k_sample, k_head, k_row}, {v_sample, v_head, v_row});
  }
}

KERNEL_OF(attention_backward_32, 128)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ q, const scalar_t* __restrict__ k,
 const scalar_t* __restrict__ v, const scalar_t* __restrict__ out,
 const scalar_t* __restrict__ rest, const acc_t* __restrict__ logs,
 const scalar_t* __restrict__ mask, const bool* __restrict__ allowed, scalar_t* __restrict__ dq,
 scalar_t* __restrict__ dk, scalar_t* __restrict__ dv, i64 problems, i64 heads, i64 queries,
 i64 keys, i64 size, i64 value_size, i64 grad_sample, i64 grad_head, i64 grad_row, i64 q_sample,
 i64 q_head, i64 q_row, i64 k_sample, i64 k_head, i64 k_row, i64 v_sample, i64 v_head, i64 v_row,
 i64 inner, i64 outer_stride, i64 inner_stride, i64 query_stride, i64 causal, double scale) {
  if constexpr (FITS<32>) {
    const Sizes sizes{heads, queries, keys, int(size), int(value_size), inner, outer_stride,
                      inner_stride, query_stride, causal != 0, acc_t(scale)};
    backward<32>(grad, q, k, v, out, rest, logs, mask, allowed, dq, dk, dv, problems, sizes,
                 {grad_sample, grad_head, grad_row}, {q_sample, q_head, q_row},
                 {k_sample, k_head, k_row}, {v_sample, v_head, v_row});
  }
}

KERNEL_OF(attention_forward_64, 128)
(const scalar_t* __restrict__ q, const scalar_t* __restrict__ k, const scalar_t* __restrict__ v,
 const scalar_t* __restrict__ mask, const bool* __restrict__ allowed, scalar_t* __restrict__ out,
 scalar_t* __restrict__ rest, acc_t* __restrict__ logs, i64 problems, i64 heads, i64 queries,
 i64 keys, i64 size, i64 value_size, i64 q_sample, i64 q_head, i64 q_row, i64 k_sample, i64 k_head,
 i64 k_row, i64 v_sample, i64 v_head, i64 v_row, i64 inner, i64 outer_stride, i64 inner_stride,
 i64 query_stride, i64 causal, double scale) {
  if constexpr (FITS<64>) {
    const Sizes sizes{heads, queries, keys, int(size), int(value_size), inner, outer_stride,
                      inner_stride, query_stride, causal != 0, acc_t(scale)};
    forward<64>(q, k, v, mask, allowed, out, rest, logs, problems, sizes, {q_sample, q_head, q_row},
                {k_sample, k_head, k_row}, {v_sample, v_head, v_row});
  }
}

KERNEL_OF(attention_backward_64, 128)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ q, const scalar_t* __restrict__ k,
 const scalar_t* __restrict__ v, const scalar_t* __restrict__ out,
 const scalar_t* __restrict__ rest, const acc_t* __restrict__ logs,
 const scalar_t* __restrict__ mask, const bool* __restrict__ allowed, scalar_t* __restrict__ dq,
 scalar_t* __restrict__ dk, scalar_t* __restrict__ dv, i64 problems, i64 heads, i64 queries,
 i64 keys, i64 size, i64 value_size, i64 grad_sample, i64 grad_head, i64 grad_row, i64 q_sample,
 i64 q_head, i64 q_row, i64 k_sample, i64 k_head, i64 k_row, i64 v_sample, i64 v_head, i64 v_row,
 i64 inner, i64 outer_stride, i64 inner_stride, i64 query_stride, i64 causal, double scale) {
  if constexpr (FITS<64>) {
    const Sizes sizes{heads, queries, keys, int(size), int(value_size), inner, outer_stride,
                      inner_stride, query_stride, causal != 0, acc_t(scale)};
    backward<64>(grad, q, k, v, out, rest, logs, mask, allowed, dq, dk, dv, problems, sizes,
                 {grad_sample, grad_head, grad_row}, {q_sample, q_head, q_row},
                 {k_sample, k_head, k_row}, {v_sample, v_head, v_row});
  }
}

KERNEL_OF(attention_forward_128, 128)
(const scalar_t* __restrict__ q, const scalar_t* __restrict__ k, const scalar_t* __restrict__ v,
 const scalar_t* __restrict__ mask, const bool* __restrict__ allowed, scalar_t* __restrict__ out,
 scalar_t* __restrict__ rest, acc_t* __restrict__ logs, i64 problems, i64 heads, i64 queries,
 i64 keys, i64 size, i64 value_size, i64 q_sample, i64 q_head, i64 q_row, i64 k_sample, i64 k_head,
 i64 k_row, i64 v_sample, i64 v_head, i64 v_row, i64 inner, i64 outer_stride, i64 inner_stride,
 i64 query_stride, i64 causal, double scale) {
  if constexpr (FITS<128>) {
    const Sizes sizes{heads, queries, keys, int(size), int(value_size), inner, outer_stride,
                      inner_stride, query_stride, causal != 0, acc_t(scale)};
    forward<128>(q, k, v, mask, allowed, out, rest, logs, problems, sizes,
                 {q_sample, q_head, q_row}, {k_sample, k_head, k_row}, {v_sample, v_head, v_row});
  }
}

KERNEL_OF(attention_backward_128, 128)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ q, const scalar_t* __restrict__ k,
 const scalar_t* __restrict__ v, const scalar_t* __restrict__ out,
 const scalar_t* __restrict__ rest, const acc_t* __restrict__ logs,
 const scalar_t* __restrict__ mask, const bool* __restrict__ allowed, scalar_t* __restrict__ dq,
 scalar_t* __restrict__ dk, scalar_t* __restrict__ dv, i64 problems, i64 heads, i64 queries,
 i64 keys, i64 size, i64 value_size, i64 grad_sample, i64 grad_head, i64 grad_row, i64 q_sample,
 i64 q_head, i64 q_row, i64 k_sample, i64 k_head, i64 k_row, i64 v_sample, i64 v_head, i64 v_row,
 i64 inner, i64 outer_stride, i64 inner_stride, i64 query_stride, i64 causal, double scale) {
  if constexpr (FITS<128>) {
    const Sizes sizes{heads, queries, keys, int(size), int(value_size), inner, outer_stride,
                      inner_stride, query_stride, causal != 0, acc_t(scale)};
    backward<128>(grad, q, k, v, out, rest, logs, mask, allowed, dq, dk, dv, problems, sizes,
                 {grad_sample, grad_head, grad_row}, {q_sample, q_head, q_row},
                 {k_sample, k_head, k_row}, {v_sample, v_head, v_row});
  }
}
