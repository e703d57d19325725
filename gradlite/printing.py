"""How tensors print: the text that PyTorch shows, with gradlite's name inside dtypes.

Three steps, each a function below. The entries that will be shown are taken out of the
array first (the corners of a long tensor), so printing never touches the rest. One
notation is then chosen for all of them. The texts are laid out in nested brackets last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from gradlite import dtypes


@dataclass(frozen=True)
class _Options:
    precision: int = 4
    threshold: float = 1000  # a float because the profile "full" sets it to infinity
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_PROFILES = {
    "default": _Options(),
    "short": _Options(precision=2, edgeitems=2),
    "full": _Options(threshold=math.inf),
}
_options = _PROFILES["default"]


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how tensors print; what is None stays as it is, except ``sci_mode``.

    Args:
        precision: digits after the point (4 at first).
        threshold: tensors with more elements than this print only their edges (1000).
        edgeitems: how many elements each edge shows, in every dimension (3).
        linewidth: characters per line (80).
        profile: ``"default"``, ``"short"`` or ``"full"``, applied before the other
            arguments; any other name changes nothing, as in PyTorch.
        sci_mode: True for scientific notation always, False for never. None lets each
            tensor decide, also when an earlier call had set it.

    >>> with printoptions():
    ...     set_printoptions(profile="short", linewidth=100)
    ...     get_printoptions()["precision"]
    2
    """
    global _options
    given = {
        "precision": precision,
        "threshold": threshold,
        "edgeitems": edgeitems,
        "linewidth": linewidth,
    }
    base = _options if profile is None else _PROFILES.get(profile, _options)
    changes: dict[str, Any] = {name: v for name, v in given.items() if v is not None}
    _options = replace(base, **changes, sci_mode=sci_mode)


def get_printoptions() -> dict[str, Any]:
    """The options in force, under the names that ``set_printoptions`` takes.

    >>> get_printoptions()["linewidth"]
    80
    """
    return asdict(_options)


@contextmanager
def printoptions(**options: Any) -> Iterator[None]:
    """``set_printoptions(**options)`` inside a ``with`` block, undone after it.

    >>> with printoptions(precision=2):
    ...     get_printoptions()["precision"]
    2
    >>> get_printoptions()["precision"]
    4
    """
    global _options
    before = _options
    try:
        set_printoptions(**options)
        yield
    finally:
        _options = before


def tensor_str(t: Any) -> str:
    """The whole ``repr`` of a tensor, as ``tensor([1., 2.], requires_grad=True)``.

    A class derived outside gradlite prints under its own name.

    Shapes: any. Only the elements that are shown are copied from the device.
    """
    prefix = ("tensor" if _is_own_class(t) else type(t).__name__) + "("
    text = prefix + _contents(t.array, len(prefix))
    # PyTorch counts the elements' last line two characters longer than it is.
    column = len(text) - text.rfind("\n") + 1
    for note in _notes(t):
        # Lines break where PyTorch's do, and in dtypes its name is shorter than gradlite's.
        length = len(note.replace("gradlite.", "torch."))
        if column + length + 2 > _options.linewidth:
            text += ",\n" + " " * len(prefix) + note
            column = len(prefix) + length
        else:
            text += ", " + note
            column += length + 2
    return text + ")"


def parameter_str(t: Any) -> str:
    """The ``repr`` of a ``Parameter``: the tensor's text under a heading.

    A class derived from Parameter outside gradlite is wrapped once more, as in PyTorch:
    ``Parameter(MyParameter([1.], requires_grad=True))``.
    """
    text = tensor_str(t)
    if not _is_own_class(t):
        text = f"Parameter({text})"
    return "Parameter containing:\n" + text


def format_tensor(t: Any, spec: str) -> str:
    """What ``format(t, spec)`` and f-strings show.

    A 0-d tensor formats as the Python number it holds, so ``f"{loss:.3f}"`` works. Other
    tensors, and subclasses such as Parameter, give their ``str`` for the empty ``spec``.

    Raises:
        TypeError: a ``spec`` for a tensor that has dimensions, or for a subclass.
        ValueError: a ``spec`` that the number does not understand.
    """
    if t.array.ndim == 0 and _is_own_class(t) and type(t).__name__ == "Tensor":
        return format(t.array.item(), spec)
    return object.__format__(t, spec)


def _is_own_class(t: Any) -> bool:
    return type(t).__module__.partition(".")[0] == "gradlite"


def _notes(t: Any) -> Iterator[str]:
    """What follows the elements: each part of the text that PyTorch never splits."""
    if t.device.type != "cpu":
        yield f"device='{t.device}'"
    shape, empty = tuple(t.array.shape), t.array.size == 0
    # Also where the elements do show, as for a short tensor under edgeitems=0.
    if len(shape) != 1 if empty else _options.edgeitems == 0:
        yield f"size={shape}"
    default = dtypes.get_default_dtype()
    # Digits without a point or the words True and False tell the type; an empty list cannot.
    evident = (default,) if empty else (default, dtypes.int64, dtypes.bool)
    if t.dtype not in evident:
        yield f"dtype={t.dtype!r}"
    try:
        node = t.grad_fn
        name = None if node is None else node.name()
    except RuntimeError:
        # A view whose history an in-place write made ambiguous still has to print.
        name = "Invalid"
    if name is not None:
        yield f"grad_fn=<{name}>"
    elif t.requires_grad:
        yield "requires_grad=True"


def _contents(array: Any, indent: int) -> str:
    """The elements in their brackets."""
    if array.size == 0:
        return "[]"
    elide = array.size > _options.threshold
    if elide and array.ndim and _options.edgeitems == 0:
        return "[...]"
    shown, gaps = _shown(array, elide)
    texts, width = _texts(shown)
    return _Layout(texts, width, shown.shape, gaps).nested(0, indent)


def _shown(array: Any, elide: bool) -> tuple[np.ndarray, list[int | None]]:
    """The elements to show, on the host, and where each axis left some out."""
    gaps: list[int | None] = [None] * array.ndim
    if elide:
        edge = _options.edgeitems
        # The longest axis first: the later, smaller copies are then of few elements.
        for axis in sorted(range(array.ndim), key=lambda axis: -array.shape[axis]):
            places = range(array.shape[axis])
            if len(places) > 2 * edge:
                head, tail = places[:edge], places[-edge:]
                array = array[(slice(None),) * axis + ([*head, *tail],)]
                gaps[axis] = len(head)
    return (array if isinstance(array, np.ndarray) else array.get()), gaps


def _texts(shown: np.ndarray) -> tuple[list[str], int]:
    """Each element's text, padded on the left to the width that is returned beside them."""
    if shown.dtype in dtypes.FLOATING:
        texts, width = _float_texts(shown.astype(np.float64).ravel())
    else:
        texts = [str(value) for value in shown.ravel().tolist()]
        width = max(map(len, texts))
    return [text.rjust(width) for text in texts], width


def _float_texts(values: np.ndarray) -> tuple[list[str], int]:
    """The texts in one notation for all, chosen by the finite values other than zero."""
    telling = np.isfinite(values) & (values != 0)
    magnitudes = np.abs(values[telling])
    integral = bool((magnitudes == np.ceil(magnitudes)).all())
    if magnitudes.size == 0:
        scientific = False  # whatever sci_mode says
    elif _options.sci_mode is not None:
        scientific = _options.sci_mode
    else:
        largest, smallest = float(magnitudes.max()), float(magnitudes.min())
        scientific = (
            largest / smallest > 1000 or largest > 1e8 or (not integral and smallest < 1e-4)
        )
    if scientific:
        texts = [f"{value:.{_options.precision}e}" for value in values.tolist()]
    elif integral:
        texts = [f"{v:.0f}." if math.isfinite(v) else str(v) for v in values.tolist()]
    else:
        texts = [f"{value:.{_options.precision}f}" for value in values.tolist()]
    # Zeros, nan and inf do not widen the column, even where they are longer than the rest.
    width = max((len(texts[i]) for i in np.flatnonzero(telling)), default=1)
    return texts, width


class _Layout:
    """Nested brackets around texts of equal width, ``...`` at the gaps."""

    def __init__(
        self, texts: list[str], width: int, shape: tuple[int, ...], gaps: list[int | None]
    ) -> None:
        self.texts = iter(texts)
        self.width = width
        self.shape = shape
        self.gaps = gaps

    def nested(self, axis: int, indent: int) -> str:
        """The text of the next block that spans the axes from ``axis`` on."""
        depth = len(self.shape) - axis
        if depth == 0:
            return next(self.texts)
        blocks = [self.nested(axis + 1, indent + 1) for _ in range(self.shape[axis])]
        gap = self.gaps[axis]
        if gap is not None:
            blocks.insert(gap, " ..." if depth == 1 else "...")
        margin = " " * (indent + 1)
        if depth > 1:
            return "[" + ("," + "\n" * (depth - 1) + margin).join(blocks) + "]"
        per_line = max(1, math.floor((_options.linewidth - indent) / (self.width + 2)))
        lines = [
            ", ".join(blocks[start : start + per_line]) for start in range(0, len(blocks), per_line)
        ]
        return "[" + (",\n" + margin).join(lines) + "]"
