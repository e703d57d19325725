"""Planted bugs in the bags of rows of a table (see mutation.py)."""

from __future__ import annotations

from tests.kernels.mutation import Mutant, swapped

WRONG = ("test_embedding_bag::test_what_does_not_fit",)

EMBEDDING_BAGS = [
    Mutant("the last bag ends with its start", "embedding_bag.cu",
           "return n + 1 == bags ? size : math::smaller(starts[n + 1], size);",
           "return math::smaller(starts[n + 1], size);"),
    Mutant("a bag takes the first index of the next", "embedding_bag.cu",
           "return (n + 1) * length;", "return (n + 1) * length + 1;"),
    Mutant("the padding counts", "embedding_bag.cu",
           "return at == padding ? -1 : at;", "return at;"),
    Mutant("indices are not checked", "embedding_bag.cu",
           "const i64 at = checked(index[k], 0, rows, errors);", "const i64 at = index[k];", WRONG),
    Mutant("a bag may start before the one before it", "embedding_bag.cu",
           "const i64 lowest = n == 0 ? 0 : starts[n - 1];", "const i64 lowest = 0;", WRONG),
    Mutant("the first bag may start anywhere", "embedding_bag.cu",
           "lowest, n == 0 ? 1 : size + 1,", "lowest, size + 1,",
           WRONG),
    Mutant("the end of the last bag is not looked at", "embedding_bag.cu",
           "if (ends && n + 1 == bags)", "if (false)", WRONG),
    Mutant("a mean is divided by what one thread counted", "embedding_bag.cu",
           "count = math::larger(team.sum(count), i64(1));",
           "count = math::larger(count, i64(1));"),
    Mutant("all threads write the count", "embedding_bag.cu",
           "if (team.rank() == 0) counts[n] = count;", "counts[n] = count;"),
    Mutant("the last of equal maxima is chosen", "embedding_bag.cu",
           "place < 0 || value > total", "place < 0 || value >= total",
           ("test_embedding_bag::test_the_first",)),
    Mutant("maxima are at least 0", "embedding_bag.cu",
           "place < 0 || value > total", "value > total"),
    Mutant("factors are forgotten", "embedding_bag.cu",
           "total += factors ? value * widen(factors[k]) : value;", "total += value;"),
    Mutant("the gradient forgets the factors", "embedding_bag.cu",
           "factors ? widen(factors[k]) : acc_t(1);", "acc_t(1);"),
    Mutant("the gradient of a mean is that of a sum", "embedding_bag.cu",
           "mode == MEAN ? acc_t(1) / acc_t(counts[n]) : acc_t(1);", "acc_t(1);"),
    Mutant("every row of a bag has the gradient of its maximum", "embedding_bag.cu",
           "!chosen || k == place;", "true;"),
    Mutant("the gradient of a factor is of one thread", "embedding_bag.cu",
           "total = team.sum(total); if", "if"),
    Mutant("rows and columns change places", "embedding_bag_spread",
           launch=lambda launch: swapped(launch, 10, 11)),
]  # fmt: skip
