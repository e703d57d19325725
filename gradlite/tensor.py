"""Tensor: one raw array plus its place in the graph.

The array (``t.array``) is a `numpy.ndarray` or a `cupy.ndarray`, reachable without a copy.
This file holds what needs no op: the grad state, views and their bases, hooks, conversion
to and from NumPy. The ops in `gradlite.ops` add the methods that compute.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gradlite import changes, dtypes, graph, graph_errors, graph_hooks, graph_passes, printing
from gradlite._methods import TensorMethods
from gradlite.backends import asserts, cpu, cuda
from gradlite.description import Description
from gradlite.device import beside
from gradlite.grad_copies import copy, copy_for
from gradlite.grad_mode import INFERENCE, current_mode, is_grad_enabled
from gradlite.graph import AccumulateGrad, Node, OutputEdge, next_sequence_number
from gradlite.graph_errors import MOVED_LEAF
from gradlite.graph_hooks import Extra, RemovableHandle, add_hook
from gradlite.nested import array_of


class View:
    """How a view came from its base, so that in-place edits of either reach the other's graph.

    Slots: ``base`` (the Tensor that owns the storage), ``chain`` (the view ops from it, each
    with its attributes), ``seen`` (the version for which the view's own edge is right) and
    ``origin`` (what made it, which says whether it may be edited in place: "grad" for one view
    in grad mode, else "custom", "multi", "no_grad" or "inference").
    """

    __slots__ = ("base", "chain", "seen", "origin")

    def __init__(self, base: Tensor, chain: tuple[Any, ...], seen: int, origin: str) -> None:
        self.base, self.chain, self.seen, self.origin = base, chain, seen, origin

    def path(self) -> tuple[Any, ...]:
        """The view ops that lead here from the base as it is now."""
        return (*self.base._undo, *self.chain)


# Set by ops/views.py: replays a view's chain on its base to renew the view's edge.
renew_view: Callable[[Tensor], None]


class Tensor(Description, TensorMethods):
    """A multi-dimensional array that autograd can follow.

    Made by `gradlite.tensor`, the factories (`gradlite.zeros`, ...) and every op. As in
    PyTorch, ``Tensor(data)`` makes a float tensor from nested lists and ``Tensor(2, 3)``
    an uninitialised one of that shape.
    """

    __slots__ = (
        "array",
        "_counter",
        "_edge",
        "_grad",
        "_requires_grad",
        "_view",
        "__dict__",
        "__weakref__",
    )
    array: Any
    _counter: list[int] | None  # shared by all views; None on inference tensors
    _edge: Any
    _grad: Tensor | None
    _requires_grad: bool
    _view: View | None
    # Rarely set, so kept in the instance's dictionary with these as defaults.
    _accumulator: Callable[[], AccumulateGrad | None] = staticmethod(lambda: None)
    _extra: Extra | None = None
    _retains: bool = False
    # Of a base that was reshaped in place: view ops back to the shape that its views' chains
    # start from, and forth again.
    _undo: tuple[Any, ...] = ()
    _redo: tuple[Any, ...] = ()

    __array_priority__ = 1000

    def __new__(cls, *data: Any, **options: Any) -> Any:
        default = dtypes.get_default_dtype().numpy
        if len(data) == 1 and not isinstance(data[0], int):
            if isinstance(data[0], Tensor):
                return make(cls, np.array(data[0].array, dtype=default))
            return make(cls, np.asarray(array_of(data[0], default), dtype=default))
        return make(cls, np.empty(data or (0,), dtype=default))

    def __repr__(self) -> str:
        return printing.tensor_str(self)

    def __format__(self, spec: str) -> str:
        return printing.format_tensor(self, spec)

    def __hash__(self) -> int:
        return id(self)

    # ------------------------------------------------------------------- grad state
    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this tensor; can be set on leaves."""
        view = self._view
        return self._requires_grad or (view is not None and view.base._requires_grad)

    @requires_grad.setter
    def requires_grad(self, flag: bool) -> None:
        if not isinstance(flag, bool):
            raise RuntimeError("requires_grad must be a bool")
        if flag and self.array.dtype not in dtypes.FLOATING:
            raise RuntimeError(
                "only Tensors of floating point and complex dtype can require gradients"
            )
        self.requires_grad_(flag)

    def requires_grad_(self, requires_grad: bool = True) -> Any:
        """Switch ``requires_grad`` of a leaf in place and return the same tensor.

        Raises:
            RuntimeError: the tensor is no leaf (use ``detach()``), or its dtype is not floating.
        """
        if not isinstance(requires_grad, (bool, np.bool_)):
            raise TypeError(
                "requires_grad_(): argument 'requires_grad' (position 1) must be bool, not "
                f"{requires_grad.__class__.__name__}"
            )
        if self._edge is not None:
            if not requires_grad:
                raise RuntimeError(
                    "you can only change requires_grad flags of leaf variables. If you want to "
                    "use a computed variable in a subgraph that doesn't require differentiation "
                    "use var_no_grad = var.detach()."
                )
            return self
        if requires_grad:
            check_can_require_grad(self.array.dtype)
            if self._counter is None and current_mode() < INFERENCE:
                raise RuntimeError(
                    "Setting requires_grad=True on inference tensor outside InferenceMode is not "
                    "allowed."
                )
        if self._requires_grad != bool(requires_grad):
            changes.count[0] += 1
            self._requires_grad = bool(requires_grad)
        return self

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded op made this tensor."""
        if self._view is not None:
            refresh(self)
        return self._edge is None

    @property
    def grad_fn(self) -> Node | None:
        """The node of the op that made this tensor; None on leaves."""
        if self._view is not None:
            refresh(self)
        edge = self._edge
        node = edge.node if edge.__class__ is OutputEdge else edge
        return None if node is None else node.shown

    @property
    def output_nr(self) -> int:
        """Which output of its ``grad_fn`` this tensor is."""
        return self._edge.nr if self._edge.__class__ is OutputEdge else 0

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient of a leaf, or of a tensor that retains it."""
        if self._edge is not None and self._grad is None and not self.retains_grad:
            warnings.warn(
                "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its "
                ".grad attribute won't be populated during autograd.backward(). If you indeed want "
                "the .grad field to be populated for a non-leaf Tensor, use .retain_grad() on the "
                "non-leaf Tensor. If you access the non-leaf Tensor by mistake, make sure you "
                "access the leaf Tensor instead. See github.com/pytorch/pytorch/pull/30531 for "
                "more information.",
                UserWarning,
                stacklevel=2,
            )
        return self._grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    "assigned grad expected to be a Tensor or None but got grad of type "
                    f"{value.__class__.__name__}"
                )
            if value is self:
                raise RuntimeError("can't assign Variable as its own grad")
            if value.array.dtype != self.array.dtype:
                raise RuntimeError(
                    "attempting to assign a gradient with dtype "
                    f"'{_c_name(value.dtype)}' to a tensor with grad_dtype "
                    f"'{_c_name(self.dtype).capitalize()}'. The gradient must match the tensor's "
                    "grad_dtype (defaults to the tensor's dtype). You can set the tensor's "
                    "grad_dtype attribute with a specific dtype, or None to allow any dtype. Set "
                    "grad_dtype with caution. Diverging the dtypes of a tensor and its gradient "
                    "may break downstream systems that assume they match."
                )
            if value.array.__class__ is not self.array.__class__:
                raise RuntimeError(
                    "attempting to assign a gradient with device type "
                    f"'{value.device}' to a tensor with device type '{self.device}'. "
                    "Please ensure that the gradient and the tensor are on the same device"
                )
            if value.array.shape != self.array.shape:
                raise RuntimeError(
                    f"attempting to assign a gradient of size '{list(value.shape)}' to a tensor of "
                    f"size '{list(self.shape)}'. Please ensure that the gradient and the tensor "
                    "are the same size"
                )
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def retains_grad(self) -> bool:
        """Whether this tensor gets a ``.grad`` as a non-leaf, because of `retain_grad`."""
        return self._retains and self._edge is not None

    def retain_grad(self) -> None:
        """Let backward fill ``.grad`` of this non-leaf tensor too."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self.retains_grad:
            return
        if self._view is not None:
            (_try_refresh if self._edge is None else refresh)(self)
        edge = self._edge
        node = edge.node if edge.__class__ is OutputEdge else edge
        if node is not None:
            node._extra().retained[self.output_nr] = weakref.ref(self)
            self._retains = True

    @property
    def _base(self) -> Tensor | None:
        return None if self._view is None else self._view.base

    def _is_view(self) -> bool:
        return self._view is not None

    @property
    def _version(self) -> int:
        """How often the storage was written to; shared by all views."""
        if self._counter is None:
            raise RuntimeError("Inference tensors do not track version counter.")
        return self._counter[0]

    def is_inference(self) -> bool:
        """Whether the tensor was made in inference mode."""
        return self._counter is None

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> RemovableHandle:
        """Call ``hook(grad)`` when this tensor's gradient is known; it may return a new one."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        node = self.grad_fn
        hooks = self._leaf_extra() if node is None else node._extra()
        return add_hook(hooks.prehooks, (self.output_nr, hook))

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> RemovableHandle:
        """Call ``hook(tensor)`` after a backward pass has added to this leaf's ``.grad``."""
        if not self.requires_grad:
            raise RuntimeError("cannot register a hook on a tensor that doesn't require gradient")
        if self.grad_fn is not None:
            raise RuntimeError(
                "post accumulate grad hooks cannot be registered on non-leaf tensors"
            )
        return add_hook(self._leaf_extra().post_accumulate, hook)

    def _leaf_extra(self) -> Extra:
        if self._extra is None:
            node = self._accumulator()
            self._extra = Extra() if node is None else node._extra()
        return self._extra

    def _accumulate(self, grad: Any, private: bool, create_graph: bool) -> None:
        """Add a gradient that backward brings: an array, or a Tensor under create_graph."""
        if self._edge is not None or self._view is not None:
            self._check_leaf()
        if not self._requires_grad and not self.requires_grad:
            return  # switched off since the forward pass
        known = self._grad
        if create_graph:
            self._grad = _copy_with_graph(self, grad) if known is None else known + grad
        elif known is not None:
            graph.add_in_place(known.array, grad)
            known._bump()
        else:
            # A fresh array becomes .grad as it is; one that others may hold is copied, and so is
            # one with its elements in another order, which `view` would refuse.
            own = self.array
            if (
                not private
                or grad.__class__ is not own.__class__
                or grad.base is not None
                or (grad.ndim > 1 and grad.strides != own.strides)
            ):
                grad = copy_for(own, grad)
            self._grad = tensor = _new(Tensor)
            tensor.array = grad
            tensor._counter = [0] if current_mode() < INFERENCE else None
            tensor._edge = tensor._grad = tensor._view = None
            tensor._requires_grad = False

    def _check_leaf(self) -> None:
        """RuntimeError about a leaf that is a stale view, or no leaf any more."""
        if self._view is not None:
            refresh(self)
        if self._edge is not None:
            raise RuntimeError(MOVED_LEAF)

    def _retain(self, grad: Any) -> None:
        """Add a gradient to that of a non-leaf, never in place: it may be part of a graph."""
        known = self._grad
        if isinstance(grad, Tensor):
            self._grad = grad.clone() if known is None else known + grad
        elif known is None:
            self._grad = wrap(copy(grad, self.array))
        else:
            self._grad = wrap(graph.add(known.array, grad))

    # -------------------------------------------------------------------- aliases
    def detach(self) -> Tensor:
        """The same storage and version counter, cut from the graph."""
        result = wrap(self.array)
        result._counter = self._counter
        return result

    def detach_(self) -> Tensor:
        """Cut this tensor itself from the graph that made it."""
        if self._view is not None:
            raise RuntimeError(
                "Can't detach views in-place. Use detach() instead. If you are using "
                "DistributedDataParallel (DDP) for training, and gradient_as_bucket_view is set as "
                "True, gradients are views of DDP buckets, and hence detach_() cannot be called "
                "on these gradients. To fix this error, please refer to the Optimizer.zero_grad() "
                "function in torch/optim/optimizer.py as a solution."
            )
        self._edge = None
        self._requires_grad = self._retains = False
        return self

    @property
    def data(self) -> Tensor:
        """The same storage cut from the graph, with a version counter of its own."""
        result = wrap(self.array)
        if self._counter is None:
            result._counter = None
        return result

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {value.__class__.__name__}")
        if value.array.dtype != self.array.dtype and self._requires_grad:
            if not value.is_floating_point():
                raise RuntimeError(
                    "data set to a tensor that requires gradients must be floating point or "
                    "complex dtype"
                )
        if value.array is not self.array:  # as after ``tensor.data *= mask``
            changes.count[0] += 1
            self.array = value.array

    def _bump(self) -> None:
        """Note that the array was written to; shared with all views."""
        if self._counter is not None:
            self._counter[0] += 1

    # ------------------------------------------------------------------ conversion
    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The array itself, without a copy.

        Raises:
            RuntimeError: the tensor requires grad (``detach()`` first, or ``force=True``).
            TypeError: the tensor is not on the CPU, or of bfloat16, which NumPy does not have
                (``tensor.array`` is of the dtype that ml_dtypes adds to it).
        """
        if self.array.dtype.name == "bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        if force:
            array = self.array
            return array if isinstance(array, np.ndarray) else array.get()
        if self.requires_grad and is_grad_enabled():
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. "
                "Use tensor.detach().numpy() instead."
            )
        if not isinstance(self.array, np.ndarray):
            raise TypeError(
                f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to "
                "copy the tensor to host memory first."
            )
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **options: Any) -> Any:
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()  # type: ignore[no-any-return]

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"a Tensor with {self.array.size} elements cannot be converted to Scalar"
            )
        value = self.array.item()
        if asserts.watched:
            asserts.check()
        return value

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        values = self.array.tolist()
        if asserts.watched:
            asserts.check()
        return values

    def __bool__(self) -> bool:
        if self.array.size != 1:
            if self.array.size == 0:
                raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
        return bool(self.array)

    def __float__(self) -> float:
        if self.requires_grad and is_grad_enabled():
            warnings.warn(
                "Converting a tensor with requires_grad=True to a scalar may lead to unexpected "
                "behavior.\nConsider using tensor.detach() first.",
                UserWarning,
                stacklevel=2,
            )
        return float(self._scalar().item())

    def __int__(self) -> int:
        return int(self._scalar())

    def _scalar(self) -> Any:
        if self.array.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self.array.reshape(())

    def __index__(self) -> int:
        if self.array.size != 1 or self.array.dtype.kind not in "iub":
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._scalar())


# --------------------------------------------------------------------------- helpers
_new = object.__new__
_reference = weakref.ref


def wrap(array: Any) -> Tensor:
    """A Tensor around a raw array, without a copy; a Tensor is handed back as it is."""
    if isinstance(array, Tensor):
        return array  # type: ignore[no-any-return]
    tensor = _new(Tensor)
    if array.__class__ is not np.ndarray and isinstance(array, np.generic):
        array = np.asarray(array)
    tensor.array = array
    tensor._counter = [0] if current_mode() < INFERENCE else None
    tensor._edge = tensor._grad = tensor._view = None
    tensor._requires_grad = False
    return tensor


def unwrap(tensor: Any) -> Any:
    """The raw array of a Tensor; anything else is handed back as it is."""
    return tensor.array if isinstance(tensor, Tensor) else tensor


def make(cls: type, array: Any, requires_grad: bool = False) -> Any:
    """A leaf of a Tensor subclass around a raw array, without a copy."""
    tensor: Any = _new(cls)
    tensor.array = array
    tensor._counter = [0] if current_mode() < INFERENCE else None
    tensor._edge = tensor._grad = tensor._view = None
    tensor._requires_grad = False
    if requires_grad:
        tensor.requires_grad_()
    return tensor


def check_can_require_grad(numpy_dtype: np.dtype[Any], *, factory: bool = False) -> None:
    """RuntimeError unless tensors of this dtype can require gradients; PyTorch's two wordings."""
    subject, kind = ("Only Tensors", "and complex ") if factory else ("only Tensors", "")
    if numpy_dtype not in dtypes.FLOATING:
        raise RuntimeError(f"{subject} of floating point {kind}dtype can require gradients")


def refresh(tensor: Tensor) -> None:
    """Renew the edge of a view whose base or sibling was edited in place since."""
    view, version = tensor._view, tensor._counter
    if view is not None and version is not None and view.seen != version[0]:
        renew_view(tensor)


def _try_refresh(tensor: Tensor) -> None:
    """`refresh` where the question has an answer even for a view that can no longer be used."""
    try:
        refresh(tensor)
    except RuntimeError:
        pass


def gradient_edge(tensor: Tensor) -> Any:
    """Where the gradient of a tensor goes: its node, its leaf's accumulator, or None.

    None although it requires grad: for a view that has that from its base alone.
    """
    if tensor._view is not None:
        refresh(tensor)
    edge = tensor._edge
    if edge is None and tensor._requires_grad:
        edge = tensor._accumulator()
        if edge is None:
            edge = AccumulateGrad()
            edge.variable, edge.extra, edge.seq = tensor, tensor._extra, next_sequence_number()
            tensor._accumulator = _reference(edge)
    return edge


def _copy_with_graph(leaf: Tensor, grad: Tensor) -> Tensor:
    """A copy of a gradient that has gradients: edits of one must not show in others."""
    copied = wrap(copy_for(leaf.array, grad.array))
    return copied.copy_(grad) if grad.requires_grad else copied


def is_tensor(obj: Any) -> bool:
    """Whether something is a Tensor."""
    return isinstance(obj, Tensor)


def tensors_of(values: Iterable[Any]) -> list[Tensor]:
    """The Tensors among some values."""
    return [v for v in values if isinstance(v, Tensor)]


def _c_name(d: dtypes.dtype) -> str:
    """A dtype under the name of its C type, as some of PyTorch's messages have it."""
    names = {"float16": "c10::Half", "bfloat16": "c10::BFloat16", "float32": "float"}
    return {**names, "float64": "double"}.get(d.name, d.name)


def _has_nan(value: Any) -> bool:
    array = unwrap(value)
    with beside(array):
        return bool((array != array).any())


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or hasattr(type(value), "__cuda_array_interface__")


graph_hooks.wrap, graph_hooks.unwrap, graph_hooks.is_array = wrap, unwrap, _is_array
graph_errors.has_nan = _has_nan
graph.quiet, graph.loud = cpu.quiet, cpu.loud


@cuda.when_used
def _streams_of_threads(cupy: Any) -> None:
    def on_same_stream(run: Callable[[], Any]) -> Callable[[], Any]:
        device, stream = cupy.cuda.Device(), cupy.cuda.get_current_stream()

        def on_stream() -> Any:
            with device, stream:
                return run()

        return on_stream

    graph_passes.on_same_stream = on_same_stream
