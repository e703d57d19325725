"""Attention and its gradients as calls of the functions in attention.hpp."""

from __future__ import annotations

from collections.abc import Sequence

from gradlite.capturing.native.convolution import pointer, usable
from gradlite.capturing.native.loops import Place


def attend(
    q: Place, k: Place, v: Place, strips: Place, out: Place, causal: bool, scale: float,
    mask: Place | None = None,
) -> list[str] | None:  # fmt: skip
    """The text of ``out = softmax(scale q kᵀ + mask) v``."""
    hidden, more = "Mask{}", []
    if mask is not None:
        if mask.dtype.name not in ("bool", "float32"):
            return None
        more = [f"  const i64 of_mask[] = {_numbers(mask.strides)};"]
        item = mask.dtype.itemsize
        hidden = f"Mask{{Stack{{P[{mask.base}] + {mask.offset}, of_mask}}, {item}}}"
    return _called("attend", [q, k, v], strips, [out], causal, scale, 3, more, [hidden])


def gradients(
    grad: Place, q: Place, k: Place, v: Place, strips: Place, dq: Place | None, dk: Place | None,
    dv: Place | None, causal: bool, scale: float,
) -> list[str] | None:  # fmt: skip
    """The text of the gradients that are wanted."""
    return _called("attention_gradients", [grad, q, k, v], strips, [dq, dk, dv], causal, scale, 4)


def _called(
    function: str, read: Sequence[Place], strips: Place, written: Sequence[Place | None],
    causal: bool, scale: float, last: int, more: Sequence[str] = (), others: Sequence[str] = (),
) -> list[str] | None:  # fmt: skip
    q, k, v = read[last - 3 : last]
    if not usable(*read, strips, *(p for p in written if p is not None)):
        return None
    *counts, queries, size = q.shape
    sizes = queries, k.shape[-2], size, v.shape[-1]
    head = f"{len(counts)}, counts, {', '.join(map(str, sizes))}, {str(causal).lower()}, {scale!r}"
    lines = [f"{{ // {function} of {q.shape}", f"  const i64 counts[] = {_numbers(counts)};"]
    stacks: list[str] = []
    for number, place in enumerate((*read, *written)):
        if place is None:
            stacks.append("Stack{nullptr, nullptr}")
            continue
        lines.append(f"  const i64 of_{number}[] = {_numbers(place.strides)};")
        stacks.append(f"Stack{{P[{place.base}] + {place.offset}, of_{number}}}")
    stacks.insert(len(read), pointer(strips))
    arguments = ", ".join([f"Heads{{{head}}}", *stacks, *others])
    return [*lines, *more, f"  {function}({arguments});", "}"]


def _numbers(values: Sequence[int]) -> str:
    return f"{{{', '.join(map(str, values)) or '0'}}}"
