"""Planted bugs in the kernels that read, add and write at indices."""

from __future__ import annotations

from tests.kernels.mutation import Mutant, swapped

INDEX = [
    Mutant("a number below 0 is not counted from the end", "checks.cuh",
           "return index < 0 ? index + size : index;", "return index;", ("test_index",)),
    Mutant("the size itself is taken for an index", "checks.cuh",
           "index >= lowest && index < size", "index >= lowest && index <= size",
           ("test_index::test_an_index",)),
    Mutant("the error is noted without an atomic", "checks.cuh",
           "atomicExch(reinterpret_cast<u64*>(place), u64(value));", "*place = value;",
           ("test_index",)),
    Mutant("values are added without an atomic", "index.cu",
           "atomicAdd(place, value);", "*place += value;"),
    Mutant("every one of equal indices adds all of them", "index.cu",
           "if (first > 0 && sorted[first - 1] == sorted[first]) return;", ""),
    Mutant("the last index is not looked at", "index.cu",
           "while (last < count && sorted[last] == row) last++;",
           "while (last < count - 1 && sorted[last] == row) last++;"),
    Mutant("lanes beyond the last index read one", "index.cu",
           "if (start + lane < count) {", "if (start < count) {"),
    Mutant("the row after the one that was found", "index.cu",
           "(start + __ffs(found) - 1)", "(start + __ffs(found))"),
    Mutant("31 indices at a time, 32 looked at", "index.cu",
           "start < count; start += 32", "start < count; start += 31"),
    Mutant("the padding's row is added to", "index.cu",
           "mine == row && mine != skipped", "mine == row"),
    Mutant("warps of a block take the same row", "index.cu",
           "i64(blockIdx.x) * 8 + threadIdx.y; row < size", "i64(blockIdx.x) * 8; row < size"),
    Mutant("the first batch's indices for all", "index.cu",
           "const i64 from = index[o * index_outer + j * index_count + c * index_inner];\n"
           "    const i64 at = checked(from, lowest, size, errors); out[i]",
           "const i64 from = index[j * index_count + c * index_inner];\n"
           "    const i64 at = checked(from, lowest, size, errors); out[i]"),
]  # fmt: skip

PUT = [
    Mutant("the values of the first batch for all", "put.cu",
           "values + o * value_outer + c * value_inner;", "values + c * value_inner;"),
    Mutant("the last of those in turn is left out", "put.cu",
           "for (i64 j = first; j < first + in_turn; j++)",
           "for (i64 j = first; j < first + in_turn - (in_turn > 1); j++)"),
    Mutant("one behind the source's element", "put.cu",
           "checked(counts[i] - 1, 0", "checked(counts[i], 0"),
    Mutant("the gradient of a source that is too short", "put.cu",
           "mask[i] && counts[i] <= size", "mask[i]"),
    Mutant("a wrong index is counted all the same", "put.cu", "(at < 0 ? 0 : at);", "at;",
           ("test_put::test_nothing_is_written",)),
    Mutant("numbers of rows as if all dimensions were alike", "row_numbers",
           launch=lambda launch: swapped(launch, 5, 6)),
]  # fmt: skip

COMBINED = [
    Mutant("values are combined without an atomic", "scatter_reduce.cu",
           "if (!alone) {", "if (false) {"),
    Mutant("a 0 is a factor of the others' gradients", "scatter_reduce.cu",
           "if (how == PRODUCT && !marks) combine", "if (how == PRODUCT) combine"),
    Mutant("equal extremes do not share", "scatter_reduce.cu",
           "slope = g / acc_t(marks + kept) * acc_t(value == best);",
           "slope = g * acc_t(value == best);"),
    Mutant("whole numbers are added without an atomic", "scatter_reduce.cu",
           "atomicAdd(words, u64(value));", "*words += u64(value);"),
    Mutant("what is replaced keeps its gradient", "scatter_reduce.cu",
           "with_x || counts[i] < WRITTEN;", "true;"),
]  # fmt: skip

INDICES = [*INDEX, *PUT, *COMBINED]
