"""What a node has saved, as ``grad_fn._saved_self`` and its kin show it, under PyTorch's names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlite import graph_hooks
from gradlite.autograd.context import FunctionCtx, Kept
from gradlite.autograd.graph import saved_tensors_hooks
from gradlite.grad_mode import no_grad
from gradlite.graph import Node, raise_modified
from gradlite.graph_errors import SECOND_BACKWARD
from gradlite.graph_hooks import Packed, PackedArray, unpack_saved
from gradlite.ops.dispatch import OUT
from gradlite.ops.op import TensorContext
from gradlite.tensor import Tensor

Hook = Callable[[Any], Any]

# By the class of an op: the names of what it saves, where they are not `_USUAL`.
_NAMES = {
    "Prelu": ("self", "weight"),
    "Gather": ("self", "index"),
    "Mm": ("self", "mat2"),
    "Matmul": ("self", "mat2"),
    "Dot": ("self", "tensor"),
    "Mv": ("self", "vec"),
    "Addmv": ("mat", "vec"),
    "Addmm": ("mat1", "mat2"),
    "Baddbmm": ("batch1", "batch2"),
    **dict.fromkeys(("Pow", "PowTensor", "PowOfNumber"), ("self", "exponent", "result")),
    **dict.fromkeys(("Addcmul", "Addcdiv"), ("tensor1", "tensor2")),
    "LerpTensor": ("self", "end", "weight"),
    "Where": ("condition",),
    "Convolution": ("input", "weight"),
    "Embedding": ("indices",),
    **dict.fromkeys(("MseLoss", "Bce"), ("self", "target")),
    "Inv": ("inverse",),
    **dict.fromkeys(("Det", "Solve"), ("A", "result")),
    "Slogdet": ("A",),
    **dict.fromkeys(("Erfinv", "CrossEntropy"), ()),  # they save something else than PyTorch
    "Cholesky": ("L",),
    "Svd": ("U", "S", "Vh"),
    "Eigh": ("eigenvalues", "eigenvectors"),
    "Qr": ("Q", "R"),
    **dict.fromkeys(("IndexSelect", "Scatter", "ScatterValue", "ScatterAdd"), ("index",)),
    **dict.fromkeys(("IndexAdd", "IndexCopy", "IndexFill"), ("index",)),
    **dict.fromkeys(("Sort", "Topk", "Kthvalue", "Mode", "Cummax", "Cummin"), ("indices",)),
    **dict.fromkeys(("PickMax", "PickMin", "PickMedian", "PickNanmedian"), ("indices",)),
    **dict.fromkeys(("MaskedFill", "MaskedFillTensor", "MaskedScatter"), ("mask",)),
    "MaskedSelect": ("mask",),
}
_USUAL = {0: "self", 1: "other", OUT: "result"}


def names(node: Node) -> tuple[str, ...]:
    """The names of what a node saves, in its order; none for ops that PyTorch does not have."""
    op: Any = getattr(node, "op", None)  # a context has none
    op = getattr(op, "op", op)  # what a `Variant` is made from
    saves = getattr(op, "saves", ())
    name = getattr(op, "__name__", "")
    if name in _NAMES:
        return _NAMES[name]
    if len(op.reads if saves else ()) > 2 or not set(saves) <= set(_USUAL):
        return ()  # of ops with more operands than two, and of fused ones, 0 is not "self"
    return tuple(_USUAL[position] for position in saves)


def saved_attribute(node: Node, attribute: str) -> Any:
    """``_saved_NAME``, a Tensor or None, or ``_raw_saved_NAME``, a `SavedTensor`."""
    raw = attribute.startswith("_raw")
    if isinstance(node, FunctionCtx):
        if attribute == "_raw_saved_tensors":
            if node._kept is None:
                raise RuntimeError(SECOND_BACKWARD)
            return tuple(_saved_tensor(node, place) for place in range(len(node._kept)))
    else:
        known = names(node)
        name = attribute.partition("_saved_")[2]
        if name in known:
            place = known.index(name)
            return _saved_tensor(node, place) if raw else value_of(node, place)
    raise AttributeError(f"'{node.name()}' object has no attribute '{attribute}'")


def value_of(node: Node, place: int) -> Tensor | None:
    """What a node has saved at a place, in the graph where it was.

    Raises:
        RuntimeError: it was changed in place since, or freed by a backward pass.
    """
    if node.saved is None:
        raise RuntimeError(SECOND_BACKWARD)
    value = node.saved[place] if place < len(node.saved) else None
    if value is None:
        return None
    version = node.versions[place] if node.versions else None
    if version is not None and version[0][0] != version[1]:
        raise_modified(node, place, version)
    context = object.__new__(TensorContext)
    context.node = node
    packed = value.__class__ is PackedArray
    return context._tensor(place, unpack_saved(value), packed)  # type: ignore[no-any-return]


class SavedTensor:
    """The place of one saved value; a pair of hooks can be set on it after the fact.

    >>> import gradlite
    >>> x = gradlite.ones(2, requires_grad=True)
    >>> y = x.exp()
    >>> y.grad_fn._raw_saved_result.register_hooks(lambda t: t.half(), lambda t: t.float())
    >>> y.grad_fn._saved_result.detach()
    tensor([2.7188, 2.7188])
    """

    __slots__ = ("_node", "_place")
    _node: Node
    _place: int

    def __init__(self) -> None:
        raise RuntimeError("Trying to create a SavedTensor object from Python is forbidden.")

    def register_hooks(self, pack_hook: Hook, unpack_hook: Hook) -> None:
        """Keep what ``pack_hook(tensor)`` returns; ``unpack_hook`` makes a tensor of it again.

        Raises:
            RuntimeError: there is no value, it has hooks, or ``pack_hook`` edits it in place.
            TypeError: a hook is no function.
        """
        if not callable(pack_hook) or not callable(unpack_hook):
            raise TypeError("register_hooks(): incompatible function arguments: two functions")
        node, place = self._node, self._place
        saved: Any = node._kept if isinstance(node, FunctionCtx) else node.saved
        value = saved[place] if saved else None
        if value is None:
            raise RuntimeError(
                "Calling register_hooks on a saved tensor with value None is forbidden"
            )
        if value.__class__ is PackedArray or getattr(value, "unpack", None) is not None:
            raise RuntimeError(
                "Calling register_hooks on a saved tensor whose hooks have already been set. "
                "Hint: only one pair of hooks is allowed at a time."
            )
        hooks = saved_tensors_hooks(pack_hook, unpack_hook)
        if isinstance(node, FunctionCtx):
            kept: Kept = value
            tensor = kept.open(node, node._node(), place)
            with no_grad():
                kept.array, kept.version = hooks._pack(tensor), None
            kept.unpack = hooks._unpack
            return
        given = value_of(node, place)
        assert given is not None
        with no_grad():
            packed = PackedArray(hooks._pack(given.detach()), hooks._unpack, id(value))
        node.saved = Packed((*saved[:place], packed, *saved[place + 1 :]))
        if node.versions is not None:
            node.versions = (*node.versions[:place], None, *node.versions[place + 1 :])


def _saved_tensor(node: Node, place: int) -> SavedTensor:
    saved = object.__new__(SavedTensor)
    saved._node, saved._place = node, place
    return saved


class _Shown:
    """An attribute of all nodes, in the place of ``__getattr__``, which slows every other down."""

    __slots__ = ("attribute",)

    def __init__(self, attribute: str) -> None:
        self.attribute = attribute

    def __get__(self, node: Node | None, owner: type) -> Any:
        return self if node is None else saved_attribute(node, self.attribute)


def _attach() -> None:
    for name in {*_USUAL.values(), *(name for names in _NAMES.values() for name in names)}:
        for attribute in (f"_saved_{name}", f"_raw_saved_{name}"):
            setattr(Node, attribute, _Shown(attribute))
    FunctionCtx._raw_saved_tensors = _Shown("_raw_saved_tensors")  # type: ignore[attr-defined]


_attach()
graph_hooks.saved_names = names
