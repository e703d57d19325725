"""What gradlite's text asks of CuPy and nvmath-python, against the installed ones: every attribute
that is reached through them exists, and every call has arguments that it takes. No GPU is needed.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import gradlite

cupy = pytest.importorskip("cupy", reason="compares with CuPy, which is not installed here")
PACKAGE = Path(gradlite.__file__).parent
LT = "nvmath.bindings.cublasLt"
# By the name that ends an expression: what it stands for on a GPU.
HANDLES = {"cupy": "cupy", "_cupy": "cupy", "xp": "cupy", "cupyx": "cupyx", "lt": LT, "_lt": LT}
UFUNC_WORDS = {"out", "dtype", "casting"}
# Modules whose ``xp``, ``lt`` are another's: they compile for the CPU, or run on NumPy alone.
ELSEWHERE = {"capturing/native", "backends/compiled"}


class Of(NamedTuple):
    """An object of a class, as opposed to the class."""

    cls: Any


def _returns() -> dict[Any, Any]:
    cuda = cupy.cuda
    arrays = """arange array asarray ascontiguousarray broadcast_to concatenate empty empty_like
        full full_like ones zeros zeros_like""".split()
    return {
        cuda.get_current_stream: Of(cuda.Stream),
        cuda.Stream.begin_capture: None,
        cuda.Stream.end_capture: Of(cuda.Graph),
        cuda.Stream.record: Of(cuda.Event),
        cupy.get_default_memory_pool: Of(cuda.MemoryPool),
        cupy.RawModule.get_function: Of(cupy.RawKernel),
        **dict.fromkeys((getattr(cupy, name) for name in arrays), Of(cupy.ndarray)),
    }


def _signature(function: Any) -> inspect.Signature | None:
    """The signature, which Cython's functions have in their documentation alone."""
    try:
        found = inspect.signature(function)
        kinds = {p.kind for p in found.parameters.values()}
        if not kinds >= {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}:
            return found
    except ValueError:
        pass
    first = (function.__doc__ or "").partition("\n")[0].split("->")[0].strip()
    declared = re.fullmatch(r"[\w.]+\((.*)\)", first)
    if declared is None:
        return None
    words = []
    for parameter in re.split(r",\s*(?![^()\[\]]*[)\]])", declared[1].replace("\\", "")):
        name, equals, default = parameter.partition("=")
        words.append(name.split()[-1] + ("=None" if equals else "") if name.split() else "")
    owner = getattr(function, "__self__", None)
    if words[0] == "self" and not (owner is None or isinstance(owner, ModuleType)):
        del words[0]  # a method of an object, and not of its class
    try:
        text = f"lambda {', '.join(filter(None, words))}: 0"
        return inspect.signature(eval(text))
    except SyntaxError:
        return None


class Reader(ast.NodeVisitor):
    """Reads one module, and lists in ``faults`` what CuPy and nvmath do not have or take."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.faults: list[str] = []
        self.attributes = self.calls = 0
        self.names: list[dict[str, Any]] = [{}]  # of each function around, what they stand for
        self.fields: dict[str, Any] = {}  # of self
        self.returns = _returns()
        self.known: dict[int, Any] = {}

    def fault(self, node: ast.AST, text: str) -> None:
        self.faults.append(f"{self.name}:{getattr(node, 'lineno', 0)}: {text}")

    # ---------------------------------------------------------------- what stands for what
    def meaning(self, node: ast.AST) -> Any:
        """The object that an expression stands for on a GPU; None when that is not known."""
        if id(node) not in self.known:
            self.known[id(node)] = self._meaning(node)
        return self.known[id(node)]

    def _meaning(self, node: ast.AST) -> Any:
        if isinstance(node, ast.Name):
            for scope in reversed(self.names):
                if node.id in scope:
                    return scope[node.id]
            return self._handle(node.id)
        if isinstance(node, ast.Call):
            return self._result(self.meaning(node.func))
        if not isinstance(node, ast.Attribute):
            return None
        whole = self.meaning(node.value)
        if whole is None:
            field = isinstance(node.value, ast.Name) and node.value.id == "self"
            return (self.fields.get(node.attr) if field else None) or self._handle(node.attr)
        self.attributes += 1
        owner = whole.cls if isinstance(whole, Of) else whole
        try:
            found = getattr(owner, node.attr)
        except AttributeError:
            # What only an object has, its class tells in its documentation.
            if not re.search(rf"~\w+\.{node.attr}\b", getattr(owner, "__doc__", "") or ""):
                self.fault(node, f"{getattr(owner, '__name__', owner)} has no {node.attr}")
            return None
        return None if isinstance(whole, Of) and not callable(found) else found

    def _handle(self, name: str) -> Any:
        module = HANDLES.get(name)
        try:
            return importlib.import_module(module) if module else None
        except ImportError:
            return None

    def _result(self, function: Any) -> Any:
        if isinstance(function, type):
            return Of(function)
        if isinstance(function, cupy.ufunc):
            return Of(cupy.ndarray) if function.nout == 1 else None
        try:
            return self.returns.get(function)
        except TypeError:  # not hashable
            return None

    # ------------------------------------------------------------------------------ visits
    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.names.append({})
        self.generic_visit(node)
        self.names.pop()

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            pairs = [(target, node.value)]
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = list(zip(target.elts, node.value.elts))
            for place, value in pairs:
                self._assign(place, self.meaning(value))

    def visit_With(self, node: ast.With) -> None:
        for item in node.items:
            if isinstance(item.optional_vars, ast.Name):
                self._assign(item.optional_vars, self.meaning(item.context_expr))
        self.generic_visit(node)

    def _assign(self, place: ast.AST, meaning: Any) -> None:
        if isinstance(place, ast.Name) and place.id not in HANDLES:
            self.names[-1][place.id] = meaning
        elif isinstance(place, ast.Attribute) and isinstance(place.value, ast.Name):
            if place.value.id == "self" and meaning is not None:
                self.fields[place.attr] = meaning

    def visit_If(self, node: ast.If) -> None:
        """What runs where ``xp is np`` (or is not) is the one library's alone."""
        test = ast.unparse(node.test)
        if test == "xp is np":
            for statement in node.orelse:
                self.visit(statement)
        elif test == "xp is not np" and node.orelse:
            for statement in node.body:
                self.visit(statement)
        else:
            self.generic_visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        test = ast.unparse(node.test)
        if test.startswith("xp is np"):
            self.visit(node.orelse)
        else:
            self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.meaning(node)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = self.meaning(node.func)
        if function is None or isinstance(function, Of):
            return
        if not callable(function):
            self.fault(node, f"{ast.unparse(node.func)} cannot be called")
            return
        positional = [a for a in node.args if not isinstance(a, ast.Starred)]
        words = [k.arg for k in node.keywords if k.arg is not None]
        partly = len(positional) < len(node.args) or len(words) < len(node.keywords)
        self.calls += 1
        if isinstance(function, cupy.ufunc):
            unknown = sorted(set(words) - UFUNC_WORDS)
            if unknown or (
                not partly and not function.nin <= len(positional) <= function.nin + function.nout
            ):
                self.fault(node, f"the ufunc {ast.unparse(node)} takes no such arguments")
            return
        signature = _signature(function)
        if signature is None:
            return
        method = isinstance(node.func, ast.Attribute) and isinstance(
            self.meaning(node.func.value), Of
        )
        bind = signature.bind_partial if partly else signature.bind
        try:
            bind(*[None] * (len(positional) + method), **dict.fromkeys(words))
        except TypeError as error:
            self.fault(node, f"{ast.unparse(node)}: {error}")


def read(text: str, name: str = "text") -> Reader:
    reader = Reader(name)
    reader.visit(ast.parse(text))
    return reader


def sources() -> list[Path]:
    return [
        path
        for path in sorted(PACKAGE.rglob("*.py"))
        if not any(place in path.as_posix() for place in ELSEWHERE)
    ]


def test_the_package_asks_for_nothing_that_is_not_there() -> None:
    readers = [read(path.read_text("utf-8"), str(path.relative_to(PACKAGE))) for path in sources()]
    assert not [fault for reader in readers for fault in reader.faults]
    assert sum(reader.attributes for reader in readers) > 1000
    assert sum(reader.calls for reader in readers) > 700


@pytest.mark.parametrize(
    "text, message",
    [
        ("xp.nanquantile(x, 0.5)", "has no nanquantile"),
        ("self.xp.cuda.runtime.getDeviceName(0)", "has no getDeviceName"),
        ("runtime = self._cupy.cuda.runtime\nruntime.getDeviceName(0)", "has no getDeviceName"),
        ("xp.cuda.runtime.getDevice(0)", "too many positional"),
        ("xp.add(x, y, where=mask)", "takes no such arguments"),
        ("xp.add(x)", "takes no such arguments"),
        ("xp.exp(x, order='C')", "takes no such arguments"),
        ("xp.add.resolve_dtypes(kinds)", "has no resolve_dtypes"),
        ("xp.cuda.Stream(nonblocking=True)", "unexpected keyword argument 'nonblocking'"),
        ("event = xp.cuda.Event()\nevent.elapsed(other)", "has no elapsed"),
        ("self.start = cupy.cuda.Event()\nself.start.record(a, b)", "too many positional"),
        ("with xp.cuda.Stream() as s:\n    s.begin()", "has no begin"),
        ("xp.cuda.get_current_stream().end_capture().update()", "has no update"),
        ("xp.empty(3).setflags(write=False)", "has no setflags"),
        ("import cupyx\ncupyx.zeros_page_locked(3)", "has no zeros_page_locked"),
        ("xp.take(x, i, mode='clip')", "unexpected keyword argument 'mode'"),
        ("if xp is np:\n    pass\nelse:\n    xp.nanquantile(x, 0.5)", "has no nanquantile"),
    ],
)
def test_what_is_not_there_is_found(text: str, message: str) -> None:
    (fault,) = read(text).faults
    assert message in fault


@pytest.mark.parametrize(
    "text",
    [
        "xp.add(x, y, out=x)",
        "xp.exp(x, x)",
        "xp.cuda.Stream(non_blocking=True, priority=0).record(xp.cuda.Event())",
        "if xp is np:\n    xp.nanquantile(x, 0.5)",
        "xp.add(*operands, **options)",
        "f = self.xp.concatenate\nf(arrays, axis=1)",
    ],
)
def test_what_is_there_is_not_reported(text: str) -> None:
    assert read(text).faults == []


def test_calls_of_cublaslt_are_checked() -> None:
    pytest.importorskip("nvmath", reason="asks nvmath-python, which is not installed here")
    assert read("self.lt.matmul_desc_create(68, 0)").faults == []
    (fault,) = read("self.lt.matmul_desc_create(68)").faults
    assert "missing a required argument" in fault
    (fault,) = read("attribute = lt.MatmulDescAttribute\nattribute.TRANSPOSE_A").faults
    assert "has no TRANSPOSE_A" in fault
