"""Writing at places that index tensors and masks name: scatter, index_add, masked_fill, ..."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.grad_mode import NO_GRAD, current_mode, no_grad
from gradlite.ops import indexing, positions, scatter_combine
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply, node_of_edit
from gradlite.ops.gather import check_bounds, check_tensor, counted_from_front
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import assign, check_inplace, lies_apart, rebase
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import as_number, cast, filling, fitting
from gradlite.ops.samples import S, constant, integers, normal
from gradlite.ops.scatter_checks import check_scatter, check_slices, check_vector, cut
from gradlite.ops.table import public
from gradlite.ops.twins import is_twin
from gradlite.tensor import Tensor, wrap

__all__ = [
    "index_add",
    "index_copy",
    "index_fill",
    "scatter",
    "scatter_add",
]


# --------------------------------------------------------------------------- primitives
class Writer(Op):
    """Base of the ops that write into a copy; ``write`` edits a contiguous array instead.

    ``launch(K, out, *rest)`` does so with kernels, where ``serves(K, x, *rest)`` says that it can.
    """

    write: Callable[..., Any]
    serves: Callable[..., bool]
    launch: Callable[..., None] | None = None

    def __init_subclass__(cls) -> None:
        if is_twin(cls):
            return  # which has its op's
        for name in ("write", "serves", "launch"):
            if name in cls.__dict__:
                setattr(cls, name, staticmethod(cls.__dict__[name]))
        write, serves, launch = cls.write, getattr(cls, "serves", None), cls.launch

        def forward(xp: Any, x: Any, *rest: Any) -> Any:
            return write(xp, xp.array(x, order="C"), *rest)

        def fused_forward(K: Any, x: Any, *rest: Any) -> Any:
            if serves is None or launch is None or not serves(K, x, *rest):
                return NotImplemented
            out = K.xp.array(x, order="C")
            launch(K, out, *rest)
            return out

        cls.forward = forward
        if launch is not None:
            cls.fused_forward = fused_forward  # type: ignore[attr-defined]
        super().__init_subclass__()


class Scatter(Writer):
    reads = ((1,), (), (1,))
    constants = (1,)

    def write(xp: Any, out: Any, index: Any, src: Any, dim: int) -> Any:
        flat = positions.along(xp, out.shape, index, dim)
        out.reshape(-1)[flat.reshape(-1)] = src.reshape(-1)
        return out

    def serves(K: Any, x: Any, index: Any, src: Any, dim: int) -> bool:
        return indexing.puts_along(K, x, index, dim)

    def launch(K: Any, out: Any, index: Any, src: Any, dim: int) -> None:
        indexing.put_along(K, "scatter", out, index, dim, src)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        (dim,) = ctx.attrs
        left = right = None
        if ctx.edges[0] is not None:
            left = F.scatter_value(grad, index, dim, 0)
        if ctx.edges[2] is not None:
            right = F.gather(grad, index, dim)
        return left, None, right


class ScatterValue(Writer):
    reads = ((1,), ())
    constants = (1,)
    grad_name = "ScatterBackward1"

    def write(xp: Any, out: Any, index: Any, dim: int, value: Any) -> Any:
        out.reshape(-1)[positions.along(xp, out.shape, index, dim).reshape(-1)] = value
        return out

    def serves(K: Any, x: Any, index: Any, dim: int, value: Any) -> bool:
        return indexing.puts_along(K, x, index, dim)

    def launch(K: Any, out: Any, index: Any, dim: int, value: Any) -> None:
        indexing.put_along(K, "scatter", out, index, dim, number=indexing.bits_of(value, out.dtype))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        return F.scatter_value(grad, index, ctx.attrs[0], 0), None


class ScatterAdd(Writer):
    reads = ((), (), (1,))
    constants = (1,)
    native_from = 1 << 12

    def write(xp: Any, out: Any, index: Any, src: Any, dim: int) -> Any:
        return positions.add_at(xp, out, positions.along(xp, out.shape, index, dim), src)

    def serves(K: Any, x: Any, index: Any, src: Any, dim: int) -> bool:
        if x.dtype == np.int64:
            return scatter_combine.serves(K, x, index, dim)
        if not indexing.inside(x.shape, index.shape, dim):
            return False
        return indexing.adds(K, x.shape, dim, x, src)

    def launch(K: Any, out: Any, index: Any, src: Any, dim: int) -> None:
        if out.dtype == np.int64:
            scatter_combine.combine_whole(
                K, "scatter_add", scatter_combine.SUM, out, index, src, dim
            )
        else:
            indexing.add_along(K, "scatter_add", out, index, src, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        right = F.gather(grad, index, ctx.attrs[0]) if ctx.edges[2] is not None else None
        return grad if ctx.edges[0] is not None else None, None, right


class IndexAdd(Writer):
    reads = ((), (), (1,))
    constants = (1,)
    native_from = 1 << 12

    def write(xp: Any, out: Any, index: Any, source: Any, dim: int, alpha: Any) -> Any:
        values = source if alpha == 1 else source * alpha
        if dim == 0 and out.ndim > 1 and values.size:
            rows = out.reshape(out.shape[0], -1)
            positions.add_rows(xp, rows, index, values.reshape(index.size, -1))
            return out
        flat = positions.slices(xp, out.shape, index, dim)
        return positions.add_at(xp, out, flat, values.reshape(flat.shape))

    def serves(K: Any, x: Any, index: Any, source: Any, dim: int, alpha: Any) -> bool:
        return bool(x.ndim) and indexing.adds(K, x.shape, dim, x, source)

    def launch(K: Any, out: Any, index: Any, source: Any, dim: int, alpha: Any) -> None:
        # Not times a Python float, which CuPy takes bfloat16 to float32 with.
        values = source if alpha == 1 else source * source.dtype.type(alpha)
        indexing.add_slices(K, "index_add", out, index, values, dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        dim, alpha = ctx.attrs
        right = None
        if ctx.edges[2] is not None:
            right = F.index_select(grad, index, dim).reshape(ctx.shapes[2])
            right = right if alpha == 1 else right * alpha
        return grad if ctx.edges[0] is not None else None, None, right


class IndexCopy(Writer):
    reads = ((1,), (), (1,))
    constants = (1,)

    def write(xp: Any, out: Any, index: Any, source: Any, dim: int) -> Any:
        flat = positions.slices(xp, out.shape, index, dim)
        out.reshape(-1)[flat.reshape(-1)] = source.reshape(-1)
        return out

    def serves(K: Any, x: Any, index: Any, source: Any, dim: int) -> bool:
        return indexing.puts(K, x, source.size)

    def launch(K: Any, out: Any, index: Any, source: Any, dim: int) -> None:
        indexing.put_slices(
            K, "index_copy", out if out.ndim else out.reshape(1), index, dim, source
        )

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        (dim,) = ctx.attrs
        left = right = None
        if ctx.edges[0] is not None:
            left = F.index_fill(grad, index, dim, 0)
        if ctx.edges[2] is not None:
            right = F.index_select(grad, index, dim).reshape(ctx.shapes[2])
        return left, None, right


class IndexFill(Writer):
    reads = ((1,), ())
    constants = (1,)

    def write(xp: Any, out: Any, index: Any, dim: int, value: Any) -> Any:
        if xp is not np:
            index = counted_from_front("index_fill", xp, index, out.shape[dim] if out.ndim else 1)
        out.reshape(-1)[positions.slices(xp, out.shape, index, dim).reshape(-1)] = value
        return out

    def serves(K: Any, x: Any, index: Any, dim: int, value: Any) -> bool:
        return indexing.puts_slices(K, x, index, dim)

    def launch(K: Any, out: Any, index: Any, dim: int, value: Any) -> None:
        out = out if out.ndim else out.reshape(1)
        bits = indexing.bits_of(value, out.dtype)
        indexing.put_slices(K, "index_fill", out, index, dim, number=bits, lowest=-out.shape[dim])

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (index,) = ctx.saved
        return F.index_fill(grad, index, ctx.attrs[0], 0), None


# ------------------------------------------------------------------------- preparation
def _seen_by_kernels(reduce: Any, x: Any) -> Any:
    """The array as the kernels see it that write to it, combined or not."""
    if isinstance(x, np.ndarray) or reduce == "multiply":  # which reads at the indices too
        return None
    return indexing.movable(x) if reduce is None else x


Call = tuple[Any, tuple[Any, ...], tuple[Any, ...]]


def _scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, **options: Any) -> Call:
    if "value" in options:
        src = options["value"]
    reduce = options.get("reduce")
    if reduce not in (None, "add", "multiply"):
        raise RuntimeError("reduce argument must be either add or multiply.")
    if src is None:
        raise TypeError('scatter() missing 1 required positional arguments: "src"')
    d = check_scatter(input, dim, index, src, _seen_by_kernels(reduce, input.array))
    if isinstance(src, Tensor):
        src = cut(src, index.array.shape)
    elif reduce is not None:
        src = input.new_full(index.array.shape, src)
    if reduce == "add":
        return ScatterAdd, (input, index, src), (d,)
    if reduce == "multiply":
        # What is already there times the products of the sources, read back where it is written.
        with no_grad():
            product = apply(
                scatter_combine.ScatterProd,
                (input.new_ones(input.array.shape), index, src),
                d,
                True,
            )
        return Scatter, (input, index, (input * product).gather(d, index)), (d,)
    if isinstance(src, Tensor):
        return Scatter, (input, index, src), (d,)
    return ScatterValue, (input, index), (d, filling(as_number(src), input.array.dtype))


def _scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Call:
    check_tensor("scatter_add", "src", 3, src)
    d = check_scatter(input, dim, index, src, input.array)
    return ScatterAdd, (input, index, cut(src, index.array.shape)), (d,)


def _index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Call:
    d = check_slices("index_add", input, dim, index, source)
    alpha = fitting(as_number(alpha), source.array.dtype)
    return IndexAdd, (input, index, source), (d, alpha)


def _index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Call:
    check_tensor("index_copy", "index", 3, index)
    check_tensor("index_copy", "source", 4, source)
    x, i, s = input.array, index.array, source.array
    d = wrap_dim(dim, x.ndim)
    check_vector("index_copy_", index)
    if i.dtype != np.int64:
        raise RuntimeError(
            f"index_copy_(): Expected a long tensor for index, but got {type_name(i.dtype)}"
        )
    if x.dtype != s.dtype:
        raise RuntimeError(
            "index_copy_(): self and source expected to have the same dtype, but got (self) "
            f"{type_name(x.dtype)} and (source) {type_name(s.dtype)}"
        )
    if i.size != (s.shape[d] if s.ndim else 1):
        raise IndexError(
            f"index_copy_(): Number of indices ({i.size}) should be equal to source.size(dim) "
            f"({s.shape[d] if s.ndim else 1})"
        )
    rest = ([n for k, n in enumerate(t.shape) if k != d] for t in (x, s))
    if next(rest) != next(rest):
        raise RuntimeError(
            "index_copy_(): Source/destination tensor must have same slice shapes. Destination "
            f"slice shape: {[n for k, n in enumerate(x.shape) if k != d]} at dimension {d} and "
            f"source slice shape: {[n for k, n in enumerate(s.shape) if k != d]} at dimension {d}."
        )
    beside = None if isinstance(x, np.ndarray) or s.size >= indexing.MOST else indexing.movable(x)
    check_bounds(
        "index_copy", i, d, x.shape[d] if x.ndim else 1, IndexError, "index_copy_(): ", beside
    )
    return IndexCopy, (input, index, source), (d,)


@on_its_device
def _index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Call:
    check_tensor("index_fill", "index", 3, index)
    x, i = input.array, index.array
    d = wrap_dim(dim, x.ndim)
    check_vector("index_fill_", index)
    if i.dtype != np.int64:
        raise IndexError("index_fill_(): Expected dtype int64 for index.")
    n = x.shape[d] if x.ndim else 1
    F = NAMESPACES[i.__class__]
    by_tensor = isinstance(value, Tensor) and (value.requires_grad or not value.is_cpu)
    K = F.launcher
    by_kernel = K is not None and indexing.puts_slices(K, x, i, d) and not by_tensor
    if not by_kernel:
        if n:
            index = wrap(counted_from_front("index_fill", F.xp, i, n))
        if F.xp is np or not n:
            check_bounds("index_fill", index.array, d, n, IndexError)
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(
                "index_fill_ only supports a 0-dimensional value tensor, but got tensor with "
                f"{value.array.ndim} dimension(s)."
            )
        if by_tensor:
            shape = (*x.shape[:d], i.size, *x.shape[d + 1 :]) if x.ndim else (1,)
            return IndexCopy, (input, index, cast(value, x.dtype).expand(shape)), (d,)
        value = value.item()
    return IndexFill, (input, index), (d, filling(as_number(value), input.array.dtype))


def _in_place(call: Callable[..., Call], name: str) -> Any:
    """The in-place form of a `Writer`: into the array itself when nothing has to be recorded."""

    @on_its_device
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(self)
        op, inputs, attrs = call(self, *args, **kwargs)
        array = self.array
        unrecorded = current_mode() & NO_GRAD or not any(t.requires_grad for t in inputs)
        others = [t.array for t in inputs[1:]]
        apart = not any(o is array or o.base is not None for o in others)
        if unrecorded and apart and array.flags.c_contiguous:
            F = NAMESPACES[array.__class__]
            K, rest = F.launcher, (*others, *attrs)
            if K is not None and op.launch is not None and op.serves(K, array, *rest):
                op.launch(K, array, *rest)
            else:
                op.write(F.xp, array, *rest)
            self._bump()
            return self
        K, rest = NAMESPACES[array.__class__].launcher, (*others, *attrs)
        if K is not None and inputs[0] is self and lies_apart(self, others):
            # A GPU copies nothing for the graph's sake where the rule does not read old values.
            if op.launch is not None and array.flags.c_contiguous and op.serves(K, array, *rest):
                node = node_of_edit(op, inputs, attrs)
                if node is not None:
                    op.launch(K, array, *rest)
                    self._bump()
                    rebase(self, node)
                    return self
        return assign(self, apply(op, inputs, *attrs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{name[:-1]}`."
    return method


def _run(call: Call) -> Tensor:
    op, inputs, attrs = call
    return apply(op, inputs, *attrs)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3, 4), 1, np.array([[0, 2], [1, 3], [3, 0]]), normal(3, 2)),
        S(normal(3, 4), 0, np.array([[2, 0]]), constant(normal(3, 4))),
        S(normal(3, 4), -1, np.array([[1], [2]]), 2.5),
        S(normal(3, 4), 1, np.array([[1], [2]]), value=1),
        S(normal(2, 3, 2), 1, np.array([[[2], [0]]]), normal(1, 2, 1)),
        S(normal(3), 0, np.zeros(0, np.int64), normal(0)),
        S(constant(normal(3, 4)), 1, integers(0, 4, 3, 2), 2.0, reduce="add"),
        S(constant(normal(3, 4)), 0, integers(0, 3, 2, 4), 3.0, reduce="multiply"),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2, 3), 1, np.array([[5]]), 1.0),
        S(normal(2, 3), 1, np.array([0]), 1.0),
        S(normal(2, 3), 1, np.array([[2], [1]]), normal(1, 2)),
        S(normal(2, 3), 1, np.array([[2], [1]]), np.zeros((2, 2), np.int64)),
        S(normal(2, 3), 1, np.array([[2], [1], [0]]), 1.0),
    ],
)
def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, **options: Any) -> Tensor:
    """``out[i][index[i][j]] = src[i][j]`` for ``dim=1``, and so on; the opposite of `gather`.

    ``src`` is a tensor or a number (also called ``value``); ``reduce="add"`` or ``"multiply"``
    combines it with what is there instead.

    >>> import gradlite
    >>> gradlite.scatter(gradlite.zeros(2, 3), 1, gradlite.tensor([[2], [0]]), 1.0)
    tensor([[0., 0., 1.],
            [1., 0., 0.]])
    """
    return _run(_scatter(input, dim, index, src, **options))


@public(
    samples=lambda: [
        S(normal(3, 4), 1, integers(0, 4, 3, 6), normal(3, 6)),
        S(normal(3, 4), 0, integers(0, 3, 5, 2), constant(normal(5, 3))),
        S(normal(2, 3, 2), -1, integers(0, 2, 2, 3, 4), normal(2, 3, 4)),
        S(normal(3), 0, np.zeros(0, np.int64), normal(0)),
        S(np.arange(3), 0, np.array([1, 1]), np.array([5, 6])),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2, 3), 1, np.array([[3]]), normal(1, 1)),
        S(normal(2, 3), 1, np.array([[2]]), 1.0),
        S(normal(3), 0, np.array([0, 1]), normal(1)),
    ],
    autocast=("", "widest"),
)
def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """``out[i][index[i][j]] += src[i][j]`` for ``dim=1``, and so on.

    >>> import gradlite
    >>> places = gradlite.tensor([0, 0, 2])
    >>> gradlite.scatter_add(gradlite.zeros(3), 0, places, gradlite.tensor([1.0, 2.0, 3.0]))
    tensor([3., 0., 3.])
    """
    return _run(_scatter_add(input, dim, index, src))


@public(
    samples=lambda: [
        S(normal(3, 4), 0, integers(0, 3, 5), normal(5, 4)),
        S(normal(3, 4), 1, integers(0, 4, 5), normal(3, 5)),
        S(normal(2, 3, 4), 1, integers(0, 3, 2), normal(2, 2, 4), alpha=-2.5),
        S(normal(3), 0, integers(0, 3, 4), normal(4)),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2, 3), 1, np.array([2, 0]), normal(2, 3)),
        S(normal(2, 3), 1, np.array([2, 0]), normal(3, 2)),
        S(normal(2, 3), 1, np.array([3]), normal(2, 1)),
        S(normal(2, 3), 1, np.array([0]), np.zeros((2, 1), np.int64)),
        S(normal(2, 3), 1, np.array([[0]]), normal(2, 1)),
    ],
)
def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: Any = 1) -> Tensor:
    """The input with ``alpha * source`` added to the slices along ``dim`` that ``index`` names.

    >>> import gradlite
    >>> rows = gradlite.tensor([1, 1])
    >>> gradlite.index_add(gradlite.zeros(2, 2), 0, rows, gradlite.ones(2, 2))
    tensor([[0., 0.],
            [2., 2.]])
    """
    return _run(_index_add(input, dim, index, source, alpha=alpha))


@public(
    samples=lambda: [
        S(normal(3, 4), 0, np.array([2, 0]), normal(2, 4)),
        S(normal(2, 3, 4), -1, np.array([1, 3]), normal(2, 3, 2)),
        S(normal(), 0, np.array([0]), normal(1)),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2, 3), 1, np.array([2, 0]), normal(2, 3)),
        S(normal(2, 3), 1, np.array([2, 3]), normal(2, 2)),
        S(normal(2, 3), 1, np.array([0]), np.zeros((2, 1), np.int64)),
    ],
    autocast=("widest", ""),
)
def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """The input with the slices along ``dim`` that ``index`` names replaced by a source's.

    >>> import gradlite
    >>> rows = gradlite.tensor([1])
    >>> gradlite.index_copy(gradlite.zeros(2, 2), 0, rows, gradlite.ones(1, 2))
    tensor([[0., 0.],
            [1., 1.]])
    """
    return _run(_index_copy(input, dim, index, source))


@public(
    samples=lambda: [
        S(normal(3, 4), 0, np.array([2, 0]), 1.5),
        S(normal(2, 3, 4), 1, np.array([-1, 0, 0]), -1),
        S(normal(3, 4), 1, np.array([1, 2]), normal()),
        S(normal(), 0, np.array([0]), 2.0),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2, 3), 1, np.array([4]), 1.0),
        S(normal(2, 3), 1, np.array([0]), np.ones(1)),
        S(normal(2, 3), 1, np.array([0.0]), 1.0),
    ],
)
@on_its_device
def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """The input with the slices along ``dim`` that ``index`` names set to one value.

    >>> import gradlite
    >>> gradlite.index_fill(gradlite.zeros(2, 2), 1, gradlite.tensor([0]), 7)
    tensor([[7., 0.],
            [7., 0.]])
    """
    return _run(_index_fill(input, dim, index, value))


def _attach() -> None:
    t: Any = Tensor
    t.scatter_ = _in_place(_scatter, "scatter_")
    t.scatter_add_ = _in_place(_scatter_add, "scatter_add_")
    t.index_add_ = _in_place(_index_add, "index_add_")
    t.index_copy_ = _in_place(_index_copy, "index_copy_")
    t.index_fill_ = _in_place(_index_fill, "index_fill_")


_attach()
