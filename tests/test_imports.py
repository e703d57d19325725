"""What importing gradlite brings along, and which module may import which."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "gradlite"
OPTIONAL = ("cupy", "matplotlib", "ml_dtypes", "safetensors", "scipy", "sklearn", "torch", "tqdm")

# The floors from the ground up: a module imports from its own floor and those below it.
FLOORS = (
    (
        "gradlite.changes",
        "gradlite.determinism",
        "gradlite.dtypes",
        "gradlite.autocast_mode",
        "gradlite.grad_mode",
        "gradlite.graph",
        "gradlite.graph_errors",
        "gradlite.grad_copies",
        "gradlite.graph_hooks",
        "gradlite.graph_passes",
        "gradlite.memory_format",
        "gradlite.backends",
        "gradlite._methods",
        "gradlite.compiler",
        "gradlite.distributed",
        "gradlite.jit",
        "gradlite.multiprocessing",
        "gradlite.onnx",
        "gradlite.version",
    ),
    ("gradlite.device", "gradlite.printing", "gradlite.description"),
    ("gradlite.nested",),
    ("gradlite.tensor", "gradlite.copying", "gradlite.random"),
    ("gradlite.ops", "gradlite.return_types"),
    (
        "gradlite.autograd",
        "gradlite.functions",
        "gradlite.linalg",
        "gradlite.special",
        "gradlite.tensor_types",
    ),
    ("gradlite.nn", "gradlite.testing", "gradlite.low_rank"),
    ("gradlite.optim", "gradlite.io", "gradlite.utils", "gradlite.transforms"),
    (
        "gradlite.amp",
        "gradlite.cuda",
        "gradlite.datasets",
        "gradlite.distributions",
        "gradlite.func",
    ),
    ("gradlite.accelerator", "gradlite.cuda.amp"),
    ("gradlite.capturing",),
    ("gradlite.profiler",),
    ("gradlite.autograd.profiler",),
    ("gradlite",),
    ("gradlite.cli",),
    ("gradlite.__main__",),
)


def module_name(path: Path) -> str:
    parts = ["gradlite", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in PACKAGE.rglob("*.py")}


def imports(tree: ast.AST, everywhere: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements that run with the module, or all of them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        elif everywhere or not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from imports(node, everywhere)


def imported(name: str, everywhere: bool = False) -> set[str]:
    """The modules of gradlite that a module imports."""
    found = set()
    for node in imports(ast.parse(MODULES[name].read_text(encoding="utf-8")), everywhere):
        if isinstance(node, ast.Import):
            found |= {a.name for a in node.names if a.name in MODULES}
        elif node.module in MODULES:
            inner = {f"{node.module}.{a.name}" for a in node.names}
            submodules = inner & set(MODULES)
            found |= submodules
            if len(submodules) < len(node.names):
                found.add(node.module)
    return found - {name}


def floor(name: str) -> int:
    """The floor of a module: that of the longest prefix that is named."""
    matches = [
        (len(part), level)
        for level, parts in enumerate(FLOORS)
        for part in parts
        if name == part or (name.startswith(part + ".") and part != "gradlite")
    ]
    assert matches, f"{name} belongs to no floor"
    return max(matches)[1]


@pytest.mark.parametrize("name", sorted(MODULES))
def test_imports_point_down(name: str) -> None:
    upward = {other for other in imported(name) if floor(other) > floor(name)}
    assert not upward, f"{name} imports from above: {', '.join(sorted(upward))}"


def test_no_cycles() -> None:
    packages = {n for n, path in MODULES.items() if path.name == "__init__.py"}
    edges = {}
    for name in MODULES:
        # A module finds its siblings through its package, which is no dependency on it.
        edges[name] = {o for o in imported(name) if not (o in packages and name.startswith(o))}
    graphlib.TopologicalSorter(edges).prepare()  # raises CycleError


def test_graph_stands_alone() -> None:
    parts = {
        "gradlite.grad_mode",
        "gradlite.graph_errors",
        "gradlite.graph_hooks",
        "gradlite.graph_passes",
    }
    assert imported("gradlite.graph", everywhere=True) == parts
    parts.add("gradlite.changes")
    for name in {"gradlite.graph", *parts}:
        assert imported(name, everywhere=True) <= parts
        found = set()
        for node in imports(ast.parse(MODULES[name].read_text(encoding="utf-8")), everywhere=True):
            modules = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or "."]
            found |= {module.partition(".")[0] for module in modules}
        assert found <= sys.stdlib_module_names | {"gradlite"}


def fresh(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_brings_numpy_alone() -> None:
    code = """
import sys, site
before = set(sys.modules)
import gradlite
print(*{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    roots = set(fresh(code).split())
    foreign = roots - set(sys.stdlib_module_names) - {"numpy", "gradlite", "cython_runtime"}
    assert not {n for n in foreign if not n.startswith(("_", "__editable__"))}
    assert not roots & set(OPTIONAL)


def test_import_leaves_the_slow_parts_for_later() -> None:
    """Modules that take long to import and that most programs do not need."""
    slow = (
        "multiprocessing", "asyncio", "argparse", "http", "unittest", "concurrent.futures",
        "gradlite.distributions",
    )  # fmt: skip
    code = "import numpy, sys; before = set(sys.modules); import gradlite\n"
    code += f"print(*[n for n in {slow} if n in sys.modules and n not in before])"
    assert fresh(code).split() == []


def test_all_modules_import_alone() -> None:
    names = [n for n in sorted(MODULES) if not n.endswith("__main__")]
    code = f"import importlib\nfor n in {names}: importlib.import_module(n)\nimport sys\n"
    code += f"print(*[n for n in {OPTIONAL} if n in sys.modules])"
    assert fresh(code).split() == []
