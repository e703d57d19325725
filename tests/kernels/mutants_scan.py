"""The planted bugs of what runs along a dimension."""

from __future__ import annotations

from tests.kernels.mutation import Mutant

SCANS = [
    Mutant("no barrier before the next steps", "scans.cuh",
           "    __syncthreads();  // before the next steps are written there\n", "",
           ("test_scan::test_no_race",)),
    Mutant("what lies before a part does not count", "scans.cuh",
           "p < part; p++", "p < part - 1; p++", ("test_scan::test_no_race",)),
    Mutant("a step beyond the last", "scans.cuh",
           "if (mine && step < last) total", "if (mine && step <= last) total",
           ("test_scan::test_no_race",)),
    Mutant("the product of all before, and of this one", "scan.cu",
           "so_far.total * widen(y[at - inner])", "so_far.total * widen(y[at])",
           ("test_scan::test_values_and_gradients[cpu_threads-cumprod",)),
    Mutant("a sum that goes on over the first zero", "scan.cu",
           "places[at + inner] == FIRST_ZERO ? 1 : 0", "places[at] == FIRST_ZERO ? 1 : 0",
           ("test_scan::test_gradients_of_products",)),
    Mutant("the sum ends before the second zero", "scan.cu",
           "counts = so_far.zeros - is_zero <= 1", "counts = so_far.zeros <= 1",
           ("test_scan::test_gradients_of_products",)),
    Mutant("the factor of another step", "scan.cu",
           "backwards ? at + inner : at;", "at;",
           ("test_scan::test_values_and_gradients[cpu_threads-recurrence from the end",)),
    Mutant("nothing times what overflows", "scan.cu",
           "value == 0 ? next.value : next.factor", "next.factor",
           ("test_scan::test_factors",)),
    Mutant("infinities of one size are apart", "scan.cu",
           "least == most ? running_t(1) : ", "", ("test_scan::test_extreme",)),
    Mutant("the first of ties stays", "scan.cu",
           "|| next.value >= value;", "|| next.value > value;",
           ("test_scan::test_values_and_gradients[cpu_threads-cummax",)),
    Mutant("a NaN does not take over", "scan.cu",
           "at < 0 || next.value != next.value ||", "at < 0 ||",
           ("test_scan::test_extremes",)),
    Mutant("the negative of the least number", "scan.cu",
           "sign < 0 ? ~value : value", "value * sign", ("test_scan::test_whole",)),
]  # fmt: skip
