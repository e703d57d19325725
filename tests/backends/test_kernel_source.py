"""The text of the kernels: declarations, includes, and where the folder is."""

from __future__ import annotations

import re

import pytest

from gradlite.backends import kernel_source
from gradlite.backends.kernel_source import Parameter, declarations, expand

TEXT = """
// KERNEL(commented)(i64 n) {}
KERNEL(scale)
(const scalar_t* __restrict__ x, scalar_t *y, i64 n, double factor) {
}
KERNEL_OF(wide, 512)(const i64* index, const void* const* table) { }
KERNEL_BLOCKS(crowded, 4)(i64 n) {}
"""


def test_declarations_are_read_with_their_parameters() -> None:
    scale, wide, crowded = declarations("a.cu", TEXT)
    assert scale.name == "scale" and scale.file == "a.cu" and scale.threads == 256
    assert scale.parameters == (
        Parameter("x", "pointer", "scalar_t"),
        Parameter("y", "pointer", "scalar_t", True),
        Parameter("n", "int", ""),
        Parameter("factor", "float", ""),
    )
    assert wide.name == "wide" and wide.threads == 512
    assert crowded.name == "crowded" and crowded.threads == 256
    assert wide.parameters[1] == Parameter("table", "pointer", "void*")


@pytest.mark.parametrize("declared", ["int n", "float x", "i64", "scalar_t x", "i64& n"])
def test_other_parameters_are_refused(declared: str) -> None:
    with pytest.raises(TypeError, match=f"kernel k: parameter '{re.escape(declared)}' is none of"):
        declarations("a.cu", f"KERNEL(k)({declared}) {{}}")


def test_every_kernel_of_the_folder_is_found() -> None:
    index = kernel_source.index()
    written = {
        name
        for file in {kernel.file for kernel in index.values()}
        for name in re.findall(
            r"^KERNEL(?:_OF|_BLOCKS)?\((\w+)", kernel_source.text_of(file), re.MULTILINE
        )
    }
    assert written == set(index) and "softmax_forward" in index
    assert index["softmax_forward"].file == "softmax.cu"
    files = {p.name for p in kernel_source.folder().iterdir() if p.name.endswith(".cu")}
    assert files == {kernel.file for kernel in index.values()}
    with pytest.raises(LookupError, match="no kernel is called 'softmax_sideways'"):
        kernel_source.kernel("softmax_sideways")


def test_includes_are_expanded_once_and_say_where_they_come_from() -> None:
    text = 'int a;\n#include "team.cuh"\n#include "common.cuh"\nint b;\n'
    expanded = expand("mine.cu", text)
    assert '#include "' not in expanded and "#pragma once" not in expanded
    assert expanded.count("typedef long long i64;") == 1
    lines = expanded.splitlines()
    assert lines[0] == '#line 1 "mine.cu"'
    assert lines[lines.index("int b;") - 1] == '#line 4 "mine.cu"'
    start = lines.index('#line 1 "common.cuh"')
    place = lines.index("typedef long long i64;")
    common = kernel_source.text_of("common.cuh").splitlines()
    assert common[place - start - 1] == "typedef long long i64;"
