// Layer, RMS, group and instance normalisation: rows standardised, forward and backward.
//
// Layer and RMS normalisation have a weight and a bias for each column; `mean` is null for the
// second, which subtracts none. A row of group normalisation is one group of one sample: planes
// of `length` elements, a channel each, with one weight and one bias to a channel.
#define BLOCKS 2
#include "columns.cuh"

#include "rows.cuh"

// Rows of at most 512 bytes, if they are many, have kernels with fewer registers, for more threads.
template <bool SHORT, int ROWS, class Body>
DEVICE void with_rows(i64 rows, i64 columns, bool vectors, Body body) {
  if constexpr (SHORT) {
    for_each_short_row(rows, [&](auto team, i64 r) {
      with_short_row<4>(team, columns, vectors, [&](auto row) { body(team, row, r); });
    });
  } else {
    for_each_row(rows, [&](auto team, i64 r) {
      with_row<ROWS>(team, columns, vectors, [&](auto row) { body(team, row, r); });
    });
  }
}

// y = (x - mean) * rstd * scale + shift, and mean and rstd = 1 / sqrt(variance + eps).
// scales(r) and shifts(r) are the rows that weight and bias are for row r.
template <bool SHORT, class Scales, class Shifts>
DEVICE void standardise(const scalar_t* x, scalar_t* y, acc_t* mean, acc_t* rstd, i64 rows,
                        i64 columns, acc_t eps, bool vectors, Scales scales, Shifts shifts) {
  const acc_t share = acc_t(1) / acc_t(columns);
  with_rows<SHORT, 1>(rows, columns, vectors && aligned(x, y), [&](auto team, auto row, i64 r) {
    const auto in = row.keep(x + r * columns);
    acc_t center = 0, rest = 0, squares = 0;
    if (mean) {
      acc_t total = 0;
      row.each([&](acc_t value) { total += value; }, in);
      center = team.sum(total) * share;
    }
    row.each(
        [&](acc_t value) {
          const acc_t centred = value - center;
          squares += centred * centred;
          rest += centred * share;  // not rest += centred: a CPU compiler may regroup that sum
        },
        in);
    // What the rounding of the mean left in the centred values belongs to the mean.
    rest = mean ? team.sum(rest) : acc_t(0);
    const acc_t variance = team.sum(squares) * share - rest * rest;
    const acc_t scale = acc_t(1) / math::sqrt((variance < 0 ? acc_t(0) : variance) + eps);
    const acc_t left = settled(rest * scale);
    row.map(
        y + r * columns,
        [&](acc_t value, acc_t w, acc_t b) { return ((value - center) * scale - left) * w + b; },
        in, scales(r), shifts(r));
    if (team.rank() == 0) {
      if (mean) mean[r] = center + rest;
      rstd[r] = scale;
    }
  });
}

// With u = (x - mean) * rstd and h = grad * scale: dx = rstd * (h - mean(h) - u * mean(h * u))
template <bool SHORT, class Scales>
DEVICE void standardise_backward(const scalar_t* grad, const scalar_t* x, scalar_t* dx,
                                 const acc_t* mean, const acc_t* rstd, i64 rows, i64 columns,
                                 bool vectors, Scales scales) {
  const acc_t share = acc_t(1) / acc_t(columns);
  const bool packs = vectors && aligned(grad, x, dx);
  with_rows<SHORT, 2>(rows, columns, packs, [&](auto team, auto row, i64 r) {
    const auto g = row.keep(grad + r * columns);
    const auto in = row.keep(x + r * columns);
    const acc_t center = mean ? mean[r] : acc_t(0), scale = rstd[r];
    acc_t plain = 0, along = 0;
    row.each(
        [&](acc_t slope, acc_t value, acc_t w) {
          plain += slope * w;
          along += slope * w * (value - center);
        },
        g, in, scales(r));
    plain = mean ? team.sum(plain) * share : acc_t(0);
    along = team.sum(along) * share * scale * scale;
    row.map(
        dx + r * columns,
        [&](acc_t slope, acc_t value, acc_t w) {
          return scale * (slope * w - plain - (value - center) * along);
        },
        g, in, scales(r));
  });
}

KERNEL(layer_norm_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ y, acc_t* __restrict__ mean,
 acc_t* __restrict__ rstd, i64 rows, i64 columns, double eps) {
  standardise<false>(
      x, y, mean, rstd, rows, columns, acc_t(eps), aligned(weight, bias),
      [=](i64) { return Optional{weight, 1}; }, [=](i64) { return Optional{bias, 0}; });
}

KERNEL(layer_norm_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ mean,
 const acc_t* __restrict__ rstd, scalar_t* __restrict__ dx, i64 rows, i64 columns) {
  standardise_backward<false>(grad, x, dx, mean, rstd, rows, columns, aligned(weight),
                              [=](i64) { return Optional{weight, 1}; });
}

// dweight and dbias: the sums over each part of the rows of grad * u and of grad.
KERNEL(layer_norm_parameters)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const acc_t* __restrict__ mean, const acc_t* __restrict__ rstd, acc_t* __restrict__ partials,
 i64 rows, i64 columns, i64 parts) {
  column_parts<2>(
      rows, columns, parts, partials, nullptr,
      [=](i64 row, i64, acc_t* sum, acc_t slope, acc_t value) {
        const acc_t center = mean ? mean[row] : acc_t(0);
        sum[0] += slope * ((value - center) * rstd[row]);
        sum[1] += slope;
        return slope;
      },
      grad, x);
}

// The row of a parameter of (groups * inner,) for row r.
DEVICE Channels channels_of(const scalar_t* parameter, i64 r, i64 groups, i64 inner, i64 length,
                            acc_t otherwise) {
  return {parameter ? parameter + r % groups * inner : nullptr, otherwise, u32(length)};
}

// Row r is group r % groups of a sample: `inner` channels of `length` elements.
KERNEL(group_norm_forward)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ y, acc_t* __restrict__ mean,
 acc_t* __restrict__ rstd, i64 rows, i64 groups, i64 inner, i64 length, double eps) {
  standardise<false>(
      x, y, mean, rstd, rows, inner * length, acc_t(eps), length > 1 || aligned(weight, bias),
      [=](i64 r) { return channels_of(weight, r, groups, inner, length, 1); },
      [=](i64 r) { return channels_of(bias, r, groups, inner, length, 0); });
}

KERNEL(group_norm_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ mean,
 const acc_t* __restrict__ rstd, scalar_t* __restrict__ dx, i64 rows, i64 groups, i64 inner,
 i64 length) {
  standardise_backward<false>(
      grad, x, dx, mean, rstd, rows, inner * length, length > 1 || aligned(weight),
      [=](i64 r) { return channels_of(weight, r, groups, inner, length, 1); });
}

// Short rows: of layer normalisation, or of a group of `columns` channels of one element each.
KERNEL_BLOCKS(norm_short_forward, 4)
(const scalar_t* __restrict__ x, const scalar_t* __restrict__ weight,
 const scalar_t* __restrict__ bias, scalar_t* __restrict__ y, acc_t* __restrict__ mean,
 acc_t* __restrict__ rstd, i64 rows, i64 groups, i64 columns, double eps) {
  const auto from = [=](const scalar_t* parameter, i64 r) {
    return parameter && groups > 1 ? parameter + u32(r) % u32(groups) * columns : parameter;
  };
  standardise<true>(
      x, y, mean, rstd, rows, columns, acc_t(eps), aligned(weight, bias),
      [=](i64 r) { return Optional{from(weight, r), 1}; },
      [=](i64 r) { return Optional{from(bias, r), 0}; });
}

KERNEL_BLOCKS(norm_short_backward, 3)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ mean,
 const acc_t* __restrict__ rstd, scalar_t* __restrict__ dx, i64 rows, i64 groups, i64 columns) {
  standardise_backward<true>(
      grad, x, dx, mean, rstd, rows, columns, aligned(weight), [=](i64 r) {
        return Optional{weight && groups > 1 ? weight + u32(r) % u32(groups) * columns : weight, 1};
      });
}
