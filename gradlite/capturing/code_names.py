"""The names that a function's code mentions: what it may read of its globals and of objects."""

from __future__ import annotations

import dis
import functools
import importlib.util
import os
import re
import sys
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

Found = TypeVar("Found")
HERE = os.path.dirname(os.path.dirname(__file__)) + os.sep
PYTHON = os.path.dirname(os.__file__) + os.sep
INSTALLED = tuple(os.sep + folder + os.sep for folder in ("site-packages", "dist-packages"))
LIBRARIES = frozenset(sys.stdlib_module_names) | {
    "gradlite", "numpy", "ml_dtypes", "cupy", "cupyx", "nvmath",
}  # fmt: skip
HEAP = 1 << 9  # the flag of classes made by a class statement
# What looks attributes up by a value.
BY_NAME = frozenset(
    (
        "getattr", "setattr", "delattr", "hasattr", "vars", "__dict__", "__getattribute__",
        "getattr_static", "attrgetter", "methodcaller",
    )
)  # fmt: skip
LISTING = frozenset(("vars", "dir", "getmembers", "__dict__"))  # what gives them all
LOOK_UPS = ("getattr", "setattr", "hasattr", "__getattribute__")
# What looks variables up by a value.
EVALUATED = frozenset(("globals", "locals", "eval", "exec"))
# Methods that Python calls by itself, but not for what a step computes.
OF_OBJECTS = frozenset(
    (
        "__init__", "__new__", "__post_init__", "__init_subclass__", "__set_name__", "__del__",
        "__repr__", "__str__", "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__",
        "__class_getitem__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__",
    )
)  # fmt: skip

# Methods of layers that no step calls for what it computes.
ASIDE = frozenset(
    ("extra_repr", "reset_parameters", "_save_to_state_dict", "_load_from_state_dict")
)
COMPARING = frozenset(("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__hash__"))

# The methods behind operators, by the signs, and by the names of instructions that have none.
_SIGNS = {
    "+": "add", "-": "sub", "*": "mul", "/": "truediv", "//": "floordiv", "%": "mod",
    "**": "pow", "@": "matmul", "<<": "lshift", ">>": "rshift", "&": "and", "|": "or", "^": "xor",
}  # fmt: skip
OPERATORS = {
    **{sign: (f"__{name}__", f"__r{name}__") for sign, name in _SIGNS.items()},
    **{f"{sign}=": (f"__i{n}__", f"__{n}__", f"__r{n}__") for sign, n in _SIGNS.items()},
    **dict.fromkeys(("<", ">"), ("__lt__", "__gt__")),
    **dict.fromkeys(("<=", ">="), ("__le__", "__ge__")),
    **dict.fromkeys(("==", "!="), ("__eq__", "__ne__")),
    **dict.fromkeys(("BINARY_SUBSCR", "BINARY_SLICE", "[]"), ("__getitem__",)),
    **dict.fromkeys(("STORE_SUBSCR", "STORE_SLICE"), ("__setitem__",)),
    "UNARY_NEGATIVE": ("__neg__",), "UNARY_INVERT": ("__invert__",), "UNARY_POSITIVE": ("__pos__",),
    "GET_ITER": ("__iter__",), "CONTAINS_OP": ("__contains__",),
    # Functions of Python's that call methods of other names.
    "sum": ("__add__", "__radd__"), "max": ("__gt__", "__lt__"), "min": ("__lt__", "__gt__"),
    "sorted": ("__lt__",), "divmod": ("__floordiv__", "__mod__"),
}  # fmt: skip
OPERATORS_3_10 = {
    "ADD": "+", "SUBTRACT": "-", "MULTIPLY": "*", "TRUE_DIVIDE": "/", "FLOOR_DIVIDE": "//",
    "MODULO": "%", "POWER": "**", "MATRIX_MULTIPLY": "@", "LSHIFT": "<<", "RSHIFT": ">>",
    "AND": "&", "OR": "|", "XOR": "^",
}  # fmt: skip


def once(function: Callable[[types.CodeType], Found]) -> Callable[[types.CodeType], Found]:
    """Read each code once: recordings read that of everything that they reach."""
    known: weakref.WeakKeyDictionary[types.CodeType, Found] = weakref.WeakKeyDictionary()

    @functools.wraps(function)
    def read(code: types.CodeType) -> Found:
        try:
            return known[code]
        except KeyError:
            found = known[code] = function(code)
            return found

    return read


def once_each(
    function: Callable[[types.CodeType], Iterable[Found]],
) -> Callable[[types.CodeType], tuple[Found, ...]]:
    """The same for what yields."""
    return once(functools.wraps(function)(lambda code: tuple(dict.fromkeys(function(code)))))


def compares(name: str, method: Any) -> bool:
    """Whether a method compares objects, and somebody wrote it: what dataclasses make does not."""
    code = getattr(method, "__code__", None)
    return name in COMPARING and code is not None and code.co_filename != "<string>"


def is_library_code(code: types.CodeType) -> bool:
    """Whether code is gradlite's or that of a module that comes with Python."""
    file = code.co_filename
    if file.startswith(PYTHON):
        return not file.startswith(("site-packages", "dist-packages"), len(PYTHON))
    return file.startswith((HERE, "<frozen"))


def is_installed(code: types.CodeType) -> bool:
    """Whether code is of a package that somebody has installed, as Matplotlib."""
    return any(folder in code.co_filename for folder in INSTALLED)


def is_library(module: Any) -> bool:
    """Whether a module is of gradlite, of what it builds upon, or comes with Python.

    What a class or function says its module is need not be a name: `abc.ABCMeta` made by hand, or
    a class of C code, may have a descriptor there.
    """
    return isinstance(module, str) and module.partition(".")[0] in LIBRARIES


def is_library_class(cls: type) -> bool:
    """The same for a class; one that exec() has made may have no module."""
    made = cls.__module__ == "builtins" and cls.__flags__ & HEAP
    return not made and is_library(cls.__module__)


@once_each
def names(code: types.CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function, and in those defined inside of it.

    Where attributes are looked up by a value, the strings in the code count as well.
    """
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names(constant)
    yield from names_by_value(code)
    yield from names_evaluated(code)


@once_each
def operators(code: types.CodeType) -> Iterator[str]:
    """The methods of objects that a function's operators, and functions like ``abs``, call."""
    for name in code.co_names:
        yield f"__{name}__"
        yield from OPERATORS.get(name, ())
    for instruction in dis.get_instructions(code):
        kind, _, name = instruction.opname.partition("_")
        if instruction.opname in ("BINARY_OP", "COMPARE_OP"):
            yield from OPERATORS.get(instruction.argrepr.removeprefix("bool(").rstrip(")"), ())
        elif name in OPERATORS_3_10 and kind in ("BINARY", "INPLACE"):
            yield from OPERATORS[OPERATORS_3_10[name] + "=" * (kind == "INPLACE")]
        else:
            yield from OPERATORS.get(instruction.opname, ())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from operators(constant)


@once_each
def names_of_globals(code: types.CodeType) -> Iterator[str]:
    """Those among `names` that may be globals, and not the attributes of something alone."""
    if not EVALUATED.isdisjoint(code.co_names):
        yield from names(code)
        return
    for instruction in dis.get_instructions(code):
        if "GLOBAL" in instruction.opname or instruction.opname.endswith("_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_of_globals(constant)
    yield from names_by_value(code)


def names_evaluated(code: types.CodeType) -> Iterator[str]:
    """The words in the strings of a function that looks up variables by values."""
    if not EVALUATED.isdisjoint(code.co_names):
        for text in strings(code):
            yield from re.findall(r"\w+", text)


def strings(code: types.CodeType) -> Iterator[str]:
    """The strings in a function, and in those defined inside of it."""
    stack: list[Any] = list(code.co_consts)
    while stack:
        constant = stack.pop()
        if isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            stack.extend(constant)
        elif isinstance(constant, types.CodeType):
            stack.extend(constant.co_consts)


def imports(code: types.CodeType, variables: Mapping[str, Any]) -> Iterator[str]:
    """The names of modules that a function, or one inside of it, imports, with their parents."""
    for name in _imported(code):
        try:
            name = importlib.util.resolve_name(name, variables.get("__package__"))
        except ImportError:
            continue
        parts = name.split(".")
        for stop in range(1, len(parts) + 1):
            yield ".".join(parts[:stop])


@once_each
def _imported(code: types.CodeType) -> Iterator[str]:
    """The names of these as they are written, with a dot for each step up."""
    instructions = list(dis.get_instructions(code)) if code.co_names else []
    for place, instruction in enumerate(instructions):
        if instruction.opname == "IMPORT_NAME":
            level = instructions[place - 2].argval
            yield "." * (level if isinstance(level, int) else 0) + instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imported(constant)


def names_by_value(code: types.CodeType) -> Iterator[str]:
    """The strings in a function that looks up attributes by values."""
    if not BY_NAME.isdisjoint(code.co_names):
        yield from (c for c in code.co_consts if isinstance(c, str))


@once_each
def names_tried(code: types.CodeType) -> Iterator[str]:
    """The names of attributes that a function asks for by `getattr`: they need not be there."""
    for name in _looked_up(code):
        yield from strings(code) if name is None else (name,)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_tried(constant)


@once_each
def _looked_up(code: types.CodeType) -> Iterator[str | None]:
    """The strings that are given to `getattr` and the like; None for what is no string of code."""
    if BY_NAME.isdisjoint(code.co_names):
        return
    instructions = list(dis.get_instructions(code))
    for place, instruction in enumerate(instructions):
        if instruction.argval in LOOK_UPS:
            first = instruction.argval == "__getattribute__"
            yield _given(instructions[place + 1 :], 0 if first else 1)


@once
def reads_any(code: types.CodeType) -> bool:
    """Whether a function may read attributes whose names its code does not hold."""
    if not LISTING.isdisjoint(code.co_names):
        return True
    if None in _looked_up(code):
        return True
    if any(instruction.opname == "MATCH_CLASS" for instruction in dis.get_instructions(code)):
        return True
    return any(reads_any(c) for c in code.co_consts if isinstance(c, types.CodeType))


@once
def spares_owner(code: types.CodeType) -> bool:
    """Whether a method looks attributes up by values, but those of its first argument.

    As a trainer does that calls methods of its listeners by their names.
    """
    first = code.co_varnames[0]
    instructions = [i for i in dis.get_instructions(code) if i.opname != "PUSH_NULL"]
    for instruction, following in zip(instructions, instructions[1:]):
        if instruction.opname == "MATCH_CLASS":
            return False
        if instruction.argval not in BY_NAME:
            continue
        looked_up = following.argval
        if isinstance(looked_up, tuple):
            looked_up = looked_up[0]
        if "GLOBAL" not in instruction.opname or looked_up == first:
            return False
    return not any(reads_any(c) for c in code.co_consts if isinstance(c, types.CodeType))


@once
def looks_which(code: types.CodeType) -> bool:
    """Whether a function, or one inside of it, may ask which object another one is."""
    instructions = list(dis.get_instructions(code))
    for place, instruction in enumerate(instructions):
        before = [i.opname == "LOAD_CONST" for i in instructions[max(place - 2, 0) : place]]
        if instruction.opname == "IS_OP" and not before[-1]:
            return True
        if instruction.opname == "CONTAINS_OP" and not before[0]:
            return True
    return any(looks_which(c) for c in code.co_consts if isinstance(c, types.CodeType))


@once
def catches(code: types.CodeType) -> bool:
    """Whether a function, or one inside of it, has something to do where an error is raised."""
    if sys.version_info >= (3, 11):
        handles = bool(code.co_exceptiontable)
    else:
        handles = any(i.opname.startswith("SETUP_") for i in dis.get_instructions(code))
    return handles or any(catches(c) for c in code.co_consts if isinstance(c, types.CodeType))


def catches_at(code: types.CodeType, offset: int) -> bool:
    """Whether a function goes on with an ``except`` clause where an instruction raises an error.

    Of blocks of ``with`` and ``finally`` it says no: they mostly hand the error on.
    """
    names = {i.offset: i.opname for i in dis.get_instructions(code)}
    if sys.version_info < (3, 11):
        blocks = [
            (i.offset, i.argval) for i in dis.get_instructions(code) if i.opname == "SETUP_FINALLY"
        ]
        first = ("DUP_TOP", "POP_TOP")
        return any(start < offset < stop and names[stop] in first for start, stop in blocks)
    bytecode: Any = dis.Bytecode(code)
    entries = bytecode.exception_entries
    passed: set[int] = set()
    while offset not in passed:  # from the innermost handler to those around it
        passed.add(offset)
        for entry in entries:
            if entry.start <= offset < entry.end:
                offset = entry.target
                break
        handler = [names[place] for place in sorted(names) if place >= offset]
        if handler[0] == "PUSH_EXC_INFO" and offset not in passed:
            body = handler[: handler.index("RERAISE")] if "RERAISE" in handler else handler
            if handler[1] == "POP_TOP" or "CHECK_EXC_MATCH" in body:
                return True
    return False


def _given(instructions: list[dis.Instruction], place: int) -> str | None:
    """The string of the code itself that a call is given as the argument at some place.

    Args:
        instructions: what comes after the function was put on the stack.
        place: of the argument.
    """
    depth, found = 0, None
    for instruction in instructions:
        name = instruction.opname
        if name.startswith(("CALL", "PRECALL")):
            break
        if name in ("EXTENDED_ARG", "KW_NAMES", "PUSH_NULL"):
            continue
        if "JUMP" in name:
            return None  # it depends
        starts = name == "LOAD_CONST" and depth == place
        of_it = name in ("LOAD_ATTR", "LOAD_METHOD") and depth == place + 1
        depth += dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
        if starts:
            found = instruction.argval if type(instruction.argval) is str else None
        elif depth <= place + 1 or of_it:
            found = None  # another one is put together of it
    return found


@once
def names_of_owner(code: types.CodeType) -> frozenset[str] | None:
    """The attributes that a method takes from its first argument.

    None when it does anything else with that argument, so that any attribute may be read.
    """
    if not code.co_argcount:
        return None
    first, found = code.co_varnames[0], set()
    instructions = list(dis.get_instructions(code))
    for instruction, following in zip(instructions, [*instructions[1:], None]):
        value = instruction.argval
        if value != first and not (isinstance(value, tuple) and first in value):
            continue
        if following is None or following.opname not in ("LOAD_ATTR", "LOAD_METHOD"):
            return None
        found.add(following.argval)
    return frozenset(found)


@once
def names_of_others(code: types.CodeType) -> frozenset[str]:
    """The names in a method that are not taken from its first argument alone."""
    first, found, previous = code.co_varnames[0], set[str](), None
    for instruction in dis.get_instructions(code):
        if isinstance(instruction.argval, str) and instruction.argval in code.co_names:
            if previous is None or previous.argval != first:
                found.add(instruction.argval)
        previous = instruction
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(names(constant))
    found.update(names_by_value(code), names_evaluated(code))
    return frozenset(found)


def names_in_methods(kind: type, base: type) -> set[str]:
    """The names in the methods of a class, but for those of a class that it derives from."""
    found: set[str] = set()
    for cls in kind.__mro__[: kind.__mro__.index(base)]:
        for name, method in cls.__dict__.items():
            code = getattr(method, "__code__", None)
            if code is not None and not name.startswith("__") and name not in ASIDE:
                found.update(names(code))
    return found
