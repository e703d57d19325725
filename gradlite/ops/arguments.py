"""What is no Tensor where one is needed: PyTorch's TypeError, which names the argument.

The functions of the namespaces that users see are wrapped (`take_arguments`), as for ``out``
(`gradlite.ops.out`, which asks `check_tensors` too): neither those that the package itself calls
nor the methods pay for it. Arguments are looked at when a call has failed; before it in the few
functions that would take anything (`ANYTHING`).
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from gradlite import random
from gradlite.tensor import Tensor

# PyTorch's own are written in Python: they fail wherever they first touch the argument.
IN_PYTHON = frozenset("norm split tensordot unravel_index".split())
# PyTorch has several signatures and lists them.
OVERLOADED = frozenset(
    """
    all any atleast_1d atleast_2d atleast_3d clamp conv1d conv2d conv3d ctc_loss dsplit fill
    histogram hsplit index_fill lerp masked_fill movedim nanquantile narrow quantile
    repeat_interleave scatter searchsorted std std_mean tensor_split var var_mean vsplit where
    """.split()
)
# Functions of numbers and arrays as well, for the operators; what must be a Tensor in PyTorch.
FIRST = frozenset(
    """
    clamp_max clamp_min copysign eq floor_divide fmod ge greater greater_equal gt le less
    less_equal lt ne not_equal rsub
    """.split()
)
EITHER = frozenset(
    """
    bitwise_and bitwise_left_shift bitwise_or bitwise_right_shift bitwise_xor bucketize float_power
    isin pow remainder searchsorted xlog1py xlogy
    """.split()
)
# Where a number does as well; PyTorch names the argument.
ARITHMETIC = frozenset("add div divide mul multiply sub subtract true_divide".split())
# These would compute with numbers, or hand on what they are given.
ANYTHING = frozenset(
    """
    addbmm addr alpha_dropout cosine_similarity dist fmax fmin gcd heaviside isclose kl_div lcm
    ldexp logical_and logical_or logical_xor nextafter pairwise_distance poisson_nll_loss
    soft_margin_loss square
    """.split()
)
OF_NUMBERS = FIRST | EITHER | ARITHMETIC | {"scatter", "where"}
OPERANDS = frozenset(
    "input other exponent elements test_elements boundaries sorted_sequence src self".split()
)
NUMBERS = (bool, int, float, np.number)
# Of several tensors, which may also be given in a list.
TAKES_LISTS = frozenset("atleast_1d atleast_2d atleast_3d meshgrid".split())
# The name that PyTorch's message has, where a function hands its arguments on.
NAMED = {
    "grid_sample": "grid_sampler",
    "logsigmoid": "log_sigmoid",
    "nll_loss": "nll_loss_nd",
    "unique": "_unique2",
}
LISTED = OVERLOADED | FIRST | EITHER
# Of ``nn.functional``, whose layers are called too often for more wrappers.
OF_LAYERS = frozenset(
    """
    alpha_dropout cosine_embedding_loss ctc_loss feature_alpha_dropout grid_sample
    hinge_embedding_loss kl_div max_unpool2d max_unpool3d multi_margin_loss multilabel_margin_loss
    nll_loss one_hot pairwise_distance poisson_nll_loss rrelu scaled_dot_product_attention
    soft_margin_loss triplet_margin_loss
    """.split()
)


def take_arguments(
    namespace: dict[str, Any], prefix: str = "", names: Iterable[str] | None = None
) -> None:
    """Let the functions of a namespace refuse what is no Tensor as PyTorch does.

    Args:
        namespace: its names and what they are.
        prefix: what PyTorch's messages put in front of the names.
        names: the functions; by default all.
    """
    for name in list(namespace.get("__all__", namespace)) if names is None else names:
        function = namespace[name]
        takes_out = hasattr(function, "takes_out")
        if not inspect.isfunction(function) or not (
            takes_out or function.__module__.startswith("gradlite.ops.")
        ):
            continue
        if name.startswith("_") or (name in IN_PYTHON and not prefix):
            continue
        if getattr(random, name, None) is function:  # the same function as the module's
            continue
        if name in ANYTHING or name in FIRST or name in EITHER:
            settle(_refusing_before(function, name, prefix), name, namespace)
        elif not takes_out:
            settle(_refusing(function, name, prefix), name, namespace)


def settle(function: Callable[..., Any], name: str, namespace: dict[str, Any]) -> None:
    """Put a function into a namespace, as one that is at home there: so it can be pickled."""
    function.__module__, function.__qualname__ = namespace["__name__"], name
    namespace[name] = function


def _first_kinds(function: Callable[..., Any], name: str) -> tuple[Any, ...]:
    """What the first arguments are in calls that need no closer look."""
    if name in FIRST or name in EITHER:
        return Tensor, (Tensor, *NUMBERS)
    kinds = [kind for key, kind in function.__annotations__.items() if key != "return"]
    return (Tensor,) * kinds.count("Tensor")


def _refusing(function: Callable[..., Any], name: str, prefix: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception:
            check_tensors(function, name, args, kwargs, prefix)
            raise

    return call


def _refusing_before(function: Callable[..., Any], name: str, prefix: str) -> Callable[..., Any]:
    kinds = _first_kinds(function, name)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if len(args) < len(kinds) or not all(map(isinstance, args, kinds)):
            check_tensors(function, name, args, kwargs, prefix)
        try:
            return function(*args, **kwargs)
        except Exception:
            check_tensors(function, name, args, kwargs, prefix)
            raise

    return call


def check_tensors(
    function: Callable[..., Any], name: str, args: Any, kwargs: Any, prefix: str = ""
) -> None:
    """TypeError where an argument that must be a Tensor is none."""
    if name in EITHER:
        first, second = (*args, *kwargs.values(), None, None)[:2]
        if not (isinstance(first, Tensor) or isinstance(second, Tensor)):
            raise TypeError(_combination(function, prefix + name, args, kwargs)) from None
    signature = _signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # said by the call itself
        return
    for position, (argument, parameter) in enumerate(signature.parameters.items(), 1):
        if argument not in given:
            continue
        value, annotation = given[argument], parameter.annotation
        if parameter.kind is parameter.VAR_POSITIONAL:
            if name in TAKES_LISTS and len(value) == 1 and isinstance(value[0], (list, tuple)):
                _check_elements(value[0], 0)
            elif name in OVERLOADED and not all(isinstance(v, Tensor) for v in value):
                raise TypeError(_combination(function, name, value, {})) from None
            elif argument in ("tensors", "operands"):
                _check_elements(value, position - 1)
            continue
        if annotation == "Sequence[Tensor]":
            if not isinstance(value, (list, tuple)):
                raise TypeError(must_be_tensor(prefix + name, argument, position, value, True))
            _check_elements(value, position - 1)
            continue
        needed = annotation in ("Tensor", "Tensor | None") or (name in FIRST and position == 1)
        if annotation == "Any" and name in OF_NUMBERS and argument in OPERANDS:
            needed = needed or not isinstance(value, NUMBERS)
        if not needed or isinstance(value, Tensor):
            continue
        if value is None and annotation == "Tensor | None":
            continue
        if name in LISTED:
            raise TypeError(_combination(function, prefix + name, args, kwargs)) from None
        raise TypeError(must_be_tensor(prefix + name, argument, position, value)) from None


def _check_elements(values: Any, argument: int) -> None:
    for place, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"expected Tensor as element {place} in argument {argument}, but got {_kind(value)}"
            ) from None


def must_be_tensor(
    name: str, argument: str, position: int, value: Any, several: bool = False
) -> str:
    """PyTorch's words for an argument that is no Tensor."""
    where = f"argument '{argument}' (position {position})"
    wanted = "tuple of Tensors" if several else "Tensor"
    return f"{NAMED.get(name, name)}(): {where} must be {wanted}, not {_kind(value)}"


@functools.cache
def _signature(function: Any) -> inspect.Signature:
    return inspect.signature(function)


def _combination(function: Any, name: str, args: Any, kwargs: Any) -> str:
    """PyTorch's words for arguments that fit none of several signatures, with the one here."""
    kinds = [_kind(value) for value in args]
    kinds += [f"{key}={_kind(value)}" for key, value in kwargs.items()]
    wanted = [
        f"{'Tensor' if parameter.annotation == 'Any' and not place else parameter.annotation} "
        f"{argument}"
        for place, (argument, parameter) in enumerate(_signature(function).parameters.items())
    ]
    return (
        f"{name}() received an invalid combination of arguments - got ({', '.join(kinds)}), but "
        f"expected one of:\n * ({', '.join(wanted)})\n"
    )


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return type(value).__name__
    module = value.__class__.__module__
    name = str(value.__class__.__name__)
    return name if module == "builtins" else f"{module}.{name}"
