"""Planted bugs in recurrent layers over a whole sequence (see mutation.py)."""

from __future__ import annotations

from tests.kernels.mutation import Launch, Mutant, swapped

FILE = "rnn_sequence.cu"
RACES = ("test_rnn_sequence::test_no_race",)


def walking(
    bug: str, old: str, new: str, tests: tuple[str, ...] = ("test_rnn_sequence",)
) -> Mutant:
    """A bug in how all these kernels walk through time."""
    return Mutant(bug, "sequences.cuh", old, new, tests)


def _less_shared(launch: Launch) -> Launch:
    return launch._replace(shared=launch.shared - 4)


SEQUENCES = [
    walking("no barrier between a product and a step",
           "multiply(room, part, kept); __syncthreads(); } if (mine) {",
           "multiply(room, part, kept); } if (mine) {", RACES),
    walking("no barrier between a step and a product",
           "inputs = read(sizes.time(next), place); } __syncthreads();",
           "inputs = read(sizes.time(next), place); }", RACES),
    walking("no barrier between a product and the step before it in time",
           "if (!forward) { multiply(room, part, kept); __syncthreads(); }",
           "if (!forward) multiply(room, part, kept);", RACES),
    walking("no barrier behind the first states", "if (forward) __syncthreads();", "", RACES),
    walking("no barrier behind the zeros",
           "room.sources[i] = 0; __syncthreads();", "room.sources[i] = 0;", RACES),
    walking("the next rows do not wait",
           "__syncthreads();  // before the next rows take the place of these", "", RACES),
    walking("a barrier that only threads with a cell reach",
           "if (n + 1 < steps) inputs = read(sizes.time(next), place); } __syncthreads();",
           "if (n + 1 < steps) inputs = read(sizes.time(next), place); __syncthreads(); }", RACES),
    walking("rows beyond the batch",
           "const bool mine = r < R && row + r < sizes.batch;", "const bool mine = r < R;", RACES),
    walking("threads beyond the rows of a block",
           "const bool mine = r < R && row + r < sizes.batch;",
           "const bool mine = row + r < sizes.batch;"),
    walking("a row is left out by the next group",
           "row += int(gridDim.x) * R", "row += int(gridDim.x) * R + 1", RACES),
    walking("one step too many is read", "if (n + 1 < steps) inputs", "inputs", RACES),
    walking("the inputs of this step for the next",
           "inputs = read(sizes.time(next), place);", "inputs = read(sizes.time(now), place);"),
    walking("reverse runs forwards", "return reverse ? steps - 1 - n : n;", "return n;"),
    walking("before and after change places",
           "return reverse ? t + 1 : t;", "return reverse ? t : t + 1;"),
    walking("groups overlap", "end = math::smaller(begin + share, room.depth);",
           "end = math::smaller(begin + share + 1, room.depth);"),
    walking("the last group reads beyond the weights",
           "end = math::smaller(begin + share, room.depth);", "end = begin + share;", RACES),
    walking("unaligned weights are read in vectors",
           "room.width % LANES == 0 && aligned(w);", "room.width % LANES == 0;",
           ("test_rnn_sequence::test_weights_that_start",)),
    walking("odd rows are read in vectors",
           "packed = room.width % LANES == 0 && aligned(w);", "packed = aligned(w);", RACES),
    walking("more groups than threads",
           "math::smaller(room.groups, math::larger(threads / across, 1));", "room.groups;",
           ("test_rnn_sequence::test_weights_that_start",)),
    walking("columns beyond the block are left out",
           "step = room.groups > 1 ? room.width : threads * lanes;", "step = room.width;",
           ("test_rnn_sequence::test_values",)),
    walking("what is kept is multiplied twice",
           "kept.multiply(room.sources + k, sums[0]); k += KEPT;",
           "kept.multiply(room.sources + k, sums[0]);"),
    walking("what is kept belongs to other sources",
           "kept.multiply(room.sources + k, sums[0]);", "kept.multiply(room.sources, sums[0]);"),
    walking("the rest of the depth is left out",
           "for (; k < part.end; k++, row += width)", "for (; k < 0; k++, row += width)"),
    walking("one row's left side for all",
           "room.sources + r * room.stride + k);", "room.sources + k);"),
    walking("the first group's products alone",
           "for (int group = 0; group < room.groups; group++, part += step) {",
           "for (int group = 0; group < 1; group++, part += step) {"),
    walking("a bias that is not there is read",
           "return values ? values[at] : narrow(0);", "return values[at];",
           ("test_rnn_sequence::test_without_biases",)),
    Mutant("the wrong gate goes through tanh", FILE,
           "const acc_t g = math::tanh(sum(2)), o = math::sigmoid(sum(3));",
           "const acc_t g = math::sigmoid(sum(2)), o = math::tanh(sum(3));"),
    Mutant("a cell is rounded between steps", FILE,
           "room.state(p) = c; room.source(p) = widen(h);",
           "room.state(p) = widen(narrow(c)); room.source(p) = widen(h);",
           ("test_rnn_sequence::test_a_cell_is_not",)),
    Mutant("the cell's gradient is not handed on", FILE, "room.state(p) = d * f;", ""),
    Mutant("the gradient of the last state is left out", FILE,
           "first ? widen(given(grad_h, state(0, p))) : Total<1>(room, p).of[0]; "
           "const acc_t i = widen(in.i)",
           "first ? acc_t(0) : Total<1>(room, p).of[0]; const acc_t i = widen(in.i)"),
    Mutant("the bias inside the reset gate is left out", FILE,
           "product.of[2] + bias.other(2, p.j);", "product.of[2];"),
    walking("both biases of n inside the reset gate",
           "if (!apart || gate < gates - 1) sums[gate] += last;", "sums[gate] += last;"),
    Mutant("z and 1 - z change places", FILE,
           "narrow(n + z * (room.source(p) - n))", "narrow(n + (1 - z) * (room.source(p) - n))"),
    Mutant("what passed z is left out of the first state's gradient", FILE,
           "narrow(Total<1>(room, p).of[0] + room.state(p))", "narrow(Total<1>(room, p).of[0])"),
    Mutant("the hidden side gets the input's gradient of n", FILE,
           "give(2, dn, dn * r);", "give(2, dn, dn);"),
    Mutant("the gradient of tanh for relu", FILE,
           "relu ? acc_t(h > acc_t(0)) : acc_t(1) - h * h", "acc_t(1) - h * h"),
    Mutant("tanh for relu", FILE,
           "relu ? math::larger(acc_t(0), sum) : math::tanh(sum)", "math::tanh(sum)"),
    Mutant("steps and batch change places", "gru_sequence_forward",
           launch=lambda launch: swapped(launch, 8, 9)),
    Mutant("too little shared memory", "lstm_sequence_backward", launch=_less_shared),
]  # fmt: skip
