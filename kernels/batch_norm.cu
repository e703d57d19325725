// Batch normalisation of (samples, channels, length), by the batch's statistics or by given ones.
//
// In training, forward is three launches: sums over each channel (batch_norm_planes or
// batch_norm_samples), its statistics (batch_norm_statistics), and y (batch_norm_forward). So is
// backward: norm_slopes_planes or norm_slopes_samples, norm_slopes_total, batch_norm_backward.
// Parameters and running statistics are arrays of scalar_t, or of acc_t when `wide`.
#define BLOCKS 4
#include "channels.cuh"

// Adds value - shift and its square. The shift is a value of the channel itself, which is near
// enough to its mean in all but strange channels: see batch_norm_statistics.
struct Moments {
  acc_t shift;
  __device__ void operator()(acc_t* sums, acc_t value) const {
    const acc_t moved = value - shift;
    sums[0] += moved;
    sums[1] += moved * moved;
  }
};

KERNEL(batch_norm_planes)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, i64 samples, i64 channels,
 i64 length, i64 pieces) {
  plane_sums(
      samples, channels, length, pieces, partials,
      [=](i64 plane) { return Moments{widen(x[remainder(plane, channels) * length])}; }, x);
}

KERNEL(batch_norm_samples)
(const scalar_t* __restrict__ x, acc_t* __restrict__ partials, i64 samples, i64 channels,
 i64 length, i64 parts) {
  sample_sums(
      samples, channels, length, parts, partials,
      [=](i64, i64 channel) { return Moments{widen(x[channel * length])}; }, x);
}

// mean and rstd = 1 / sqrt(variance + eps) of each channel; running statistics, where given,
// move towards the mean and the unbiased variance.
KERNEL(batch_norm_statistics)
(const scalar_t* __restrict__ x, const acc_t* __restrict__ partials, acc_t* __restrict__ mean,
 acc_t* __restrict__ rstd, void* __restrict__ running_mean, void* __restrict__ running_var,
 i64 wide, i64 samples, i64 channels, i64 length, i64 parts, i64 inner, double momentum,
 double eps) {
  const i64 count = samples * length;
  const total_t share = total_t(1) / total_t(count);
  for_each_row(channels, [&](auto team, i64 c) {
    const total_t total = channel_total(team, 0, c, partials, parts, channels, inner);
    const total_t squares = channel_total(team, 1, c, partials, parts, channels, inner);
    total_t center = widen(x[c * length]) + total * share;
    total_t variance = squares * share - (total * share) * (total * share);
    if (variance < total_t(1e-3) * (squares * share)) {
      // The shift was an outlier, and next to nothing is left of the difference: once more, by
      // the mean.
      acc_t sums[2] = {};
      const Moments add{settled(acc_t(center))};
      center = add.shift;
      for (i64 sample = 0; sample < samples; sample++) {
        row_of(team, length).each([&](acc_t value) { add(sums, value); },
                                  x + (sample * channels + c) * length);
      }
      const total_t rest = team.sum(sums[0]) * share;
      variance = team.sum(sums[1]) * share - rest * rest;
      center += rest;
      if (variance < 0) variance = 0;
    }
    if (team.rank() == 0) {
      mean[c] = acc_t(center);
      rstd[c] = acc_t(total_t(1) / math::sqrt(variance + total_t(eps)));
      const total_t step = total_t(momentum), kept = total_t(1) - step;
      const total_t unbiased = variance * (total_t(count) / total_t(count - 1));
      set_channel_value(running_mean, wide, c,
                        acc_t(kept * channel_value(running_mean, wide, c, 0) + step * center));
      set_channel_value(running_var, wide, c,
                        acc_t(kept * channel_value(running_var, wide, c, 0) + step * unbiased));
    }
  });
}

struct Affine {
  acc_t center, scale, shift;
  __device__ acc_t operator()(acc_t value) const { return (value - center) * scale + shift; }
};

// y = (x - mean) * rstd * weight + bias, without what is null. So it is also the gradient for
// given statistics: dx = grad * rstd * weight.
KERNEL(batch_norm_forward)
(const scalar_t* __restrict__ x, const void* __restrict__ weight, const void* __restrict__ bias,
 const acc_t* __restrict__ mean, const acc_t* __restrict__ rstd, scalar_t* __restrict__ y,
 i64 wide, i64 samples, i64 channels, i64 length) {
  map_channels(
      samples, channels, length, y,
      [=](i64 c) {
        return Affine{mean ? mean[c] : acc_t(0), rstd[c] * channel_value(weight, wide, c, 1),
                      channel_value(bias, wide, c, 0)};
      },
      x);
}

// The same with given statistics; mean and rstd are handed on.
KERNEL(batch_norm_inference)
(const scalar_t* __restrict__ x, const void* __restrict__ weight, const void* __restrict__ bias,
 const void* __restrict__ running_mean, const void* __restrict__ running_var,
 acc_t* __restrict__ mean, acc_t* __restrict__ rstd, scalar_t* __restrict__ y, i64 wide,
 i64 wide_running, i64 samples, i64 channels, i64 length, double eps) {
  const auto center = [=](i64 c) { return channel_value(running_mean, wide_running, c, 0); };
  const auto scale = [=](i64 c) {
    return acc_t(1) / math::sqrt(channel_value(running_var, wide_running, c, 1) + acc_t(eps));
  };
  map_channels(
      samples, channels, length, y,
      [=](i64 c) {
        return Affine{center(c), scale(c) * channel_value(weight, wide, c, 1),
                      channel_value(bias, wide, c, 0)};
      },
      x);
  for (i64 c = thread_index(); c < channels; c += thread_count()) {
    mean[c] = center(c);
    rstd[c] = scale(c);
  }
}

// Adds grad * u, where u = (x - mean) * rstd, and grad.
struct Slopes {
  acc_t center, scale;
  __device__ void operator()(acc_t* sums, acc_t slope, acc_t value) const {
    sums[0] += slope * ((value - center) * scale);
    sums[1] += slope;
  }
};

// A group of channels of a sample, or a channel of all, has one mean and one rstd: `inner`
// channels to a group, or 0.
KERNEL_BLOCKS(norm_slopes_planes, 3)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const acc_t* __restrict__ mean, const acc_t* __restrict__ rstd, acc_t* __restrict__ partials,
 i64 samples, i64 channels, i64 length, i64 inner, i64 pieces) {
  plane_sums(
      samples, channels, length, pieces, partials,
      [=](i64 plane) {
        const i64 s = inner ? quotient(plane, inner) : remainder(plane, channels);
        return Slopes{mean[s], rstd[s]};
      },
      grad, x);
}

KERNEL(norm_slopes_samples)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const acc_t* __restrict__ mean, const acc_t* __restrict__ rstd, acc_t* __restrict__ partials,
 i64 samples, i64 channels, i64 length, i64 inner, i64 parts) {
  sample_sums(
      samples, channels, length, parts, partials,
      [=](i64 sample, i64 channel) {
        const i64 s = inner ? quotient(sample * channels + channel, inner) : channel;
        return Slopes{mean[s], rstd[s]};
      },
      grad, x);
}

// dweight and dbias, where wanted, and the totals (2, channels), where wanted.
KERNEL(norm_slopes_total)
(const acc_t* __restrict__ partials, acc_t* __restrict__ totals, void* __restrict__ dweight,
 void* __restrict__ dbias, i64 wide, i64 channels, i64 parts, i64 inner) {
  for_each_row(channels, [&](auto team, i64 c) {
    const acc_t along = channel_total(team, 0, c, partials, parts, channels, inner);
    const acc_t plain = channel_total(team, 1, c, partials, parts, channels, inner);
    if (team.rank() == 0) {
      if (totals) {
        totals[c] = along;
        totals[channels + c] = plain;
      }
      set_channel_value(dweight, wide, c, along);
      set_channel_value(dbias, wide, c, plain);
    }
  });
}

struct Slope {
  acc_t scale, center, along, plain;
  __device__ acc_t operator()(acc_t slope, acc_t value) const {
    return scale * (slope - plain - (value - center) * along);
  }
};

// dx = rstd * weight * (grad - mean(grad) - u * mean(grad * u)), means over the channel.
KERNEL_BLOCKS(batch_norm_backward, 3)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const void* __restrict__ weight, const acc_t* __restrict__ mean,
 const acc_t* __restrict__ rstd, const acc_t* __restrict__ totals, scalar_t* __restrict__ dx,
 i64 wide, i64 samples, i64 channels, i64 length) {
  const acc_t share = acc_t(1) / acc_t(samples * length);
  map_channels(
      samples, channels, length, dx,
      [=](i64 c) {
        return Slope{rstd[c] * channel_value(weight, wide, c, 1), mean[c],
                     totals[c] * share * rstd[c], totals[channels + c] * share};
      },
      grad, x);
}
