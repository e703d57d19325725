"""Whether two results are close: PyTorch's tolerances, checks and messages."""

from __future__ import annotations

import cmath
import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from gradlite import dtypes
from gradlite.grad_mode import no_grad
from gradlite.ops.creation import as_tensor, tensor
from gradlite.ops.truth import isclose
from gradlite.tensor import Tensor

Message = str | Callable[[str], str] | None
Place = tuple[Any, ...]
Compared = tuple[Any, Any, float, float, Place]  # actual, expected, rtol, atol and where they are

_TOLERANCES = {  # relative and absolute; whole numbers and bools must be equal
    dtypes.float16: (1e-3, 1e-5),
    dtypes.bfloat16: (1.6e-2, 1e-5),
    dtypes.float32: (1.3e-6, 1e-5),
    dtypes.float64: (1e-7, 1e-7),
}
_OLD_TOLERANCES = {
    dtypes.float16: (1e-3, 1e-3),
    dtypes.float32: (1e-4, 1e-5),
    dtypes.float64: (1e-5, 1e-8),
}
_NUMBERS: dict[type, Any] = {int: dtypes.int64, float: dtypes.float64, complex: dtypes.float64}


class _MismatchError(Exception):
    """An error to be, before the caller's message has its say."""

    def __init__(self, kind: type[Exception], message: str, place: Place) -> None:
        super().__init__(message)
        self.kind, self.message = kind, message
        if place:
            where = "".join(f"[{key!r}]" for key in place)
            self.message += f"\n\nThe failure occurred for item {where}"

    def error(self, message: Message) -> Exception:
        if isinstance(message, str):
            return self.kind(message)
        return self.kind(self.message if message is None else message(self.message))


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: str | Callable[[str], str] | None = None,
) -> None:
    """Raise unless ``|actual - expected| <= atol + rtol * |expected|`` everywhere.

    Args:
        actual, expected: tensors of one shape, anything that `as_tensor` takes, numbers, bools or
            None, or sequences and mappings of these, nested at will, with as many items or the
            same keys.
        allow_subclasses: let a Parameter be compared with a Tensor.
        rtol, atol: give both or neither. By default float16 has 1e-3 and 1e-5, bfloat16 1.6e-2 and
            1e-5, float32 1.3e-6 and 1e-5, float64 (and Python's numbers) 1e-7 and 1e-7, all else
            zeros; of two dtypes the larger.
        equal_nan: let NaN be close to NaN.
        check_device, check_dtype, check_stride: compare these too; without the checks tensors are
            brought to the CPU and to one dtype.
        check_layout: every tensor here is strided, so that this holds.
        msg: the error's message, or a function of the one that would be.

    >>> import gradlite
    >>> gradlite.testing.assert_close(gradlite.tensor([1.0, 2.0]), gradlite.tensor([1.0, 2.000001]))
    >>> gradlite.testing.assert_close(gradlite.tensor([1.0, 2.0]), gradlite.tensor([1.0, 3.0]))
    Traceback (most recent call last):
    AssertionError: Tensor-likes are not close!
    <BLANKLINE>
    Mismatched elements: 1 / 2 (50.0%)
    Greatest absolute difference: 1.0 at index (1,) (up to 1e-05 allowed)
    Greatest relative difference: 0.3333333432674408 at index (1,) (up to 1.3e-06 allowed)

    Raises:
        AssertionError: they are not close, or differ in what else is compared.
        TypeError: the two are of unrelated types.
        ValueError: only one of ``rtol`` and ``atol`` is given.
    """
    __tracebackhide__ = True  # pytest shows the test instead
    try:
        pairs = list(_pairs(actual, expected, (), allow_subclasses, rtol, atol))
    except _MismatchError as failure:
        raise failure.error(None) from None  # nothing to compare, whatever the caller would say
    try:
        for pair in pairs:
            _compare(pair, equal_nan, check_device, check_dtype, check_stride)
    except _MismatchError as failure:
        raise failure.error(msg) from None


def assert_allclose(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = True,
    msg: str = "",
) -> None:
    """Deprecated as in PyTorch: `assert_close` with wider tolerances and without a check of dtypes.

    Args:
        actual, expected: tensors, or what `tensor` makes one of.
        rtol, atol: by default 1e-3 and 1e-3 for float16, 1e-4 and 1e-5 for float32, 1e-5 and 1e-8
            for float64.
        equal_nan: let NaN be close to NaN.
        msg: the error's message.

    >>> import gradlite, warnings
    >>> with warnings.catch_warnings(action="ignore"):
    ...     gradlite.testing.assert_allclose(gradlite.ones(2), [1.0, 1.00001])
    """
    __tracebackhide__ = True
    warnings.warn(
        "`gradlite.testing.assert_allclose()` is deprecated since 1.12 and will be removed in a "
        "future release. Please use `gradlite.testing.assert_close()` instead. You can find "
        "detailed upgrade instructions in https://github.com/pytorch/pytorch/issues/61844.",
        FutureWarning,
        stacklevel=2,
    )
    if not isinstance(actual, Tensor):
        actual = tensor(actual)
    if not isinstance(expected, Tensor):
        expected = tensor(expected, dtype=actual.dtype)
    if rtol is None and atol is None:
        both = [_OLD_TOLERANCES.get(t.dtype, (0.0, 0.0)) for t in (actual, expected)]
        rtol, atol = (max(pair) for pair in zip(*both))
    assert_close(
        actual,
        expected,
        rtol=rtol,
        atol=atol,
        equal_nan=equal_nan,
        check_dtype=False,
        msg=msg or None,
    )


# ------------------------------------------------------------- what is compared with what
def _pairs(
    actual: Any,
    expected: Any,
    place: Place,
    subclasses: bool,
    rtol: float | None,
    atol: float | None,
) -> Iterator[Compared]:
    """The single values in both, side by side."""
    rest = subclasses, rtol, atol
    if _is_sequence(actual) and _is_sequence(expected):
        if len(actual) != len(expected):
            message = "The length of the sequences mismatch: "
            raise _MismatchError(
                AssertionError, f"{message}{len(actual)} != {len(expected)}", place
            )
        for i in range(len(actual)):
            yield from _pairs(actual[i], expected[i], (*place, i), *rest)
    elif isinstance(actual, Mapping) and isinstance(expected, Mapping):
        ours, theirs = set(actual), set(expected)
        if ours != theirs:
            raise _MismatchError(
                AssertionError,
                "The keys of the mappings do not match:\n"
                f"Missing keys in the actual mapping: {sorted(theirs - ours)}\n"
                f"Additional keys in the actual mapping: {sorted(ours - theirs)}",
                place,
            )
        keys = list(ours)
        with contextlib.suppress(TypeError):  # keys that have no order
            keys.sort()
        for key in keys:
            yield from _pairs(actual[key], expected[key], (*place, key), *rest)
    else:
        yield _pair(actual, expected, place, *rest)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _pair(
    actual: Any,
    expected: Any,
    place: Place,
    subclasses: bool,
    rtol: float | None,
    atol: float | None,
) -> Compared:
    kinds = type(actual), type(expected)
    if actual is None or expected is None:
        return actual, expected, 0.0, 0.0, place
    if isinstance(actual, (bool, np.bool_)) and isinstance(expected, (bool, np.bool_)):
        return bool(actual), bool(expected), 0.0, 0.0, place
    actual, expected = (v.item() if isinstance(v, np.number) else v for v in (actual, expected))
    if type(actual) in _NUMBERS and type(expected) in _NUMBERS:
        of = _NUMBERS[type(actual)], _NUMBERS[type(expected)]
        return actual, expected, *_tolerances(*of, rtol, atol, place), place
    related = isinstance(actual, type(expected)) or isinstance(expected, type(actual))
    if related and (subclasses or kinds[0] is kinds[1]):
        a, b = _as_tensor(actual), _as_tensor(expected)
        if a is not None and b is not None:
            return a, b, *_tolerances(a.dtype, b.dtype, rtol, atol, place), place
    raise _MismatchError(
        TypeError,
        f"No comparison pair was able to handle inputs of type {kinds[0]} and {kinds[1]}.",
        place,
    )


def _as_tensor(value: Any) -> Tensor | None:
    if isinstance(value, Tensor):
        return value
    try:
        return as_tensor(value)
    except (TypeError, ValueError, RuntimeError):
        return None


def _tolerances(
    a: Any, b: Any, rtol: float | None, atol: float | None, place: Place
) -> tuple[float, float]:
    if rtol is not None and atol is not None:
        return rtol, atol
    if rtol is not None or atol is not None:
        raise _MismatchError(
            ValueError,
            "Both 'rtol' and 'atol' must be either specified or omitted, but got no "
            + ("rtol." if rtol is None else "atol."),
            place,
        )
    (rtol_a, atol_a), (rtol_b, atol_b) = (_TOLERANCES.get(d, (0.0, 0.0)) for d in (a, b))
    return max(rtol_a, rtol_b), max(atol_a, atol_b)


# ------------------------------------------------------------------------------ comparing
def _compare(
    pair: Compared, equal_nan: bool, check_device: bool, check_dtype: bool, check_stride: bool
) -> None:
    actual, expected, rtol, atol, place = pair

    def fail(message: str) -> NoReturn:
        raise _MismatchError(AssertionError, message, place)

    if isinstance(actual, Tensor):
        checks = [("shape", True), ("stride()", check_stride)]
        checks += [("device", check_device), ("dtype", check_dtype)]
        for name, checked in checks:
            values = [getattr(t, name.removesuffix("()")) for t in (actual, expected)]
            a, b = (value() if name.endswith("()") else value for value in values)
            if checked and a != b:
                fail(f"The values for attribute '{name}' do not match: {a} != {b}.")
        _compare_tensors(actual, expected, rtol, atol, equal_nan, fail)
    elif actual is None or expected is None:
        if actual is not expected:
            fail(f"None mismatch: {actual} is not {expected}")
    elif isinstance(actual, bool):
        if actual is not expected:
            fail(f"Booleans mismatch: {actual} is not {expected}")
    else:
        if check_dtype and type(actual) is not type(expected):
            fail(f"The (d)types do not match: {type(actual)} != {type(expected)}.")
        if actual == expected or equal_nan and cmath.isnan(actual) and cmath.isnan(expected):
            return
        difference = abs(actual - expected)
        if not (cmath.isfinite(difference) and difference <= atol + rtol * abs(expected)):
            fail(_scalars(actual, expected, rtol, atol))


def _compare_tensors(
    actual: Tensor,
    expected: Tensor,
    rtol: float,
    atol: float,
    equal_nan: bool,
    fail: Callable[[str], NoReturn],
) -> None:
    a, b = actual.detach(), expected.detach()  # type: ignore[attr-defined]
    if a.device != b.device:
        a, b = a.cpu(), b.cpu()
    if a.dtype != b.dtype:
        dtype = dtypes.promote_types(a.dtype, b.dtype)
        a, b = a.to(dtype), b.to(dtype)
    matches = isclose(a, b, rtol, atol, equal_nan)
    if matches.all():  # type: ignore[attr-defined]
        return
    if not a.shape:
        fail(_scalars(a.item(), b.item(), rtol, atol))
    fail(_elements(a, b, matches, rtol, atol))


def _scalars(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    difference = abs(actual - expected)
    relative = float("inf") if expected == 0 else difference / abs(expected)
    return (
        _headline("Scalars", rtol, atol)
        + f"Expected {expected} but got {actual}.\n"
        + f"Absolute difference: {difference}{_allowed(atol, rtol, atol)}\n"
        + f"Relative difference: {relative}{_allowed(rtol, rtol, atol)}"
    )


def _elements(a: Any, b: Any, matches: Any, rtol: float, atol: float) -> str:
    count = matches.numel()
    wrong = count - int(matches.sum())
    with no_grad():
        if not a.dtype.is_floating_point:
            a, b = a.to(dtypes.int64), b.to(dtypes.int64)
        absolute = (a - b).abs().masked_fill(matches, 0)
        relative = (absolute / b.abs()).masked_fill(matches, 0)
    lines = [f"Mismatched elements: {wrong} / {count} ({wrong / count:.1%})"]
    for name, found, most in (("absolute", absolute, atol), ("relative", relative, rtol)):
        place = int(found.argmax())
        index = tuple(int(i) for i in np.unravel_index(place, tuple(a.shape)))
        value = found.flatten()[place].item()
        text = f"Greatest {name} difference: {value} at index {index}"
        lines.append(text + _allowed(most, rtol, atol))
    return _headline("Tensor-likes", rtol, atol) + "\n".join(lines)


def _headline(what: str, rtol: float, atol: float) -> str:
    return f"{what} are not {'equal' if rtol == 0 and atol == 0 else 'close'}!\n\n"


def _allowed(most: float, rtol: float, atol: float) -> str:
    return "" if rtol == 0 and atol == 0 else f" (up to {most} allowed)"
