"""The table of ops: `public` enters what users call into `TABLE`.

The table drives the generic tests, the Tensor methods and the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gradlite.ops import casting
from gradlite.ops.inplace import composed_inplace_method, inplace_method
from gradlite.tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass
class Sample:
    """Arguments to try an op with: arrays stand for tensors (floating ones require grad)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-9
    smooth: bool = True  # False at a kink or jump, which no finite difference can cross


@dataclass
class Entry:
    """One public op: what users call, and what the generic tests need to know of it."""

    name: str
    function: Callable[..., Any]
    samples: Callable[[], Iterable[Sample]]
    torch: str
    method: bool
    inplace: bool
    differentiable: bool
    errors: Callable[[], Iterable[Sample]]


TABLE: dict[str, Entry] = {}


def public(
    samples: Callable[[], Iterable[Sample]],
    *,
    torch: str | None = None,
    method: bool | str = False,
    inplace: bool | str | Callable[..., bool] = False,
    differentiable: bool = True,
    errors: Callable[[], Iterable[Sample]] = tuple,
    autocast: casting.Policy = "",
) -> Callable[[Function], Function]:
    """Enter a public function into the table.

    Args:
        samples: calls to try it with, in the generic tests.
        torch: PyTorch's name for it below ``torch.``; by default the same name, looked for
            in ``torch`` and then in ``torch.nn.functional``; "" when it has none.
        method: also make it a Tensor method (of another name, when a string).
        inplace: also make the method with an underscore; "composed" when the function consists
            of several ops; or what lets a kernel write over an array of a GPU (`inplace_method`).
        differentiable: whether its float inputs get gradients.
        errors: calls that PyTorch refuses, and so must we, with the same exception type.
        autocast: how its operands are cast under autocast; see `gradlite.ops.casting`. Methods
            with an underscore are not cast.
    """

    def enter(function: Function) -> Function:
        name, raw = function.__name__, function
        if autocast:
            function = casting.under(autocast, raw)
        TABLE[name] = Entry(
            name,
            function,
            samples,
            name if torch is None else torch,
            bool(method),
            bool(inplace),
            differentiable,
            errors,
        )
        if method:
            setattr(Tensor, method if isinstance(method, str) else name, function)
        if inplace:
            if inplace == "composed":
                edit = composed_inplace_method(raw, f"{name}_")
            else:
                edit = inplace_method(raw, f"{name}_", inplace if callable(inplace) else None)
            setattr(Tensor, f"{name}_", edit)
        return function

    return enter
