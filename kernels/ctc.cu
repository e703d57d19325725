// Connectionist temporal classification: the probability of all ways to a target (Graves et al.,
// Connectionist Temporal Classification, ICML 2006), and its gradient.
//
// A target of L labels is walked through in L + 1 pairs of states: the blank before a label, and
// the label; the last pair has a blank alone, and stands in memory with a label that nothing
// reaches. alpha is the logarithm of the probability of all beginnings that are in a state at a
// time, that time included; beta that of all ends from there, that time excluded. A block takes one
// sequence of the batch and goes through time with a barrier for each step. Its last two rows of
// states are in shared memory, with what a few steps to come read, so that no step waits for more.
//
// Targets of the batch are rows of `longest` labels, or with longest = 0 follow one another, `total`
// in all. A row of alpha has 2 (L + 1) states, the blanks and then the labels, and sequences follow
// one another, with `times` rows each. So their sizes need not be known before the launch.
#include "checks.cuh"
#include "team.cuh"

// Steps that are read ahead, at most.
constexpr i64 AHEAD = 16;

#if defined(GRADLITE_NATIVE)  // a loop with a call in it does not become one of vectors
#define INLINED DEVICE __forceinline__
#else
#define INLINED DEVICE
#endif

// What exponents are shifted by: a number also where there is no way to any of the states.
INLINED acc_t shift_of(acc_t top) { return top > acc_t(-3e38) ? top : acc_t(-3e38); }

// log(exp(a) + exp(b)). Both arguments count, so that NaN stays.
INLINED acc_t either(acc_t a, acc_t b) {
  const acc_t high = a > b ? a : b, low = a > b ? b : a;
  return high + math::log(1 + math::exp(low - shift_of(high)));
}

// log(exp(a) + exp(b) + exp(c))
INLINED acc_t either(acc_t a, acc_t b, acc_t c) {
  const acc_t high = a > b ? a : b, low = a > b ? b : a;
  const acc_t top = high > c ? high : c, middle = high > c ? c : high, shift = shift_of(top);
  return top + math::log(1 + (math::exp(low - shift) + math::exp(middle - shift)));
}

// Where a sequence's labels begin, and how many labels and steps it has; -1 where they are wrong.
struct Sequence {
  i64 start, labels, steps;

  __device__ i64 pairs() const { return labels + 1; }
  // Where its rows begin, of `width` numbers for a label and `width` more for the sequence.
  __device__ i64 place(i64 n, i64 width) const { return (start + n) * width; }
};

template <class Team>
DEVICE Sequence sequence_of(Team team, i64 n, const i64* steps, const i64* lengths, i64* errors,
                            i64 times, i64 batch, i64 longest, i64 total) {
  i64 start = n * longest, room = longest;
  if (longest == 0) {
    for (i64 m = team.rank(); m < n; m += team.size()) {
      start += math::larger(i64(0), math::smaller(lengths[m], total));
    }
    start = team.sum(start);
    room = total - start;
  }
  // `checked` wants numbers below a size: the last sequence has all that is left.
  i64* wrong_length = kind(errors, 1);
  const i64 labels = checked(lengths[n], 0, room + 1, wrong_length);
  const bool left = longest == 0 && n == batch - 1 && labels >= 0 && labels < room;
  if (left) checked(total, 0, start + labels + 1, wrong_length);
  const i64 count = checked(steps[n], 0, times + 1, kind(errors, 2));
  return {start, labels < 0 || count < 0 || left ? -1 : labels, count};
}

// What a block keeps of its sequence, one after another.
//   gates (pairs + 1): 0 where a label may follow the one before it at once, else -infinity
//   rows (2, 2 (pairs + 1)): the blanks of two rows of states, one of no way, the labels, another
//   numbers, links (pairs): the labels, -1 where they are none; see `link`
//   ahead (steps, pairs + 1): the log probabilities of labels, of a label too many, of the blank
struct Work {
  acc_t *gates, *rows, *ahead;
  int *numbers, *links;
  i64 pairs, steps;

  __device__ acc_t* row(i64 t) const { return rows + (t & 1) * 2 * (pairs + 1); }
};

DEVICE i64 size_of_work(i64 pairs, i64 ahead) { return 7 * pairs + 5 + ahead * (pairs + 1); }

// In `shared` where there is room, or else in `spare` memory, and then with one step ahead. The spare
// memory has SPARE numbers for each label of the batch and as many for each sequence.
constexpr i64 SPARE = 14;
DEVICE Work work_of(acc_t* shared, i64 room, acc_t* spare, Sequence sequence, i64 n) {
  const i64 pairs = sequence.pairs();
#if !defined(GRADLITE_NATIVE)  // where one place does for all
  spare += sequence.place(n, SPARE);
#endif
  const i64 fit = (room - size_of_work(pairs, 0)) / (pairs + 1);
  const bool fits = room >= size_of_work(pairs, 1);
  acc_t* at = fits ? shared : spare;
  Work work;
  work.gates = at;
  work.rows = work.gates + pairs + 1;
  work.ahead = work.rows + 4 * (pairs + 1);
  work.steps = fits ? math::smaller(AHEAD, fit) : 1;
  work.numbers = reinterpret_cast<int*>(work.ahead + work.steps * (pairs + 1));
  work.links = work.numbers + pairs;
  work.pairs = pairs;
  return work;
}

// The first of two rows has the way of nothing: in its blank `start`.
template <class Team>
DEVICE void begin(Team team, Work work, const i64* targets, i64* errors, i64 classes, i64 start,
                  i64 first) {
  const i64 pairs = work.pairs, labels = pairs - 1;
  for (i64 i = team.rank(); i <= pairs; i += team.size()) {
    const bool follows = i > 0 && i < labels && targets[i] != targets[i - 1];
    work.gates[i] = follows ? acc_t(0) : -infinity();
  }
  for (i64 i = team.rank(); i < pairs; i += team.size()) {
    work.numbers[i] = i < labels ? int(checked(targets[i], 0, classes, errors)) : -1;
  }
  for (i64 i = team.rank(); i < 2 * (pairs + 1); i += team.size()) {
    work.row(first)[i] = i == start ? acc_t(0) : -infinity();
    work.row(first + 1)[i] = -infinity();
  }
  team.sync();
}

// body(j, i) for j < rows and i < columns.
template <class Team, class Body>
DEVICE void for_each_cell(Team team, i64 rows, i64 columns, Body body) {
#if defined(GRADLITE_NATIVE)
  for (i64 j = 0; j < rows; j++) {
    for (i64 i = 0; i < columns; i++) body(j, i);
  }
#else
  const u32 n = u32(rows * columns), width = u32(columns);
#pragma unroll 4
  for (u32 k = u32(team.rank()); k < n; k += u32(team.size())) {
    const u32 j = k / width;
    body(i64(j), i64(k - j * width));
  }
#endif
}

// Reads the log probabilities of steps from `first` on, `by` apart.
template <class Team>
DEVICE void look_ahead(Team team, Work work, const scalar_t* __restrict__ lp, i64 first, i64 by,
                       i64 count, i64 lp_time, i64 blank) {
  const i64 pairs = work.pairs;
  acc_t* __restrict__ ahead = work.ahead;
  const int* numbers = work.numbers;
  for_each_cell(team, count, pairs + 1, [=](i64 j, i64 i) {
    const scalar_t* now = lp + (first + j * by) * lp_time;
    acc_t value = -infinity();
    if (i == pairs) {
      value = widen(now[blank]);
    } else if (i < pairs - 1) {
      value = numbers[i] < 0 ? infinity() - infinity() : widen(now[numbers[i]]);
    }
    ahead[j * (pairs + 1) + i] = value;
  });
  team.sync();
}

// One step, which is the j-th of those read ahead, from a row to the next one and to a row of alpha.
template <class Team>
DEVICE void step_forwards(Team team, Work work, const acc_t* __restrict__ row,
                          acc_t* __restrict__ next, i64 j, acc_t* __restrict__ alpha) {
  const i64 pairs = work.pairs;
  const acc_t* __restrict__ gates = work.gates;
  const acc_t* __restrict__ values = work.ahead + j * (pairs + 1);
  const acc_t at_blank = values[pairs];
  INDEPENDENT
  for (i64 i = team.rank(); i < pairs; i += team.size()) {
    const acc_t blank = row[i], before = row[pairs + i], label = row[pairs + 1 + i];
    const acc_t at_label = either(label, blank, before + gates[i]) + values[i];
    next[i] = alpha[i] = either(blank, before) + at_blank;
    next[pairs + 1 + i] = alpha[pairs + i] = at_label;
  }
}

KERNEL_BLOCKS(ctc_loss_forward, 2)
(const scalar_t* __restrict__ lp, const i64* __restrict__ targets, const i64* __restrict__ steps,
 const i64* __restrict__ lengths, acc_t* alpha, acc_t* __restrict__ kept,
 acc_t* __restrict__ losses, acc_t* spare, i64* errors, i64 times, i64 batch, i64 classes,
 i64 longest, i64 total, i64 blank, i64 room, i64 lp_time, i64 lp_batch, i64 mean,
 i64 zero_infinity) {
#if defined(GRADLITE_NATIVE)
  acc_t* shared = nullptr;
#else
  DYNAMIC_SHARED(acc_t, shared);
#endif
  for_each_block(batch, [&](auto team, i64 n) {
    const Sequence sequence =
        sequence_of(team, n, steps, lengths, errors, times, batch, longest, total);
    acc_t loss = infinity() - infinity();
    if (sequence.labels >= 0) {
      const i64 pairs = sequence.pairs();
      const Work work = work_of(shared, room, spare, sequence, n);
      begin(team, work, targets + sequence.start, errors, classes, 0, 0);
      const scalar_t* mine = lp + n * lp_batch;
      acc_t* now = alpha + sequence.place(n, 2 * times);
      for (i64 t = 0; t < sequence.steps; t += work.steps) {
        const i64 count = math::smaller(work.steps, sequence.steps - t);
        look_ahead(team, work, mine, t, 1, count, lp_time, blank);
        for (i64 j = 0; j < count; j++, now += 2 * pairs) {
          step_forwards(team, work, work.row(t + j), work.row(t + j + 1), j, now);
          team.sync();
        }
      }
      const acc_t* last = work.row(sequence.steps);
      loss = -either(last[pairs - 1], last[2 * pairs - 1]);
    }
    if (team.rank() == 0) {
      kept[n] = loss;
      if (zero_infinity && loss == infinity()) loss = 0;
      losses[n] = mean && sequence.labels > 0 ? loss / acc_t(sequence.labels) : loss;
    }
    team.sync();  // before the next sequence takes the place of this one
  });
}

#if !defined(GRADLITE_NATIVE)
// A warp of a block of (n, 1) threads.
struct Lanes {
  __device__ i64 rank() const { return threadIdx.x & 31u; }
  __device__ i64 size() const { return 32; }
  __device__ void sync() const { __syncwarp(); }
  __device__ acc_t sum(acc_t value) const { return reduce_warp<Sum>(value); }
};
#endif

// body(team, t) for all times, by the warps of the block.
template <class Body>
DEVICE void for_each_time(i64 times, Body body) {
#if defined(GRADLITE_NATIVE)
  for (i64 t = 0; t < times; t++) body(SerialTeam(), t);
#else
  for (i64 t = threadIdx.x >> 5; t < times; t += blockDim.x >> 5) body(Lanes(), t);
#endif
}

// Equal labels are linked: a link is twice the place of the next label that is the same, counted
// from 1, and 1 more for the first of them. The blank among labels is no first.
template <class Team>
DEVICE void link(Team team, Work work, i64 blank) {
#if !defined(GRADLITE_NATIVE)  // where labels add to the gradient one after another
  const i64 labels = work.pairs - 1;
  const int* numbers = work.numbers;
  for (i64 i = team.rank(); i < labels; i += team.size()) {
    const int number = numbers[i];
    i64 before = i - 1, next = i + 1;
    while (before >= 0 && numbers[before] != number) before--;
    while (next < labels && numbers[next] != number) next++;
    const int first = before < 0 && number != blank;
    work.links[i] = 2 * int(next < labels ? next + 1 : 0) + first;
  }
#endif
}

// Takes what the states of a time share of the probability from the gradient of that time, which is
// `slope` times the probabilities so far. By `share` they are known up to a common factor.
template <class Team>
DEVICE void take_shares(Team team, Work work, const scalar_t* lp, const acc_t* share,
                        scalar_t* out, acc_t slope, i64 blank) {
  const i64 pairs = work.pairs, labels = pairs - 1;
  const acc_t* of_labels = share + pairs;
  acc_t blanks = 0, all = 0;
  for (i64 i = team.rank(); i < pairs; i += team.size()) {
    blanks += share[i];
    all += of_labels[i];
  }
  blanks = team.sum(blanks);
  all = blanks + team.sum(all);
#if defined(GRADLITE_NATIVE)
  const acc_t factor = slope / all;
  for (i64 i = 0; i < labels; i++) {
    scalar_t& place = out[work.numbers[i]];
    place = narrow(widen(place) - factor * of_labels[i]);
  }
  out[blank] = narrow(widen(out[blank]) - factor * blanks);
#else
  const auto write = [=](i64 c, acc_t part) {
    out[c] = narrow(slope * (math::exp(widen(lp[c])) - part / all));
  };
  acc_t more = 0;
  team.sync();  // the others have written their probabilities
  for (i64 i = team.rank(); i < labels; i += team.size()) {
    if (work.numbers[i] == blank) more += of_labels[i];
    if (work.links[i] & 1) {
      acc_t part = 0;
      for (i64 k = i; k >= 0; k = (work.links[k] >> 1) - 1) part += of_labels[k];
      write(work.numbers[i], part);
    }
  }
  more = team.sum(more);
  if (team.rank() == 0) write(blank, blanks + more);
#endif
}

// One step towards the beginning. A row has beta with the log probabilities of its own time.
template <class Team>
DEVICE void step_backwards(Team team, Work work, const acc_t* __restrict__ row,
                           acc_t* __restrict__ next, i64 j, const acc_t* __restrict__ alpha,
                           acc_t* __restrict__ share, acc_t loss) {
  const i64 pairs = work.pairs;
  const acc_t* __restrict__ gates = work.gates;
  const acc_t* __restrict__ values = work.ahead + j * (pairs + 1);
  const acc_t at_blank = values[pairs];
  INDEPENDENT
  for (i64 i = team.rank(); i < pairs; i += team.size()) {
    const acc_t label = row[pairs + 1 + i], follows = row[pairs + 2 + i] + gates[i + 1];
    const acc_t of_blank = either(row[i], label), of_label = either(label, row[i + 1], follows);
    share[i] = math::exp(alpha[i] + of_blank + loss);
    share[pairs + i] = math::exp(alpha[pairs + i] + of_label + loss);
    next[i] = of_blank + at_blank;
    next[pairs + 1 + i] = of_label + values[i];
  }
}

// The gradient of log probabilities that are those of a softmax: exp(lp) stands for the derivative
// of their sum. `shares` is of the size of alpha, and becomes what each state has of the whole.
KERNEL_BLOCKS(ctc_loss_backward, 2)
(const scalar_t* __restrict__ grad, const scalar_t* __restrict__ lp,
 const i64* __restrict__ targets, const i64* __restrict__ steps, const i64* __restrict__ lengths,
 const acc_t* __restrict__ alpha, const acc_t* __restrict__ kept, acc_t* shares,
 scalar_t* __restrict__ out, acc_t* spare, i64* errors, i64 times, i64 batch, i64 classes,
 i64 longest, i64 total, i64 blank, i64 room, i64 lp_time, i64 lp_batch, i64 out_time,
 i64 out_batch, i64 each, i64 mean, i64 zero_infinity, double scale) {
#if defined(GRADLITE_NATIVE)
  acc_t* shared = nullptr;
#else
  DYNAMIC_SHARED(acc_t, shared);
#endif
  for_each_block(batch, [&](auto team, i64 n) {
    const Sequence sequence =
        sequence_of(team, n, steps, lengths, errors, times, batch, longest, total);
    const acc_t loss = kept[n];
    // Where there is no way to the target, the gradient is NaN, unless it shall be 0.
    const bool possible = loss < infinity(), none = zero_infinity && loss == infinity();
    const i64 walked = possible ? sequence.steps : 0, nowhere = none ? 0 : sequence.steps;
    const i64 pairs = possible ? sequence.pairs() : 1;
    acc_t slope = widen(grad[each ? n : 0]) * acc_t(scale);
    if (mean && pairs > 1) slope /= acc_t(pairs - 1);
    Work work = {};
    const scalar_t* mine = lp + n * lp_batch;
    acc_t* my_shares = shares + sequence.place(n, 2 * times);
    if (possible) {
      work = work_of(shared, room, spare, sequence, n);
      begin(team, work, targets + sequence.start, errors, classes, pairs - 1, walked);
      link(team, work, blank);
      const acc_t* my_alpha = alpha + sequence.place(n, 2 * times);
      for (i64 t = walked - 1; t >= 0; t -= work.steps) {
        const i64 count = math::smaller(work.steps, t + 1);
        look_ahead(team, work, mine, t, -1, count, lp_time, blank);
        for (i64 j = 0; j < count; j++) {
          const i64 place = (t - j) * 2 * pairs;
          step_backwards(team, work, work.row(t - j + 1), work.row(t - j), j, my_alpha + place,
                         my_shares + place, loss);
          team.sync();
        }
      }
    }
    for_each_time(times, [&](auto lanes, i64 t) {
      scalar_t* to = out + t * out_time + n * out_batch;
      const scalar_t* now = mine + t * lp_time;
      if (t >= walked) {
        const acc_t value = t < nowhere ? infinity() - infinity() : acc_t(0);
        for (i64 c = lanes.rank(); c < classes; c += lanes.size()) to[c] = narrow(value);
      } else {
        for (i64 c = lanes.rank(); c < classes; c += lanes.size()) {
          to[c] = narrow(slope * math::exp(widen(now[c])));
        }
        take_shares(lanes, work, now, my_shares + t * 2 * pairs, to, slope, blank);
      }
    });
    team.sync();  // before the next sequence takes the place of this one
  });
}
