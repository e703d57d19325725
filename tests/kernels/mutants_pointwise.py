"""The planted bugs of elementwise functions of one and of two arrays."""

from __future__ import annotations

from tests.kernels.mutation import Mutant

VALUES, EXTREME = ("test_pointwise::test_values",), ("test_pointwise::test_extreme",)
BROADCAST = ("test_pointwise::test_operands",)

POINTWISE = [
    Mutant("packs beyond the end", "pointwise.cu",
           "for (i64 p = thread_index(); p < n / LANES;",
           "for (i64 p = thread_index(); p <= n / LANES;", ("test_pointwise::test_no_race",)),
    Mutant("no tail behind the packs", "pointwise.cu",
           "for (i64 i = done + thread_index(); i < n;",
           "for (i64 i = done + thread_index(); i < done;", VALUES),
    Mutant("what is written is taken for aligned", "pointwise.cu",
           "packed = packed && aligned(out[k]);", "", ("test_pointwise::test_outputs",)),
    Mutant("what is broadcast is read in packs", "pointwise.cu",
           "bool packed = (in.whole(n) && ...) && aligned", "bool packed = aligned",
           ("test_pointwise::test_gradients_that_a_sum",)),
    Mutant("a gradient that is not wanted is written", "pointwise.cu",
           "if (dx) dx[i] = narrow(slopes.by_x);", "dx[i] = narrow(slopes.by_x);",
           ("test_pointwise::test_gradients_that_are_not",)),
    Mutant("rows do not begin again", "pointwise.cu", "i / inner % size; }", "i / inner; }",
           BROADCAST),
    Mutant("columns are read as rows", "pointwise.cu", "if (inner == 1 && i < size)",
           "if (i < size)", BROADCAST),
    Mutant("the number is not the second", "pointwise.cu", "y ? right.at(i) : acc_t(number);",
           "y ? right.at(i) : acc_t(0);", ("test_pointwise::test_numbers",)),
    Mutant("a NaN has a sign", "pointwise.cu", "return acc_t(x > 0) - acc_t(x < 0);",
           "return x > 0 ? acc_t(1) : acc_t(-1);", EXTREME),
    Mutant("the remainder is that of C", "pointwise.cu", "? rest + y : rest;", "? rest : rest;",
           VALUES),
    Mutant("the series goes too far", "pointwise.cu", "square > acc_t(0.25)",
           "square > acc_t(25)", VALUES),
    Mutant("logit is none beyond its bounds", "pointwise.cu",
           "(x < a) | (x > b) ? acc_t(0) :", "(x < a) | (x > b) ? infinity() - infinity() :",
           EXTREME),
    Mutant("the entropy of 0", "pointwise.cu", "x == 0 ? acc_t(0) : -x * math::log(x);",
           "-x * math::log(x);", EXTREME),
    Mutant("infinity is finite", "pointwise.cu", "math::abs(x) < infinity() ? g : acc_t(0);",
           "x == x ? g : acc_t(0);", EXTREME),
    Mutant("a power has the slope of the next", "pointwise.cu", "a * math::pow(x, a - 1)",
           "a * math::pow(x, a)", ("test_pointwise::test_powers",)),
    Mutant("factors are not exchanged", "pointwise.cu", "to[0] = g * w; to[1] = g * v;",
           "to[0] = g * v; to[1] = g * w;", VALUES),
    Mutant("an angle at the origin", "pointwise.cu", "square == 0 ? acc_t(0) : g / square;",
           "g / square;", EXTREME),
    Mutant("remainders are all rounded down", "pointwise.cu",
           "a == 0 ? math::floor(x / y) : truncated(x / y)", "math::floor(x / y)", VALUES),
    Mutant("a NaN is chosen", "pointwise.cu", "(a > 0 ? x >= y : x <= y) || y != y;",
           "(a > 0 ? x >= y : x <= y);", EXTREME),
    Mutant("the logarithm of 0 beside 0", "pointwise.cu",
           "x == 0 && y <= 0 ? acc_t(0) : g * math::log(y)", "g * math::log(y)", EXTREME),
]  # fmt: skip
