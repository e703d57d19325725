// What an index sends to one place, combined: the product, the largest, the smallest; and the
// gradients.
//
// An array is seen as (outer, size, inner), and indices go along the middle, as in index.cu. Which
// way to combine says a number: 0 for products, 1 for the largest, 2 for the smallest, and of whole
// numbers 3 for sums. One thread
// does `in_turn` of the indices along the middle one after the other: all, and nobody else comes to
// its places, or 1, and there are atomics.
#include "checks.cuh"
#include "places.cuh"

constexpr int PRODUCT = 0, LARGEST = 1, SUM = 3;  // 2 is the smallest

// NaN when either is, but in a product, which is what it is.
DEVICE acc_t combined(int how, acc_t a, acc_t b) {
  if (how == PRODUCT) return a * b;
  if (how == LARGEST) return math::larger_or_nan(a, b);
  return a < b || a != a ? a : b;
}

DEVICE u32 word_of(float value) { return bit_cast<u32>(value); }
DEVICE u64 word_of(double value) { return bit_cast<u64>(value); }

DEVICE void combine(int how, acc_t* place, acc_t value, bool alone) {
#if !defined(GRADLITE_NATIVE)
  if (!alone) {
    typedef decltype(word_of(value)) Word;
    Word* words = reinterpret_cast<Word*>(place);
    Word seen = atomicCAS(words, Word(0), Word(0));
    for (;;) {
      const Word wanted = word_of(combined(how, bit_cast<acc_t>(seen), value));
      if (wanted == seen) return;
      const Word found = atomicCAS(words, seen, wanted);
      if (found == seen) return;
      seen = found;
    }
  }
#endif
  *place = combined(how, *place, value);
}

DEVICE u64 combined_whole(int how, u64 a, u64 b) {
  if (how == PRODUCT) return a * b;
  if (how == SUM) return a + b;
  return (i64(a) > i64(b)) == (how == LARGEST) ? a : b;
}

DEVICE void combine_whole(int how, i64* place, i64 value) {
  u64* words = reinterpret_cast<u64*>(place);
#if defined(GRADLITE_NATIVE)
  *words = combined_whole(how, *words, u64(value));
#else
  if (how == SUM) {
    atomicAdd(words, u64(value));
    return;
  }
  u64 seen = atomicCAS(words, u64(0), u64(0));
  for (;;) {
    const u64 wanted = combined_whole(how, seen, u64(value));
    if (wanted == seen) return;
    const u64 found = atomicCAS(words, seen, wanted);
    if (found == seen) return;
    seen = found;
  }
#endif
}

DEVICE void count(u64* place, u64 more) {
#if defined(GRADLITE_NATIVE)
  *place += more;
#else
  atomicAdd(place, more);
#endif
}

// Values (outer, count, inner), and how far apart their indices are.
struct Sent {
  i64 outer, size, count, inner, index_outer, index_count, index_inner;
};

// body(at, i) for all values i, which the index sends to `at` in (outer, size, inner).
template <class Body>
DEVICE void for_each_sent(const Sent& sent, const i64* __restrict__ index, i64* errors,
                          i64 in_turn, Body body) {
  const i64 inner = sent.inner;
  for_each_place(sent.outer, sent.count / in_turn, inner, [&](i64 o, i64 first, i64 c, i64) {
    const i64* places = index + o * sent.index_outer + c * sent.index_inner;
#pragma unroll 1
    for (i64 j = first; j < first + in_turn; j++) {
      const i64 at = checked(places[j * sent.index_count], 0, sent.size, errors);
      if (at >= 0) body((o * sent.size + at) * inner + c, (o * sent.count + j) * inner + c);
    }
  });
}

// out[o, i, c] becomes what it is and values[o, j, c] combined.
KERNEL(scatter_reduce)
(const scalar_t* __restrict__ values, const i64* __restrict__ index, acc_t* __restrict__ out,
 i64* errors, i64 how, i64 in_turn, i64 outer, i64 size, i64 count, i64 inner, i64 index_outer,
 i64 index_count, i64 index_inner) {
  const Sent sent{outer, size, count, inner, index_outer, index_count, index_inner};
  for_each_sent(sent, index, errors, in_turn, [&](i64 at, i64 i) {
    combine(int(how), out + at, widen(values[i]), in_turn == count);
  });
}

// The same of whole numbers, and their sums, modulo 2^64: in any order.
KERNEL(scatter_reduce_whole)
(const i64* __restrict__ values, const i64* __restrict__ index, i64* __restrict__ out, i64* errors,
 i64 how, i64 outer, i64 size, i64 count, i64 inner, i64 index_outer, i64 index_count,
 i64 index_inner) {
  const Sent sent{outer, size, count, inner, index_outer, index_count, index_inner};
  for_each_sent(sent, index, errors, 1,
                [&](i64 at, i64 i) { combine_whole(int(how), out + at, values[i]); });
}

// ----------------------------------------------------------------------------------- gradients
// What a place has got: in the upper half of a word how many values, in the lower half how many of
// them were 0, where it is a product, or else how many were the result.
constexpr u64 WRITTEN = u64(1) << 32;
DEVICE i64 marked(u64 counts) { return i64(counts & (WRITTEN - 1)); }

// The words, from 0, and of a product that of the values but for those that are 0, from 1.
KERNEL(scatter_reduce_parts)
(const scalar_t* __restrict__ values, const i64* __restrict__ index,
 const scalar_t* __restrict__ result, u64* __restrict__ counts, acc_t* __restrict__ products,
 i64* errors, i64 how, i64 in_turn, i64 outer, i64 size, i64 count_, i64 inner, i64 index_outer,
 i64 index_count, i64 index_inner) {
  const Sent sent{outer, size, count_, inner, index_outer, index_count, index_inner};
  for_each_sent(sent, index, errors, in_turn, [&](i64 at, i64 i) {
    const acc_t value = widen(values[i]);
    const bool marks = how == PRODUCT ? value == 0 : value == widen(result[at]);
    count(counts + at, WRITTEN + (marks ? 1 : 0));
    if (how == PRODUCT && !marks) combine(PRODUCT, products + at, value, in_turn == count_);
  });
}

// The gradient of the values. Of a product it is that of the others; equal extremes share.
KERNEL(scatter_reduce_values_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ values, const i64* __restrict__ index,
 const scalar_t* __restrict__ result, const u64* __restrict__ counts,
 const acc_t* __restrict__ products, scalar_t* __restrict__ dvalues, i64* errors, i64 how,
 i64 with_x, i64 outer, i64 size, i64 count_, i64 inner, i64 index_outer, i64 index_count,
 i64 index_inner) {
  for_each_place(outer, count_, inner, [&](i64 o, i64 j, i64 c, i64 i) {
    const i64 from = index[o * index_outer + j * index_count + c * index_inner];
    i64 at = checked(from, 0, size, errors);
    acc_t slope = 0;
    if (at >= 0) {
      at = (o * size + at) * inner + c;
      const acc_t value = widen(values[i]), g = widen(grad[at]);
      const i64 marks = marked(counts[at]);
      if (how == PRODUCT) {
        const acc_t whole = g * products[at] * (with_x ? widen(x[at]) : acc_t(1));
        if (value != 0) slope = marks == 0 ? whole / value : acc_t(0);
        if (value == 0) slope = marks == 1 ? whole : acc_t(0);
      } else {
        const acc_t best = widen(result[at]);
        const bool kept = with_x && widen(x[at]) == best;
        slope = g / acc_t(marks + kept) * acc_t(value == best);
      }
    }
    dvalues[i] = narrow(slope);
  });
}

// The gradient of what was there before.
KERNEL(scatter_reduce_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ result, const u64* __restrict__ counts,
 const acc_t* __restrict__ products, scalar_t* __restrict__ dx, i64 how, i64 with_x, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const i64 marks = marked(counts[i]);
    const bool own = with_x || counts[i] < WRITTEN;
    acc_t slope = widen(grad[i]);
    if (how == PRODUCT) {
      slope *= own && marks == 0 ? products[i] : acc_t(0);
    } else {
      const bool kept = own && (!with_x || widen(x[i]) == widen(result[i]));
      slope = slope / acc_t(marks + kept) * acc_t(kept);
    }
    dx[i] = narrow(slope);
  }
}
