// Sums over the rows of (rows, columns): see columns.cuh.
#include "columns.cuh"

#include "team.cuh"

// The sums of each part of the rows.
KERNEL(columns_parts)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, i64 rows, i64 columns, i64 parts) {
  column_parts<1>(
      rows, columns, parts, partials, nullptr,
      [](i64, i64, acc_t* sum, acc_t value) {
        sum[0] += value;
        return value;
      },
      x);
}

// The sums of the planes of (parts, channels, inner), which are the partials of the channels.
KERNEL(planes_parts)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, i64 planes, i64 inner) {
  for_each_row(planes, [&](auto team, i64 plane) {
    const scalar_t* in = x + plane * inner;
    acc_t total = 0;
    for (i64 i = team.rank(); i < inner; i += team.size()) total += widen(in[i]);
    total = team.sum(total);
    if (team.rank() == 0) partials[plane] = total;
  });
}

// The sums of all parts: of partials (1 or 2, parts, columns), the second ones where not null.
KERNEL(columns_total)
(const acc_t* __restrict__ partials, scalar_t* __restrict__ first, scalar_t* __restrict__ second,
 i64 parts, i64 columns) {
  column_totals(second ? 2 : 1, parts, columns, partials, [&](i64 n, i64 column, acc_t total) {
    (n ? second : first)[column] = narrow(total);
  });
}
