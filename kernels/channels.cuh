// Channels of arrays (samples, channels, length): two sums over each of them, in two kernels, and
// what is done to every element by the constants of its channel.
//
// `plane_sums` cuts the planes of `length` elements into pieces and leaves the sums of each in
// `partials` (2, samples * pieces, channels). Short planes waste a team: `sample_sums` adds up
// columns of (samples, channels * length) as in columns.cuh, and leaves `partials`
// (2, parts, channels * length). `channel_totals` adds up either.
#pragma once
#include "columns.cuh"

#include "rows.cuh"

// 64-bit division is slow on a GPU: arrays have fewer than 2^32 elements here.
DEVICE i64 quotient(i64 a, i64 b) { return u32(a) / u32(b); }
DEVICE i64 remainder(i64 a, i64 b) { return u32(a) % u32(b); }

// A value to a channel, of scalar_t or, when `wide`, of acc_t.
DEVICE acc_t channel_value(const void* data, i64 wide, i64 channel, acc_t otherwise) {
  if (!data) return otherwise;
  return wide ? static_cast<const acc_t*>(data)[channel]
              : widen(static_cast<const scalar_t*>(data)[channel]);
}
DEVICE void set_channel_value(void* data, i64 wide, i64 channel, acc_t value) {
  if (!data) return;
  if (wide) {
    static_cast<acc_t*>(data)[channel] = value;
  } else {
    static_cast<scalar_t*>(data)[channel] = narrow(value);
  }
}

// body(team, plane, piece, first, columns) for every piece of planes of `length` elements: `columns`
// elements of the array from `first` on, of which the last pieces may have none.
template <class Body>
DEVICE void for_each_piece(i64 planes, i64 length, i64 pieces, Body body) {
  // A multiple of 8, so that every piece of an aligned plane is aligned.
  const i64 size = ((length + pieces - 1) / pieces + 7) / 8 * 8;
  for_each_row(planes * pieces, [&](auto team, i64 r) {
    const i64 plane = pieces == 1 ? r : r / pieces, piece = r - plane * pieces;
    const i64 left = math::larger(length - piece * size, i64(0));
    body(team, plane, piece, plane * length + piece * size, math::smaller(size, left));
  });
}

// function(plane) gives what is called as f(sums, values of `in`...) for each element.
template <class Function, class... In>
DEVICE void plane_sums(i64 samples, i64 channels, i64 length, i64 pieces, acc_t* partials,
                       Function function, const In*... in) {
  for_each_piece(samples * channels, length, pieces,
                 [&](auto team, i64 plane, i64 piece, i64 first, i64 columns) {
    acc_t sums[2] = {};
    auto add = function(plane);
    row_of(team, columns).each([&](auto... values) { add(sums, values...); }, (in + first)...);
    const acc_t first_sum = team.sum(sums[0]), second_sum = team.sum(sums[1]);
    if (team.rank() == 0) {
      const i64 sample = quotient(plane, channels), channel = plane - sample * channels;
      const i64 parts = samples * pieces, part = sample * pieces + piece;
      partials[part * channels + channel] = first_sum;
      partials[(parts + part) * channels + channel] = second_sum;
    }
  });
}

// The same with function(sample, channel) and parts of the samples.
template <class Function, class... In>
DEVICE void sample_sums(i64 samples, i64 channels, i64 length, i64 parts, acc_t* partials,
                        Function function, const In*... in) {
  column_parts<2>(
      samples, channels * length, parts, partials, nullptr,
      [=](i64 sample, i64 column, acc_t* sums, auto first, auto... values) {
        function(sample, length == 1 ? column : quotient(column, length))(sums, first,
                                                                                values...);
        return first;
      },
      in...);
}

// What a few sums come to, and is subtracted from another: in double precision where that costs
// nothing.
#if defined(GRADLITE_NATIVE)
typedef double total_t;
#else
typedef acc_t total_t;
#endif

// The sums of a channel, the same in every member of the team; inner is 1 after plane_sums.
template <class Team>
DEVICE total_t channel_total(Team team, int sum, i64 channel, const acc_t* partials, i64 parts,
                           i64 channels, i64 inner) {
  const acc_t* from = partials + sum * parts * channels * inner + channel * inner;
  total_t total = 0;
  for (i64 i = team.rank(); i < parts * inner; i += team.size()) {
    const i64 part = inner == 1 ? i : quotient(i, inner);
    total += from[part * channels * inner + (i - part * inner)];
  }
  return team.sum(total);
}

// out = at(channel)(in...) for every element.
template <class At, class... In>
DEVICE void map_channels(i64 samples, i64 channels, i64 length, scalar_t* out, At at,
                         const In*... in) {
#if defined(GRADLITE_NATIVE)
  if (length == 1) {
    for (i64 sample = 0; sample < samples; sample++) {
      const i64 first = sample * channels;
      INDEPENDENT
      for (i64 c = 0; c < channels; c++) out[first + c] = narrow(at(c)(widen(in[first + c])...));
    }
    return;
  }
  for (i64 plane = 0; plane < samples * channels; plane++) {
    const auto function = at(plane % channels);
    SerialRow{length}.map(out + plane * length, function, (in + plane * length)...);
  }
#else
  const i64 n = samples * channels * length, packs = n / LANES, period = channels * length;
  i64 done = 0;
  if (aligned(out, in...)) {
    done = packs * LANES;
    if (period % LANES == 0 && period / LANES * 8 <= thread_count()) {
      // Threads that go on by whole samples stay in their channels.
      const i64 step = quotient(thread_count(), period / LANES) * (period / LANES);
      const i64 first = thread_index();
      if (first < step && first < packs) {
        decltype(at(i64(0))) function[LANES];
#pragma unroll
        for (int l = 0; l < LANES; l++) {
          function[l] = at(remainder(quotient(first * LANES + l, length), channels));
        }
        ROLLED
        for (i64 p = first; p < packs; p += step) {
          int l = 0;
          reinterpret_cast<Pack*>(out)[p] =
              map_lanes([&](auto... values) { return function[l++](values...); },
                        reinterpret_cast<const Pack*>(in)[p]...);
        }
      }
    } else {
      for (i64 p = thread_index(); p < packs; p += thread_count()) {
        i64 plane = quotient(p * LANES, length), left = (plane + 1) * length - p * LANES;
        auto function = at(remainder(plane, channels));
        reinterpret_cast<Pack*>(out)[p] = map_lanes(
            [&](auto... values) {
              if (left-- == 0) {
                left = length - 1;
                function = at(remainder(++plane, channels));
              }
              return function(values...);
            },
            reinterpret_cast<const Pack*>(in)[p]...);
      }
    }
  }
  for (i64 i = done + thread_index(); i < n; i += thread_count()) {
    out[i] = narrow(at(remainder(quotient(i, length), channels))(widen(in[i])...));
  }
#endif
}
