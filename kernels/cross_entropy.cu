// The cross-entropy of logits (samples, classes, length) with class numbers or probabilities.
//
// With q the target distribution of a position, weights and smoothing included, and p the softmax
// of its logits, the loss is -sum(q log p) and its gradient sum(q) p - q. Forward reads the logits
// once where a row fits in registers, and keeps three numbers for each position in `kept`
// (3, positions): the largest logit, 1 / sum(exp(x - largest)) and sum(q). Backward reads the
// logits again, rather than a gradient that forward would have had to write: as much memory
// traffic, none of it where no gradient is wanted, and nothing to keep but what is there anyway.
//
// A class number out of range makes its loss and its gradient NaN, and forward notes it.
#define BLOCKS 2
#include "checks.cuh"
#include "rows.cuh"

// The distribution that a position is compared with: weight[class] * (rate + uniform) at its
// class number and weight * uniform elsewhere, or weight * (rate * probability + uniform).
struct Target {
  const i64* numbers;
  const scalar_t* probabilities;
  const scalar_t* weight;
  i64 classes, ignored;
  acc_t rate, uniform;

  __device__ bool spread() const { return probabilities || uniform > 0; }
  __device__ acc_t weight_of(i64 c) const { return weight ? widen(weight[c]) : acc_t(1); }
  __device__ acc_t part(acc_t probability, acc_t w) const {
    return w * (rate * probability + uniform);
  }
  __device__ bool ignores(i64 position) const { return numbers && numbers[position] == ignored; }
  __device__ acc_t part_of_number(i64 c) const { return part(1, weight_of(c)); }
  __device__ acc_t part_at(i64 at, i64 c) const {
    return part(probabilities ? widen(probabilities[at]) : acc_t(0), weight_of(c));
  }
};

DEVICE Target target_of(const i64* numbers, const scalar_t* probabilities, const scalar_t* weight,
                        i64 classes, i64 ignored, double smoothing) {
  return {numbers, probabilities, weight, classes, ignored, acc_t(1 - smoothing),
          acc_t(smoothing / double(classes))};
}

// What forward finds at a position.
struct Position {
  acc_t top, total, mass, along;  // sums of exp(x - top), of q and of q (x - top)

  // Adds what a class number says; `number` is not read where there are probabilities.
  __device__ acc_t count(const Target& target, i64 number, const scalar_t* logits, i64 step,
                         i64* errors) {
    if (target.probabilities) return acc_t(1);
    if (number == target.ignored) {
      mass = along = 0;
      return acc_t(0);
    }
    if (checked(number, 0, target.classes, errors) < 0) {
      mass = along = infinity() - infinity();
      return acc_t(1);
    }
    const acc_t w = target.weight_of(number);
    mass += target.rate * w;
    along += target.rate * w * (widen(logits[number * step]) - top);
    return w;
  }

  // `weight` is what the position counts in a mean.
  __device__ void write(i64 at, i64 positions, acc_t weight, acc_t* losses, acc_t* kept) const {
    losses[at] = mass == 0 && along == 0 ? acc_t(0) : mass * math::log(total) - along;
    losses[positions + at] = weight;
    kept[at] = top;
    kept[positions + at] = acc_t(1) / total;
    kept[2 * positions + at] = mass;
  }
};

// losses (2, positions): of each position the loss, and what it counts in a mean.
KERNEL(cross_entropy_rows)
(const scalar_t* __restrict__ x, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ probabilities, const scalar_t* __restrict__ weight,
 acc_t* __restrict__ losses, acc_t* __restrict__ kept, i64* errors, i64 rows, i64 classes,
 i64 ignored, double smoothing) {
  const Target target = target_of(numbers, probabilities, weight, classes, ignored, smoothing);
  for_each_row(rows, [&](auto team, i64 r) {
    with_row<1>(team, classes, aligned(x, probabilities, weight), [&](auto row) {
      const scalar_t* logits = x + r * classes;
      const auto in = row.keep(logits);
      Position found = {-infinity(), 0, 0, 0};
      acc_t top = -infinity(), total = 0, mass = 0, along = 0;
      row.each([&](acc_t value) { top = math::larger(value, top); }, in);
      found.top = top = team.max(top);
      if (target.spread()) {
        const scalar_t* mine = probabilities ? probabilities + r * classes : nullptr;
        row.each(
            [&](acc_t value, acc_t probability, acc_t w) {
              const acc_t part = target.part(probability, w);
              total += math::exp(value - top);
              mass += part;
              along += part * (value - top);
            },
            in, Optional{mine, 0}, Optional{weight, 1});
        found.mass = team.sum(mass);
        found.along = team.sum(along);
      } else {
        row.each([&](acc_t value) { total += math::exp(value - top); }, in);
      }
      found.total = team.sum(total);
      const acc_t counts = found.count(target, numbers ? numbers[r] : 0, logits, 1, errors);
      if (team.rank() == 0) found.write(r, rows, counts, losses, kept);
    });
  });
}

// What a position's gradient is multiplied by.
DEVICE acc_t factor(const scalar_t* grad, i64 each, i64 at, const acc_t* count, double scale) {
  return widen(grad[each ? at : 0]) * acc_t(scale) / (count ? count[0] : acc_t(1));
}

// dx, with grad of each position or of all, which is divided by `count` where it is not null.
KERNEL(cross_entropy_rows_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const i64* __restrict__ numbers, const scalar_t* __restrict__ probabilities,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ kept,
 const acc_t* __restrict__ count, scalar_t* __restrict__ dx, i64 rows, i64 classes, i64 ignored,
 i64 each, double smoothing, double scale) {
  const Target target = target_of(numbers, probabilities, weight, classes, ignored, smoothing);
  for_each_row(rows, [&](auto team, i64 r) {
    const scalar_t* logits = x + r * classes;
    const acc_t top = kept[r], share = kept[2 * rows + r] * kept[rows + r];
    const acc_t slope = factor(grad, each, r, count, scale);
    const auto gradient = [=](acc_t value, acc_t part) {
      return slope * (math::exp(value - top) * share - part);
    };
    if (target.ignores(r)) {
      row_of(team, classes).map(dx + r * classes, [](acc_t) { return acc_t(0); }, logits);
    } else if (target.spread()) {
      const scalar_t* mine = probabilities ? probabilities + r * classes : nullptr;
      row_of(team, classes)
          .map(
              dx + r * classes,
              [=](acc_t value, acc_t probability, acc_t w) {
                return gradient(value, target.part(probability, w));
              },
              logits, Optional{mine, 0}, Optional{weight, 1});
    } else {
      row_of(team, classes).map(
          dx + r * classes, [=](acc_t value) { return gradient(value, 0); }, logits);
    }
    if (numbers && !target.ignores(r)) {
      team.sync();  // the element of the class is written twice
      const i64 c = numbers[r];
      if (team.rank() == 0 && c >= 0 && c < classes) {
        dx[r * classes + c] = narrow(gradient(widen(logits[c]), target.part_of_number(c)));
      }
    }
  });
}

// Positions that lie side by side, each with its classes `length` elements apart: a thread to a
// position on a GPU, and a vector of them on the CPU.
#if defined(GRADLITE_NATIVE)
constexpr i64 TILE = 64;
#else
constexpr i64 TILE = 1;
#endif
template <class Body>
DEVICE void for_each_tile(i64 samples, i64 length, Body body) {
  const i64 tiles = (length + TILE - 1) / TILE;
  for (i64 i = thread_index(); i < samples * tiles; i += thread_count()) {
    const i64 sample = i / tiles, first = (i - sample * tiles) * TILE;
    body(sample, first, math::smaller(TILE, length - first));
  }
}

KERNEL(cross_entropy_positions)
(const scalar_t* __restrict__ x, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ probabilities, const scalar_t* __restrict__ weight,
 acc_t* __restrict__ losses, acc_t* __restrict__ kept, i64* errors, i64 samples, i64 classes,
 i64 length, i64 ignored, double smoothing) {
  const Target target = target_of(numbers, probabilities, weight, classes, ignored, smoothing);
  for_each_tile(samples, length, [&](i64 sample, i64 first, i64 width) {
    const i64 start = sample * classes * length + first;
    acc_t top[TILE] = {}, total[TILE] = {}, mass[TILE] = {}, along[TILE] = {};
    for (i64 j = 0; j < width; j++) top[j] = -infinity();
    for (i64 c = 0; c < classes; c++) {
      const scalar_t* in = x + start + c * length;
      for (i64 j = 0; j < width; j++) top[j] = math::larger(widen(in[j]), top[j]);
    }
    for (i64 c = 0; c < classes; c++) {
      const i64 at = start + c * length;
      for (i64 j = 0; j < width; j++) total[j] += math::exp(widen(x[at + j]) - top[j]);
      if (target.spread()) {
        for (i64 j = 0; j < width; j++) {
          const acc_t part = target.part_at(at + j, c);
          mass[j] += part;
          along[j] += part * (widen(x[at + j]) - top[j]);
        }
      }
    }
    for (i64 j = 0; j < width; j++) {
      const i64 at = sample * length + first + j;
      Position found = {top[j], total[j], mass[j], along[j]};
      const acc_t counts =
          found.count(target, numbers ? numbers[at] : 0, x + start + j, length, errors);
      found.write(at, samples * length, counts, losses, kept);
    }
  });
}

KERNEL(cross_entropy_positions_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const i64* __restrict__ numbers, const scalar_t* __restrict__ probabilities,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ kept,
 const acc_t* __restrict__ count, scalar_t* __restrict__ dx, i64 samples, i64 classes,
 i64 length, i64 ignored, i64 each, double smoothing, double scale) {
  const Target target = target_of(numbers, probabilities, weight, classes, ignored, smoothing);
  const i64 positions = samples * length;
  for_each_tile(samples, length, [&](i64 sample, i64 first, i64 width) {
    const i64 start = sample * classes * length + first, position = sample * length + first;
    acc_t slope[TILE] = {}, top[TILE] = {}, share[TILE] = {};
    i64 number[TILE] = {};
    for (i64 j = 0; j < width; j++) {
      const i64 at = position + j;
      slope[j] = factor(grad, each, at, count, scale);
      top[j] = kept[at];
      share[j] = kept[2 * positions + at] * kept[positions + at];
      number[j] = numbers ? numbers[at] : ignored;
    }
    for (i64 c = 0; c < classes; c++) {
      const i64 at = start + c * length;
      for (i64 j = 0; j < width; j++) {
        acc_t part = target.spread() ? target.part_at(at + j, c) : acc_t(0);
        if (numbers && number[j] == c) part = target.part_of_number(c);
        const acc_t slant = math::exp(widen(x[at + j]) - top[j]) * share[j] - part;
        dx[at + j] = narrow(numbers && number[j] == ignored ? acc_t(0) : slope[j] * slant);
      }
    }
  });
}

// The gradient of the probabilities: -rate * weight * log p.
KERNEL(cross_entropy_targets_backward)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ x,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ kept,
 scalar_t* __restrict__ dtarget, i64 samples, i64 classes, i64 length, i64 each, double rate,
 double scale) {
  const i64 positions = samples * length;
  for_each_tile(samples, length, [&](i64 sample, i64 first, i64 width) {
    const i64 start = sample * classes * length + first, position = sample * length + first;
    acc_t slope[TILE] = {}, log_total[TILE] = {};
    for (i64 j = 0; j < width; j++) {
      slope[j] = factor(grad, each, position + j, nullptr, scale) * acc_t(rate);
      log_total[j] = kept[position + j] - math::log(kept[positions + position + j]);
    }
    for (i64 c = 0; c < classes; c++) {
      const i64 at = start + c * length;
      const acc_t w = weight ? widen(weight[c]) : acc_t(1);
      for (i64 j = 0; j < width; j++) {
        dtarget[at + j] = narrow(slope[j] * w * (log_total[j] - widen(x[at + j])));
      }
    }
  });
}

// The negative log-likelihood of class numbers: x holds log-probabilities.
KERNEL(nll_loss_forward)
(const scalar_t* __restrict__ x, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ weight, acc_t* __restrict__ losses, i64* errors, i64 samples,
 i64 classes, i64 length, i64 ignored) {
  const i64 positions = samples * length;
  for (i64 i = thread_index(); i < positions; i += thread_count()) {
    const i64 c = numbers[i], sample = i / length;
    acc_t loss = 0, counts = 0;
    if (c != ignored) {
      const bool valid = checked(c, 0, classes, errors) >= 0;
      counts = valid && weight ? widen(weight[c]) : acc_t(1);
      loss = valid ? -counts * widen(x[(sample * classes + c) * length + (i - sample * length)])
                   : infinity() - infinity();
    }
    losses[i] = loss;
    losses[positions + i] = counts;
  }
}

// dx is zeros; where the class numbers are, the gradient is written.
KERNEL(nll_loss_backward)
(const scalar_t* __restrict__ grad, const i64* __restrict__ numbers,
 const scalar_t* __restrict__ weight, const acc_t* __restrict__ count, scalar_t* __restrict__ dx,
 i64 samples, i64 classes, i64 length, i64 ignored, i64 each) {
  for (i64 i = thread_index(); i < samples * length; i += thread_count()) {
    const i64 c = numbers[i], sample = i / length;
    if (c != ignored && c >= 0 && c < classes) {
      const acc_t w = weight ? widen(weight[c]) : acc_t(1);
      dx[(sample * classes + c) * length + (i - sample * length)] =
          narrow(-w * factor(grad, each, i, count, 1));
    }
  }
}
