"""The planted bugs of elementwise kernels of several operands."""

from __future__ import annotations

from tests.kernels.mutation import Mutant

BLEND = [
    Mutant("both branches have the gradient", "blend.cu",
           "if (dy) dy[i] = holds ? narrow(0) : slope;", "if (dy) dy[i] = slope;",
           ("test_blend::test_values",)),
    Mutant("bounds have no gradient", "blend.cu",
           "(v >= acc_t(low)) & (v <= acc_t(high))", "(v > acc_t(low)) & (v < acc_t(high))",
           ("test_blend::test_extreme",)),
    Mutant("a NaN is clamped", "blend.cu",
           "v = v < acc_t(low) ? acc_t(low) : v;", "v = v >= acc_t(low) ? v : acc_t(low);",
           ("test_blend::test_extreme",)),
    Mutant("a factor is forgotten", "blend.cu",
           "results[1] = slope * (first * acc_t(value));", "results[1] = slope * first;",
           ("test_blend::test_values",)),
    Mutant("the divisor is not squared", "blend.cu",
           "acc_t(value) / (second * second)", "acc_t(value) / second",
           ("test_blend::test_values",)),
    Mutant("always from the start", "blend.cu",
           "math::abs(weight) < acc_t(0.5) ?", "weight == weight ?",
           ("test_blend::test_extreme",)),
    Mutant("the number is the weight of all", "blend.cu",
           "if (weight) {", "if (false) {", ("test_blend::test_values",)),
    Mutant("0 has the slope of what is above", "blend.cu",
           "results[1] = value <= 0 ? drawn", "results[1] = value < 0 ? drawn",
           ("test_blend::test_drawn_slopes",)),
    Mutant("slopes begin at the upper bound", "blend.cu",
           "widen(narrow(draw * acc_t(upper - lower) + acc_t(lower)))",
           "(draw * acc_t(upper - lower) + acc_t(upper))", ("test_blend::test_drawn_slopes",)),
    Mutant("the diagonal of the first matrix goes on", "blend.cu",
           "i64(row % u32(rows)) + diagonal;", "i64(row) + diagonal;",
           ("test_blend::test_triangles",)),
    Mutant("the diagonal is left out", "blend.cu",
           "y[i] = (lower ? c <= edge : c >= edge)", "y[i] = (lower ? c < edge : c > edge)",
           ("test_blend::test_triangles",)),
]  # fmt: skip
