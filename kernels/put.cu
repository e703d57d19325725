// Writing at places that indices name.
//
// An array is seen as (outer, size, inner), and indices go along the middle, as in index.cu.
#include "checks.cuh"
#include "places.cuh"

// What lies in memory as the lowest bits of a number: of any dtype of that width.
DEVICE scalar_t of_bits(i64 bits) {
  if constexpr (sizeof(scalar_t) == 2) {
    return bit_cast<scalar_t>(u16(bits));
  } else if constexpr (sizeof(scalar_t) == 4) {
    return bit_cast<scalar_t>(u32(bits));
  } else {
    return bit_cast<scalar_t>(u64(bits));
  }
}

// out[o, i, c] = values[o, j, c], or a number's bits without values. The index i is at o index_outer
// + j index_count + c index_inner, the value likewise. One thread does `in_turn` of the j one after
// the other, 1 or all: then the last of those with the same index stays, else any. Nothing is
// written at an index that is not valid.
KERNEL(put_along)
(const scalar_t* __restrict__ values, i64 bits, const i64* __restrict__ index,
 scalar_t* __restrict__ out, i64* errors, i64 lowest, i64 in_turn, i64 outer, i64 size, i64 count,
 i64 inner, i64 index_outer, i64 index_count, i64 index_inner, i64 value_outer, i64 value_count,
 i64 value_inner) {
  const scalar_t number = of_bits(bits);
  for_each_place(outer, count / in_turn, inner, [&](i64 o, i64 first, i64 c, i64) {
    const i64* places = index + o * index_outer + c * index_inner;
    const scalar_t* from = values + o * value_outer + c * value_inner;
#pragma unroll 1
    for (i64 j = first; j < first + in_turn; j++) {
      const i64 at = checked(places[j * index_count], lowest, size, errors);
      if (at < 0) continue;
      out[(o * size + at) * inner + c] = values ? from[j * value_count] : number;
    }
  });
}

// The numbers of rows that indices of several dimensions name together, dimension by dimension: the
// numbers so far, if there are any, times the size of the next dimension, plus the index there, from
// `lowest` on. One that is not valid, of which the host will hear, stands for the first.
KERNEL(row_numbers)
(const i64* before, const i64* __restrict__ index, i64* numbers, i64* errors, i64 lowest, i64 size,
 i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const i64 at = checked(index[i], lowest, size, errors);
    numbers[i] = (before ? before[i] * size : 0) + (at < 0 ? 0 : at);
  }
}

// out[i] = source[counts[i] - 1] where the mask holds, of which there are `counts[i]` places up to
// this one; x[i] elsewhere, and where the source has too few of them.
KERNEL(masked_scatter)
(const scalar_t* __restrict__ x, const bool* __restrict__ mask, const i64* __restrict__ counts,
 const scalar_t* __restrict__ source, scalar_t* __restrict__ out, i64* errors, i64 size, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    const i64 at = mask[i] ? checked(counts[i] - 1, 0, size, errors) : -1;
    out[i] = at < 0 ? x[i] : source[at];
  }
}

// The gradient of the source, from zeros.
KERNEL(masked_scatter_backward)
(const scalar_t* __restrict__ grad, const bool* __restrict__ mask,
 const i64* __restrict__ counts, scalar_t* __restrict__ dsource, i64 size, i64 n) {
  for (i64 i = thread_index(); i < n; i += thread_count()) {
    if (mask[i] && counts[i] <= size) dsource[counts[i] - 1] = grad[i];
  }
}
