// All gradients of a model at once, however many: their norm, clipping, the check for overflow,
// zeros; averages of weights likewise.
//
// A row of `tensors` is (elements, address); for `average_tensors` the address of the newcomer
// follows.
#include "tables.cuh"

constexpr i64 WIDTH = 2, AVERAGE_WIDTH = 3;

// As integers, numbers without a sign are in the same order, infinity and NaN at the end.
template <int BYTES>
struct Bits;
template <>
struct Bits<4> {
  typedef u32 type;
};
template <>
struct Bits<8> {
  typedef u64 type;
};
typedef Bits<sizeof(acc_t)>::type bits_t;
DEVICE bits_t magnitude(acc_t x) { return bit_cast<bits_t>(math::abs(x)); }

// What chunk number c adds to the norm of order p, in parts[c]: the sum of |x|**p, or the maximum
// of |x| where p is infinite.
KERNEL(norm_parts)
(const i64* tensors, const i64* chunks, acc_t* __restrict__ parts, double p, i64 chunk_count,
 i64 chunk_size) {
  const acc_t order = acc_t(p);
  for_each_chunk(tensors, WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64 chunk, i64 tensor, i64 start, i64 n) {
    const scalar_t* x = array_at(tensors[tensor * WIDTH + ADDRESS], start);
    acc_t total = 0;
    if (p == 2.0) {
      for_each_element(
          team, n, [&](scalar_t v) { total += widen(v) * widen(v); }, x);
    } else if (p == 1.0) {
      for_each_element(team, n, [&](scalar_t v) { total += math::abs(widen(v)); }, x);
    } else if (order == infinity()) {
      bits_t top = 0;
      for_each_element(
          team, n, [&](scalar_t v) { top = math::larger(magnitude(widen(v)), top); }, x);
      total = bit_cast<acc_t>(team.max(top));
    } else {
      for_each_element(team, n, [&](scalar_t v) { total += math::pow(math::abs(widen(v)), order); },
                       x);
    }
    if (order != infinity()) total = team.sum(total);
    if (team.rank() == 0) parts[chunk] = total;
  });
}

// The norm of order p, from its parts; one block.
KERNEL(norm_total)
(const acc_t* __restrict__ parts, scalar_t* __restrict__ norm, double p, i64 count) {
  const acc_t order = acc_t(p);
  for_each_block(1, [&](auto team, i64) {
    acc_t total = 0;
    if (order == infinity()) {
      bits_t top = 0;
      for (i64 i = team.rank(); i < count; i += team.size()) {
        top = math::larger(magnitude(parts[i]), top);
      }
      total = bit_cast<acc_t>(team.max(top));
    } else {
      for (i64 i = team.rank(); i < count; i += team.size()) total += parts[i];
      total = team.sum(total);
      if (p == 2.0) {
        total = math::sqrt(total);
      } else if (p != 1.0) {
        total = math::pow(total, acc_t(1) / order);
      }
    }
    if (team.rank() == 0) norm[0] = narrow(total);
  });
}

// x times max_norm / (norm + 1e-6), where that is less than 1.
KERNEL(clip_tensors)
(const i64* tensors, const i64* chunks, const scalar_t* norm, double max_norm, i64 chunk_count,
 i64 chunk_size) {
  const acc_t factor = acc_t(max_norm) / (widen(norm[0]) + acc_t(1e-6));
  if (factor >= acc_t(1)) return;
  for_each_chunk(tensors, WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64, i64 tensor, i64 start, i64 n) {
    for_each_element(team, n, [=](scalar_t& x) { x = narrow(widen(x) * factor); },
                     array_at(tensors[tensor * WIDTH + ADDRESS], start));
  });
}

// x no further from 0 than the bound.
KERNEL(clamp_tensors)
(const i64* tensors, const i64* chunks, double bound, i64 chunk_count, i64 chunk_size) {
  const acc_t most = acc_t(bound);
  for_each_chunk(tensors, WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64, i64 tensor, i64 start, i64 n) {
    for_each_element(
        team, n,
        [=](scalar_t& x) { x = narrow(math::smaller(most, math::larger(-most, widen(x)))); },
        array_at(tensors[tensor * WIDTH + ADDRESS], start));
  });
}

KERNEL(zero_tensors)
(const i64* tensors, const i64* chunks, i64 chunk_count, i64 chunk_size) {
  for_each_chunk(tensors, WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64, i64 tensor, i64 start, i64 n) {
    for_each_element(team, n, [=](scalar_t& x) { x = narrow(0); },
                     array_at(tensors[tensor * WIDTH + ADDRESS], start));
  });
}

DEVICE void raise_flag(float* flag) {
#if defined(GRADLITE_NATIVE)
  *flag = 1.0f;
#else
  atomicExch(flag, 1.0f);
#endif
}

// x times *factor; *found_inf becomes 1 if any x is infinite or not a number.
KERNEL(unscale_tensors)
(const i64* tensors, const i64* chunks, const float* factor, float* found_inf, i64 chunk_count,
 i64 chunk_size) {
  const acc_t by = acc_t(*factor);
  for_each_chunk(tensors, WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64, i64 tensor, i64 start, i64 n) {
    bits_t top = 0;
    for_each_element(
        team, n,
        [&](scalar_t& x) {
          const acc_t value = widen(x);
          top = math::larger(magnitude(value), top);
          x = narrow(value * by);
        },
        array_at(tensors[tensor * WIDTH + ADDRESS], start));
    top = team.max(top);
    if (top >= magnitude(infinity()) && team.rank() == 0) raise_flag(found_inf);
  });
}

// a + weight (b - a), the weight being 1 / (*count + 1) where a count is given.
KERNEL(average_tensors)
(const i64* tensors, const i64* chunks, const i64* count, double weight, i64 chunk_count,
 i64 chunk_size) {
  const acc_t by = count ? acc_t(1.0 / (double(*count) + 1.0)) : acc_t(weight);
  for_each_chunk(tensors, AVERAGE_WIDTH, chunks, chunk_count, chunk_size,
                 [&](auto team, i64, i64 tensor, i64 start, i64 n) {
    const i64* row = tensors + tensor * AVERAGE_WIDTH;
    const scalar_t* newcomer = array_at(row[ADDRESS + 1], start);
    for_each_element(
        team, n,
        [=](scalar_t& a, const scalar_t& b) {
          a = narrow(widen(a) + by * (widen(b) - widen(a)));
        },
        array_at(row[ADDRESS], start), newcomer);
  });
}

// The scale of the loss after a step: lowered if gradients overflowed, raised after `interval`
// steps in which none did; one thread.
KERNEL(scale_update)
(float* scale, int* good_steps, const float* found_inf, double growth, double backoff,
 i64 interval) {
  if (thread_index() != 0) return;
  if (*found_inf != 0.0f) {
    *scale *= float(backoff);
    *good_steps = 0;
  } else if (++*good_steps == interval) {
    const float grown = *scale * float(growth);
    if (grown < float(infinity())) *scale = grown;
    *good_steps = 0;
  }
}
