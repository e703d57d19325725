"""Recorded calls as statements and lines of C++; None for a call that has no translation."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite.backends import special
from gradlite.capturing.calls import CONSTANT, Call, Guard, Ref
from gradlite.capturing.native import (
    attention,
    batches,
    convolution,
    copies,
    lookups,
    pool,
    reductions,
)
from gradlite.capturing.native.layout import images_of
from gradlite.capturing.native.loops import Place, Statement
from gradlite.capturing.native.types import (
    CTYPES,
    EXPRESSIONS,
    HALVES,
    literal,
    loop_dtypes,
    named,
)
from gradlite.capturing.one_call import CONVOLUTIONS, POOLINGS
from gradlite.capturing.sizes import OfOneSize
from gradlite.ops import attention_compiled, columns, conv_maxima, pooling

PLACES = (np.nonzero, np.ndarray.nonzero, np.where)  # of one argument
REDUCTIONS = {
    np.ndarray.sum: "sum", np.ndarray.mean: "mean", np.ndarray.max: "max", np.ndarray.min: "min",
    np.ndarray.prod: "prod", np.ndarray.any: "any", np.ndarray.all: "all", np.sum: "sum",
    np.mean: "mean", np.max: "max", np.min: "min", np.amax: "max", np.amin: "min",
    np.prod: "prod", np.any: "any", np.all: "all",
}  # fmt: skip
UFUNC_REDUCTIONS = {
    "add": "sum", "multiply": "prod", "maximum": "max", "minimum": "min",
    "logical_and": "all", "logical_or": "any",
}  # fmt: skip
ROUNDS = (np.round, np.around, np.ndarray.round)
RUNNING = {
    np.cumsum: "add", np.ndarray.cumsum: "add", np.cumprod: "multiply",
    np.ndarray.cumprod: "multiply",
}  # fmt: skip
COPIES = (np.ndarray.astype, np.ndarray.copy, np.array, np.ascontiguousarray, np.asarray, np.copy)
RESHAPED = (np.ndarray.reshape, np.ndarray.flatten, np.ndarray.ravel)
ATTENTION: dict[Any, Callable[..., Any]] = {
    attention_compiled.attend: attention.attend,
    attention_compiled.gradients: attention.gradients,
}
GUARD_FAILED = -1


class Translator:
    """Translates calls over the memory of one plan.

    Args:
        place: where a `Ref` lies in the generated code's memory.
        constant: where an array of the host's lies.
        last_mention: the number of the last call that mentions a buffer, or `ALWAYS`.
    """

    def __init__(
        self,
        place: Callable[[Ref], Place],
        constant: Callable[[np.ndarray[Any, Any]], Place],
        last_mention: Callable[[Ref], int],
    ) -> None:
        self.place, self.constant, self.last_mention = place, constant, last_mention
        self.room = 0  # bytes of scratch memory that the products want

    def __call__(self, position: int, call: Any) -> list[Statement] | list[str] | None:
        if isinstance(call, Guard):
            p = self.place(call.ref)
            value = f"*({CTYPES[named(p.dtype)]}*)(P[{p.base}] + {p.offset}) != 0"
            wanted = "true" if call.value else "false"
            return [f"if (({value}) != {wanted}) return {GUARD_FAILED};"]
        if not isinstance(call, Call):
            return None
        if any(named(r.dtype) not in CTYPES for r in call.outs):
            return None
        return self._call(position, call)

    # --------------------------------------------------------------------- statements
    def _operand(self, value: Any, shape: tuple[int, ...]) -> Any:
        """A place broadcast to a shape, or a number."""
        if isinstance(value, np.ndarray) and value.size != 1:
            return self.constant(value).spread(shape)
        if not isinstance(value, Ref):
            return value
        if named(value.dtype) not in CTYPES:
            raise NotImplementedError
        if value.buffer.kind == CONSTANT and not value.shape:
            return (
                np.asarray(value.buffer.root)
                .reshape(-1)
                .view(np.uint8)[value.offset : value.offset + value.dtype.itemsize]
                .copy()
                .view(value.dtype)[0]
            )
        return self.place(value).spread(shape)

    def _elementwise(
        self,
        position: int,
        out: Ref,
        operands: Sequence[Any],
        kinds: Sequence[np.dtype[Any]],
        result: np.dtype[Any],
        expression: Callable[[list[str]], str],
        note: str,
    ) -> list[Statement] | None:
        if 0 in out.shape:
            return []
        try:
            given = tuple(self._operand(o, out.shape) for o in operands)
        except NotImplementedError:
            return None
        place, last = self.place(out), self.last_mention(out)
        statement = Statement(place, given, tuple(kinds), result, expression, position, last, note)
        for operand in given:  # an operand that overlaps the result element for element only
            if isinstance(operand, Place) and operand.overlaps(place):
                if not operand.coincides(place):
                    return None
        return [statement]

    def _identity(self, position: int, out: Ref, value: Any, note: str) -> Any:
        if isinstance(value, Ref) and named(value.dtype) not in CTYPES:
            return None
        if not isinstance(value, (Ref, np.ndarray)) or named(value.dtype) not in CTYPES:
            value = np.asarray(value, out.dtype)
        kind = value.dtype
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        return self._elementwise(position, out, [value], [kind], kind, lambda v: v[0], note)

    # -------------------------------------------------------------------------- calls
    def _call(self, position: int, call: Call) -> Any:
        function, args = call.function, call.args
        if any(isinstance(a, np.ndarray) and a.size == 0 for a in args):
            return None
        if isinstance(function, np.ufunc):
            if function is np.matmul:
                return self._product(call, True)
            return self._ufunc(position, function, call)
        owner = getattr(function, "__self__", None)
        name = getattr(function, "__name__", "")
        if isinstance(owner, np.ufunc):
            if name == "reduce" and owner.__name__ in UFUNC_REDUCTIONS:
                return self._reduction(UFUNC_REDUCTIONS[owner.__name__], call, 0)
            if name == "at" and owner is np.add and len(args) == 3 and not call.kwargs:
                return self._rows("add", args[0], args[1], args[2], position)
            if name == "accumulate":
                return self._running(owner.__name__, call)
            return None
        if function in (np.dot, np.ndarray.dot):
            return self._product(call, False)
        if function is np.einsum and _of_rows(args[0]) and not call.kwargs:
            return reductions.row_products(*map(self.place, (*args[1:], call.outs[0])))
        if function in REDUCTIONS:
            return self._reduction(REDUCTIONS[function], call, None)
        if function in (np.ndarray.argmax, np.ndarray.argmin, np.argmax, np.argmin):
            return self._arg_extreme(name, call)
        if function is np.copyto and not call.kwargs.keys() - {"casting"}:
            return self._identity(position, args[0], args[1], "copyto")
        if function in (np.clip, np.ndarray.clip) and len(args) == 3 and not call.kwargs:
            return self._ufunc(position, None, call)
        if function in ROUNDS and args[1:] in ((), (0,)) and not call.kwargs:
            return self._ufunc(position, np.rint, Call(np.rint, args[:1], {}, call.outs))
        if function is np.ndarray.fill:
            return self._identity(position, args[0], args[1], "fill")
        if function is operator.setitem:
            return self._setitem(position, *args)
        if function in COPIES and call.outs and isinstance(args[0], Ref):
            return self._identity(position, call.outs[0], args[0], name)
        if function in (np.array, np.asarray) and call.outs and isinstance(args[0], list):
            pairs = copies.stacked(Call(np.stack, args[:1], {}, call.outs))
            return self._copied(position, pairs, name)
        if function in RESHAPED and call.outs:
            return self._reshaped(position, call)
        if function is np.where and len(args) == 3 and not call.kwargs:
            return self._where(position, call)
        if function in (np.ndarray.take, np.take):
            return self._take(position, call)
        if function in (np.take_along_axis, np.put_along_axis):
            return self._along(position, call)
        if isinstance(function, OfOneSize) and function.function in PLACES:
            return self._places(function, call)
        if function in RUNNING:
            return self._running(RUNNING[function], call)
        if function in copies.PARTS:
            return self._copied(position, copies.PARTS[function](call), name)
        if function in CONVOLUTIONS:
            return self._convolution(function, call)
        if function is conv_maxima.channel_sums:
            axes = (args[1], (0, *range(2, len(args[1].shape))))
            return self._reduction("sum", Call(np.ndarray.sum, axes, {}, call.outs), None)
        if function in POOLINGS:
            return self._pooling(function, call, position)
        if function in ATTENTION:
            places = [self.place(a) if isinstance(a, Ref) else a for a in args[1:]]
            return ATTENTION[function](*places)
        if function is special.normal_cdf32:
            kind = call.outs[0].dtype
            return self._elementwise(
                position, call.outs[0], call.args[1:], [kind], kind,
                lambda v: f"f_normal_cdf({v[0]})", "normal_cdf",
            )  # fmt: skip
        if function is operator.getitem and len(call.outs) == 1:
            view = copies.view(*args)
            if view is not None:
                return self._identity(position, call.outs[0], view, "get")
            return self._rows("take", args[0], args[1], call.outs[0], position)
        return None

    def _ufunc(self, position: int, ufunc: np.ufunc | None, call: Call) -> Any:
        if call.kwargs.keys() - {"casting"} or len(call.outs) != 1:
            return None
        out = call.outs[0]
        if ufunc is None:  # the function clip, which reads everything in the result's dtype
            kinds: Any = (out.dtype,) * 4
        else:
            kinds = loop_dtypes(ufunc, list(call.args), out.dtype)
        if kinds is None:
            return None
        name = "clip" if ufunc is None else ufunc.__name__
        template = EXPRESSIONS[name]
        T = "double" if kinds[0].name == "float64" else "float"  # noqa: N806

        def expression(values: list[str]) -> str:
            return template.format(*values, T=T)

        return self._elementwise(position, out, call.args, kinds[:-1], kinds[-1], expression, name)

    def _where(self, position: int, call: Call) -> Any:
        condition, a, b = call.args
        out = call.outs[0]
        if not isinstance(condition, Ref) or condition.dtype.kind != "b":
            return None
        kinds = [np.dtype(bool), out.dtype, out.dtype]
        return self._elementwise(
            position, out, [condition, a, b], kinds, out.dtype,
            lambda v: f"{v[0]} ? {v[1]} : {v[2]}", "where",
        )  # fmt: skip

    def _reshaped(self, position: int, call: Call) -> Any:
        source, out = call.args[0], call.outs[0]
        if "order" in call.kwargs or "F" in call.args or not isinstance(source, Ref):
            return None
        strides: list[int] = []
        step = out.dtype.itemsize
        for n in reversed(source.shape):
            strides.insert(0, step)
            step *= n
        rows = Ref(out.buffer, out.offset, source.shape, tuple(strides), out.dtype)
        expected = np.empty(out.shape, out.dtype).strides
        if any(n != 1 and s != e for n, s, e in zip(out.shape, out.strides, expected)):
            return None
        return self._identity(position, rows, source, "reshape")

    def _setitem(self, position: int, target: Ref, key: Any, value: Any) -> Any:
        if isinstance(key, (Ref, list)) or _by_indices(key):
            return self._rows("set", target, key, value, position)
        view = copies.view(target, key)
        return None if view is None else self._identity(position, view, value, "set")

    def _rows(self, kind: str, x: Any, key: Any, values: Any, position: int) -> Any:
        """What arrays of indices, whole dimensions before and behind them, mean."""
        keys = list(key) if isinstance(key, tuple) else [key]
        lead = 0
        while keys and keys[0].__class__ is slice and keys[0] == slice(None):
            del keys[0]
            lead += 1
        while keys and (keys[-1] is Ellipsis or keys[-1] == slice(None)) and len(keys) > 1:
            del keys[-1]
        if not isinstance(x, Ref) or not isinstance(values, Ref) or 0 in values.shape or not keys:
            return None
        indices = []
        for own in keys:
            if isinstance(own, list) and all(i.__class__ is int for i in own):
                indices.append(self.constant(np.array(own, np.int64)))
            elif isinstance(own, Ref):
                indices.append(self.place(own))
            else:
                return None
        target, given = self.place(x), self.place(values)
        if kind == "add" and target.dtype == given.dtype == np.complex64:
            target, given = _as_floats(target), _as_floats(given)  # added in pairs
        if any(named(p.dtype) not in CTYPES for p in (target, given)):
            return None
        return lookups.rows(kind, target, indices, lead, given, position + 1)

    def _along(self, position: int, call: Call) -> Any:
        kind = "take" if call.function is np.take_along_axis else "set"
        x, index, *more = call.args
        axis = call.kwargs.get("axis", more[-1] if len(more) == (kind == "set") + 1 else None)
        values = call.outs[0] if kind == "take" else more[0] if more else None
        if not isinstance(x, Ref) or not isinstance(index, Ref) or not isinstance(values, Ref):
            return None
        if axis.__class__ is not int:
            return None
        if call.kwargs.keys() - {"axis"} or any(named(r.dtype) not in CTYPES for r in (x, values)):
            return None
        places = self.place(x), self.place(index), axis % len(x.shape), self.place(values)
        return lookups.along(kind, *places, position + 1)

    def _places(self, function: OfOneSize, call: Call) -> Any:
        (x, *more), (fits, *places) = call.args, call.outs
        if more or call.kwargs or not isinstance(x, Ref) or not x.shape:
            return None
        if named(x.dtype) not in CTYPES or named(x.dtype) in HALVES:
            return None
        if any(named(p.dtype) != "int64" for p in places):
            return None
        count = function.shapes[0][0]
        return lookups.nonzero(
            self.place(x), self.place(fits), list(map(self.place, places)), count
        )

    def _running(self, kind: str, call: Call) -> Any:
        x, *more = call.args
        axis = more[0] if more else call.kwargs.get("axis", 0)
        dtype = call.kwargs.get("dtype")
        if kind not in lookups.RUNNING or len(more) > 1 or call.kwargs.keys() - {"axis", "dtype"}:
            return None
        if dtype is not None and np.dtype(dtype) != call.outs[0].dtype:
            return None
        if not isinstance(x, Ref) or axis.__class__ is not int or named(x.dtype) not in CTYPES:
            return None
        if not x.shape:
            return None
        place = self.place(x)
        return lookups.running(kind, place, axis % len(x.shape), self.place(call.outs[0]))

    def _take(self, position: int, call: Call) -> Any:
        x, index, *more = call.args
        axis = more[0] if more else call.kwargs.get("axis")
        if call.kwargs.keys() - {"axis"} or len(more) > 1 or not isinstance(index, Ref):
            return None
        if axis is None:
            if len(x.shape) != 1:
                expected = np.empty(x.shape, x.dtype).strides
                if x.strides != expected:
                    return None
                size = math.prod(x.shape)
                x = Ref(x.buffer, x.offset, (size,), (x.dtype.itemsize,), x.dtype)
            axis = 0
        elif axis.__class__ is not int or not isinstance(x, Ref):
            return None
        key = (*(slice(None),) * (axis % len(x.shape)), index)
        return self._rows("take", x, key, call.outs[0], position)

    def _reduction(self, kind: str, call: Call, default: Any) -> Any:
        x, *more = call.args
        if call.kwargs.keys() - {"axis", "dtype", "keepdims"} or len(call.outs) != 1:
            return None
        axis = more[0] if more else call.kwargs.get("axis", default)
        dtype = more[1] if len(more) > 1 else call.kwargs.get("dtype")
        out = call.outs[0]
        if not isinstance(x, Ref) or named(x.dtype) not in CTYPES:
            return None
        if dtype is not None and np.dtype(dtype) != x.dtype:
            return None
        if kind in ("sum", "prod", "mean") and named(x.dtype) in HALVES:
            return None
        if kind == "mean" and x.dtype.kind != "f":
            return None
        axes = range(len(x.shape)) if axis is None else (axis,) if isinstance(axis, int) else axis
        axes = sorted({a % len(x.shape) for a in axes}) if x.shape else []
        return reductions.reduction(kind, self.place(x), axes, self.place(out))

    def _arg_extreme(self, name: str, call: Call) -> Any:
        x, *more = call.args
        axis = more[0] if more else call.kwargs.get("axis")
        if len(more) > 1 or call.kwargs.keys() - {"axis"}:
            return None
        if axis is None:
            if not isinstance(x, Ref) or x.strides != np.empty(x.shape, x.dtype).strides:
                return None
            size = math.prod(x.shape)
            x, axis = Ref(x.buffer, x.offset, (size,), (x.dtype.itemsize,), x.dtype), 0
        if not isinstance(axis, int):
            return None
        place = self.place(x)
        return reductions.arg_extreme(name, place, axis % len(x.shape), self.place(call.outs[0]))

    def _convolution(self, function: Any, call: Call) -> Any:
        """Their arguments begin with the array library."""
        if call.kwargs.keys() - {"bias"}:
            return None
        arguments: list[Any]
        _, *arguments = [self.place(a) if isinstance(a, Ref) else a for a in call.args]
        outs = [self.place(o) for o in call.outs]
        own: Any = batches if images_of(call) else convolution
        parts: list[Any]
        if function is columns.convolve:
            bias = call.kwargs.get("bias", arguments[3] if len(arguments) > 3 else None)
            bias = self.place(bias) if isinstance(bias, Ref) else bias
            parts = [own.convolve(*arguments[:3], bias, outs[0])]
        elif function is conv_maxima.convolve_and_pool:
            x, w, geometry, bias, relu = arguments
            y, winners = outs
            parts = [batches.convolve(x, w, geometry, bias, y, winners, relu)]
        elif function is columns.input_gradient:
            g, w, _, geometry = arguments
            parts = [own.input_gradient(g, w, geometry, outs[0])]
        elif function in (columns.weight_gradient, conv_maxima.spread_weight_gradient):
            x, g, _, geometry, *spread = arguments
            parts = [own.weight_gradient(x, g, geometry, outs[0], *spread)]
        else:
            x, g, w, geometry, *spread = arguments
            if len(outs) != 2:
                return None
            parts = [
                own.input_gradient(g, w, geometry, outs[0], *spread),
                own.weight_gradient(x, g, geometry, outs[1], *spread),
            ]
        lines: list[str] = []
        for part in parts:
            if part is None:
                return None
            lines += part[0]
            self.room = max(self.room, part[1])
        return lines

    def _pooling(self, function: Any, call: Call, position: int) -> Any:
        """Their arguments begin with the array library."""
        arguments: list[Any]
        _, *arguments = [self.place(a) if isinstance(a, Ref) else a for a in call.args]
        outs = [self.place(o) for o in call.outs]
        if call.kwargs or not all(isinstance(a, Place) for a in arguments[:1]):
            return None
        if function is pooling.maxima:
            x, kernel, geometry = arguments
            return pool.max_pool(x, kernel, geometry, *outs) if len(outs) == 2 else None
        g, winners, _, kernel, geometry = arguments
        if not isinstance(winners, Place):
            return None
        if kernel is None:
            return pool.scatter_at(g, winners, outs[0], position + 1)
        return pool.scatter(g, winners, kernel, geometry, outs[0])

    def _product(self, call: Call, matmul: bool) -> Any:
        if call.kwargs or len(call.outs) != 1 or not all(isinstance(a, Ref) for a in call.args):
            return None
        a, b = map(self.place, call.args)
        found = reductions.product(a, b, self.place(call.outs[0]), matmul)
        if found is None:
            return None
        self.room = max(self.room, found[1])
        return found[0]

    def _copied(self, position: int, pairs: Any, note: str) -> Any:
        """Statements that copy arrays to parts of the result."""
        statements: list[Statement] = []
        for part, source in pairs or ():
            one = self._identity(position, part, source, note)
            if one is None:
                return None
            statements += one
        return None if pairs is None else statements


def _of_rows(subscripts: Any) -> bool:
    """Whether an einsum is that of products of rows: "ij,ij->i" in any number of dimensions."""
    if not isinstance(subscripts, str):
        return False
    given, _, result = subscripts.partition("->")
    first, _, second = given.partition(",")
    return first == second == result + first[-1:] and len(set(first)) == len(first) > 1


def _by_indices(key: Any) -> bool:
    """Whether a tuple has arrays of indices in it."""
    return isinstance(key, tuple) and any(isinstance(k, (Ref, list)) for k in key)


def _as_floats(p: Place) -> Place:
    """Complex numbers as pairs of floats."""
    shape, strides = (*p.shape, 2), (*p.strides, 4)
    return Place(p.base, p.offset, shape, strides, np.dtype(np.float32))


__all__ = ["GUARD_FAILED", "Translator", "literal"]
