"""The base of the primitive ops, and what their rules see under create_graph.

A primitive op is a class: ``forward`` on raw arrays and ``backward``, its rule, written once
against operators and the namespace ``F``. The same rule runs on NumPy arrays, on CuPy arrays
and, under ``create_graph=True``, on Tensors, so second derivatives come by themselves.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import dtypes, graph, graph_hooks
from gradlite.graph import Node, OutputEdge
from gradlite.graph_hooks import Packed, unpack_saved
from gradlite.ops import natively
from gradlite.ops.dispatch import OUT, apply
from gradlite.ops.layout import as_operands_lie, row_major_result
from gradlite.ops.namespaces import NAMESPACES, OPS, Namespace
from gradlite.ops.twins import fused, is_twin
from gradlite.tensor import Tensor, wrap


class NothingSaved(tuple[int | None, ...]):
    """Nones in the places of saved values, of which backward uses up none."""

    __slots__ = ()

    def __bool__(self) -> bool:
        return False


class Op:
    """Base of the primitive ops; subclasses are never instantiated.

    Attributes of a subclass:
        reads: for each tensor input, the positions (inputs from 0, `OUT` for the output, and
            ``OUT - n`` for output number n) of the values its gradient reads. A value is kept only
            when such a gradient is wanted.
        outputs: number of outputs; 0 means as many as forward returns in its tuple.
        kept: of several outputs, the number of the one that `OUT` stands for in ``reads``.
        variadic: forward takes one list of arrays instead of one argument per array.
        has_aux: forward returns ``(out, aux)``; the rule finds aux in ``ctx.aux``.
        constants: positions of inputs that never get a gradient (indices, masks), which
            ``grad_fn.next_functions`` leaves out.
        fname: the op's name in the rules' namespace F; by default the class name in snake_case.
        used_up: whether one backward pass uses the node up although it saved no tensor (its
            aux or attrs hold what PyTorch saves); by default when it has aux.
        native_from: from how many elements of the first input on the kernels of its forward beat
            NumPy on the CPU (`natively`); None: never.
        native_backward_from: the same of its rule, of the gradient or the first saved value.
        native_dtypes: the characters of the dtypes of which that is so: double precision's
            exponentials and logarithms are faster in NumPy.
        multiplies: whether the fused functions multiply matrices with ``K.gemm``.
        grad_name: what ``grad_fn`` shows; by default the class name + "Backward0".
        moves: whether it computes nothing, so that arrays of bfloat16 stay as they are: views,
            copies and casts.
        delegates: whether the rule only hands the gradient to other ops, which look after
            bfloat16 themselves.
        one_step: whether forward and the rule are one elementwise function of arrays each, which
            rounds once by itself; where operands were broadcast, sums follow in the rule.
        mixes: whether inputs after the first may be in float32 beside a first one in half
            precision, which is the result's dtype then; theirs is the last attr.
        elementwise: whether each element of the result comes of the elements in its place, of
            operands that are broadcast; it then lies in memory as they do (`layout.py`).
        row_major: whether the result lies in row-major order whatever the inputs' strides are,
            as PyTorch allocates it; NumPy's functions keep the order of their inputs.

    ``forward(xp, *arrays, *attrs)`` returns an array (or a tuple of them);
    ``backward(ctx, grad, F)`` returns one gradient or None per tensor input.
    ``fused_forward(K, *arrays, *attrs)`` and ``fused_backward(K, ctx, grad)``, where an op has
    them, do the same with kernels (``kernels/README.md``).
    """

    reads: tuple[tuple[int, ...], ...] = ((),)
    outputs = 1
    kept = 0
    has_aux = False
    variadic = False
    row_major = False
    elementwise = False
    used_up = False
    user_defined = False  # as a Function is, whose backward runs wanted or not
    multiplies = False
    native_from: int | None = None
    native_backward_from: int | None = None
    native_dtypes = "fd"
    moves = False
    delegates = False
    one_step = False
    mixes = False
    constants: tuple[int, ...] = ()
    fname = ""
    grad_name = ""
    saves: tuple[int, ...] = ()
    plans: dict[Any, tuple[int | None, ...]]  # what `plan` has found so far

    forward: Callable[..., Any]
    backward: Callable[..., Any]

    def __init_subclass__(cls) -> None:
        if is_twin(cls):
            return  # not an op of its own
        name = cls.__name__
        if "grad_name" not in cls.__dict__:
            cls.grad_name = f"{name}Backward0"
        if "has_aux" in cls.__dict__ and "used_up" not in cls.__dict__:
            cls.used_up = cls.has_aux
        if "fname" not in cls.__dict__:
            cls.fname = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        for function in ("forward", "backward", "fused_forward", "fused_backward"):
            if function in cls.__dict__ and not isinstance(cls.__dict__[function], staticmethod):
                setattr(cls, function, staticmethod(cls.__dict__[function]))
        if cls.row_major and "forward" in cls.__dict__:
            cls.forward = staticmethod(row_major_result(cls.forward))
        cls._run_natively("forward", cls.native_from, natively.forward)
        cls._run_natively("backward", cls.native_backward_from, natively.backward)
        read = {position for positions in cls.reads for position in positions}
        cls.saves = (
            *sorted(p for p in read if p >= 0),
            *sorted((p for p in read if p < 0), reverse=True),
        )
        cls.plans = {}
        if not hasattr(cls, "forward"):
            return  # a base of several ops, or CopySlices, which nobody calls
        OPS[cls.fname] = cls

    @classmethod
    def _run_natively(cls, rule: str, least: int | None, made: Any) -> None:
        function = fused(cls, rule)
        if least is None or function is None or not hasattr(cls, rule):
            return
        name, attribute = f"fused_{rule}", f"native{'' if rule == 'forward' else '_backward'}_from"
        if not {rule, name, attribute}.isdisjoint(cls.__dict__):  # else what it inherits does
            setattr(cls, name, staticmethod(function))
            if cls.elementwise and rule == "forward":
                function = as_operands_lie(function, len(cls.reads))
            setattr(
                cls,
                rule,
                staticmethod(made(getattr(cls, rule), function, least, cls.native_dtypes)),
            )

    @classmethod
    def plan(cls, wanted: tuple[bool, ...]) -> tuple[int | None, ...]:
        """Which of `saves` to keep when these inputs' gradients are wanted (None: not kept).

        When none is (see `Cut`), those that PyTorch keeps whatever is wanted: all that the
        gradient of an only input reads, or those of several inputs.
        """
        plan = cls.plans.get(wanted)
        if plan is None:
            reads = cls.reads
            if len(reads) < len(wanted):  # any number of inputs: all read the same
                reads = reads[:1] * len(wanted)
            read = {p for w, positions in zip(wanted, reads) if w for p in positions}
            if not any(wanted):
                several = [set(r) for place, r in enumerate(reads) if place not in cls.constants]
                enough = min(len(several), 2)
                read = {p for p in cls.saves if sum(p in r for r in several) >= enough}
            plan = tuple(p if p in read else None for p in cls.saves)
            plan = cls.plans[wanted] = plan if read else NothingSaved(plan)
        return plan

    @staticmethod
    def tensor_context(node: Node, edges: tuple[Any, ...]) -> TensorContext:
        """What the rule sees under create_graph: saved values as Tensors in the graph."""
        return TensorContext(node, edges)

    @classmethod
    def saved_position(cls, node: Node, place: int) -> int:
        """Which input (or `OUT`) a saved value of the node is."""
        return cls.saves[place]

    @staticmethod
    def describe(value: Any) -> str:
        """A saved value in error messages, as ``gradlite.FloatTensor [3]``."""
        return describe(value)


class Elementwise(Op):
    """Base of the ops whose results lie as their operands do."""

    elementwise = True


TYPE_NAMES = {
    "float16": "Half", "bfloat16": "BFloat16", "float32": "Float", "float64": "Double",
    "int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte",
    "bool": "Bool",
}  # fmt: skip


def type_name(numpy_dtype: np.dtype[Any]) -> str:
    """A dtype in PyTorch's error messages: Float, Double, Long, ..."""
    return TYPE_NAMES[numpy_dtype.name]


C_NAMES = {
    "Half": "c10::Half", "BFloat16": "c10::BFloat16", "Long": "long int", "Short": "short int",
    "Char": "signed char", "Byte": "unsigned char",
}  # fmt: skip


def c_name(numpy_dtype: np.dtype[Any]) -> str:
    """A dtype as some messages have it: float, double, long int, ..."""
    name = type_name(numpy_dtype)
    return C_NAMES.get(name, name.lower())


def number(value: Any) -> Any:
    """A 0-d array's value for a message, also where a captured step may read none."""
    return np.ndarray.item(value) if isinstance(value, np.ndarray) else value.item()


def describe(array: Any) -> str:
    """An array in error messages: type and shape."""
    sizes = ", ".join(map(str, array.shape))
    return f"{tensor_type(array)} [{sizes}]"


def tensor_type(array: Any) -> str:
    """A tensor's type in error messages, where PyTorch has another name for one of them."""
    name = type_name(array.dtype)
    if name == "BFloat16" and array.__class__ is np.ndarray:
        return "CPUBFloat16Type"
    return f"gradlite.{name}Tensor"


class TensorContext:
    """A node as its rule sees it under create_graph."""

    __slots__ = ("saved", "edges", "attrs", "aux", "shapes", "F", "node")

    def __init__(self, node: Node, edges: tuple[Any, ...]) -> None:
        self.node, self.edges = node, edges
        self.attrs, self.aux, self.shapes = node.attrs, node.aux, node.shapes
        self.F = TENSORS
        saved = () if node.saved is None else node.saved
        packed = node.saved.__class__ is Packed
        if packed:
            saved, self.aux = unpack_saved(saved), unpack_saved(node.aux)
        self.saved = tuple(
            None if value is None else self._tensor(place, value, packed)
            for place, value in enumerate(saved)
        )

    def _tensor(self, place: int, array: Any, packed: bool) -> Any:
        if not hasattr(array, "shape"):
            return array  # a Python number
        position = self.node.op.saved_position(self.node, place)
        edge = self.node if position <= OUT else self.node.edges[position]
        if edge is self.node and self.node.outputs > 1:
            edge = OutputEdge(self.node, OUT - position or self.node.op.kept)
        if array.dtype not in dtypes.FLOATING:
            edge = None  # positions, of which there is no gradient
        if packed:
            return stand_in(array, edge)
        if edge.__class__ is graph.AccumulateGrad:
            return edge.variable  # type: ignore[no-any-return]
        result = wrap(array)
        versions = self.node.versions
        if versions is not None and versions[place] is not None:
            result._counter = versions[place][0]  # edits are caught in this graph too
        if edge is not None:
            result._edge, result._requires_grad = edge, True
        return result

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each input, whether somebody needs its gradient."""
        return tuple(edge is not None for edge in self.edges)


def stand_in(array: Any, edge: Any) -> Tensor:
    """A Tensor around an array at the place in the graph that an edge says."""
    result = wrap(array)
    if edge is not None:
        result._requires_grad = True
        if edge.__class__ is graph.AccumulateGrad:
            result._accumulator = weakref.ref(edge)
        else:
            result._edge = edge
    return result


def _leaf_or_stand_in(array: Any, edge: Any) -> Tensor:
    if edge.__class__ is graph.AccumulateGrad and edge.variable.array is array:
        return edge.variable  # type: ignore[no-any-return]
    return stand_in(array, edge)


graph_hooks.in_graph = _leaf_or_stand_in


class TensorNamespace(Namespace):
    """The ops on Tensors, so that what the rule computes is recorded."""

    tensors = True

    def _bind(self, op: Any) -> Callable[..., Any]:
        arity = len(op.reads)

        def call(*args: Any) -> Any:
            if isinstance(args[0], (list, tuple)):
                return apply(op, [as_tensor_operand(a) for a in args[0]], *args[1:])
            inputs = [None if a is None else as_tensor_operand(a) for a in args[:arity]]
            return apply(op, inputs, *args[arity:])

        return call

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        array = like.array
        return wrap(NAMESPACES[array.__class__].xp.zeros(shape, array.dtype))

    def detach(self, value: Any) -> Any:
        return value.detach()

    def array(self, value: Any) -> Any:
        return value.array


TENSORS = TensorNamespace(np)
NAMESPACES[Tensor] = TENSORS


def as_tensor_operand(value: Any) -> Tensor:
    """A Tensor as it is; a raw array as a constant around it."""
    return value if isinstance(value, Tensor) else wrap(value)
