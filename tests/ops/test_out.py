"""``out=`` of the functions that take it: against PyTorch, for every one of them."""

from __future__ import annotations

import inspect
import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.out import NAMES
from gradlite.ops.table import TABLE
from tests.ops.test_table import convert, samples_of

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

SPACES = {"": (gradlite, torch), "linalg.": (gradlite.linalg, torch.linalg),
          "special.": (gradlite.special, torch.special)}  # fmt: skip
TAKES = sorted(
    prefix + name
    for prefix, (mine, _) in SPACES.items()
    for name in vars(mine)
    if name in NAMES and hasattr(getattr(mine, name), "__wrapped__")
    if (prefix, name) not in (("", "det"), ("special.", "softmax"), ("special.", "log_softmax"))
)
DTYPES = "float32 float64 int64 bool".split()
# PyTorch asks more of the dtype here in some forms of the call, and less in others.
LENIENT = {
    "any", "cholesky", "clamp", "clamp_max", "clamp_min", "clip", "cumprod", "cumsum", "diff",
    "inner", "ldexp", "lerp", "matrix_power", "nansum",
}  # fmt: skip


def both(name: str) -> tuple[Any, Any]:
    prefix = name[: name.rfind(".") + 1]
    return tuple(getattr(space, name.removeprefix(prefix)) for space in SPACES[prefix])  # type: ignore[return-value]


def plain(array: np.ndarray) -> Any:
    return gradlite.tensor(array)


def plain_torch(array: np.ndarray) -> Any:
    return torch.tensor(np.asarray(array))


def calls(name: str) -> list[tuple[Any, Any]]:
    """Arguments for us and for PyTorch."""
    mine = inspect.unwrap(both(name)[0])
    for entry in TABLE.values():
        known = inspect.unwrap(entry.function)
        if known is mine or entry.torch == name:
            return [
                tuple(
                    (convert(s.args, make), convert(s.kwargs, make))
                    for make in (plain, plain_torch)
                )
                for s in samples_of(entry.name)
            ]  # type: ignore[misc]
    return []


def fresh(space: Any, likes: list[Any], first: str | None = None) -> list[Any]:
    """Empty tensors of the dtypes of PyTorch's results, or of another dtype in the first place."""
    names = [str(t.dtype).removeprefix("torch.") for t in likes]
    names[0] = first or names[0]
    return [space.empty(0, dtype=getattr(space, n)) for n in names]


@pytest.mark.filterwarnings("ignore:torch.(cholesky|ger) is deprecated")
@pytest.mark.parametrize("name", [n for n in TAKES if calls(n)])
def test_results_and_refused_dtypes_are_those_of_pytorch(name: str) -> None:
    mine, yours = both(name)
    compared = 0
    for (args, kwargs), (their_args, their_kwargs) in calls(name):
        try:
            expected = yours(*their_args, **their_kwargs)
        except (TypeError, RuntimeError):
            continue  # a form of the call that PyTorch has only as a method
        several = not isinstance(expected, torch.Tensor)
        likes = list(expected) if several else [expected]
        for first in (None, *DTYPES):
            ours, theirs = fresh(gradlite, likes, first), fresh(torch, likes, first)
            error: Any = None
            try:
                yours(*their_args, **their_kwargs, out=tuple(theirs) if several else theirs[0])
            except Exception as refused:
                error = refused
                if isinstance(refused, TypeError) and "can't be cast" not in str(refused):
                    continue  # takes no out in this form
            out = tuple(ours) if several else ours[0]
            if error is not None:
                if name.rpartition(".")[2] not in LENIENT:
                    with pytest.raises((RuntimeError, TypeError)):
                        mine(*args, **kwargs, out=out)
                continue
            result = mine(*args, **kwargs, out=out)
            if not several:
                assert result is out
            for a, b in zip(ours, theirs):
                assert a.dtype == getattr(gradlite, str(b.dtype).removeprefix("torch."))
                np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-6)
            compared += 1
    assert compared


def torch_takes_out(function: Any) -> bool:
    try:
        function(out=object())
    except TypeError as refused:
        return "unexpected keyword argument 'out'" not in str(refused)
    except Exception:
        return True
    return True


@pytest.mark.parametrize(
    "name", "zeros ones empty rand randn full arange eye linspace logspace randint randperm".split()
)
def test_new_tensors_are_made_in_the_dtype_of_out(name: str) -> None:
    arguments = {
        "full": ((2, 3), 7), "arange": (1, 5), "eye": (3,), "linspace": (0, 4, 5),
        "logspace": (0, 2, 3), "randint": (5, (2, 3)), "randperm": (6,),
    }.get(name, (2, 3))  # fmt: skip
    for dtype in ("float32", "float64"):
        out, reference = (s.empty(0, dtype=getattr(s, dtype)) for s in (gradlite, torch))
        assert getattr(gradlite, name)(*arguments, out=out) is out
        getattr(torch, name)(*arguments, out=reference)
        assert out.shape == tuple(reference.shape)
        assert out.dtype == getattr(gradlite, dtype)
        if not name.startswith("rand") and name != "empty":
            np.testing.assert_allclose(out.numpy(), reference.numpy())
    with pytest.raises(RuntimeError, match="dtype Double does not match dtype of out parameter"):
        getattr(gradlite, name)(*arguments, out=gradlite.empty(0), dtype=gradlite.float64)


def test_a_tensor_of_another_shape_is_resized_with_a_warning() -> None:
    out = gradlite.empty(3)
    with pytest.warns(UserWarning, match=r"was resized since it had shape \[3\]"):
        gradlite.add(gradlite.ones(2), 1, out=out)
    assert out.tolist() == [2.0, 2.0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gradlite.add(gradlite.ones(2), 1, out=gradlite.empty(0))


@pytest.mark.parametrize("name", ["arange", "linspace", "logspace"])
def test_rows_of_numbers_fill_a_tensor_of_their_size(name: str) -> None:
    arguments = (0, 6) if name == "arange" else (0, 5, 6)
    out, reference = gradlite.zeros(3, 4), torch.zeros(3, 4)
    getattr(gradlite, name)(*arguments, out=out[:, 1:3])
    getattr(torch, name)(*arguments, out=reference[:, 1:3])
    np.testing.assert_allclose(out.numpy(), reference.numpy(), rtol=1e-6)


def test_a_view_is_written_through_and_counted_as_an_edit() -> None:
    base = gradlite.zeros(2, 3)
    version = base._version
    gradlite.exp(gradlite.zeros(3), out=base[1])
    assert base.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert base._version == version + 1


def test_what_has_a_gradient_is_refused() -> None:
    x = gradlite.ones(2, requires_grad=True)
    message = (
        r"add\(\): functions with out=\.\.\. arguments don't support automatic differentiation"
    )
    for call in (
        lambda: gradlite.add(x, 1, out=gradlite.empty(2)),
        lambda: gradlite.add(gradlite.ones(2), 1, out=x),
    ):
        with pytest.raises(RuntimeError, match=message):
            call()
    with gradlite.no_grad():
        gradlite.add(gradlite.ones(2), 1, out=x)
    assert x.tolist() == [2.0, 2.0]
    assert x.is_leaf


def test_an_edit_of_a_saved_value_is_noticed() -> None:
    x = gradlite.ones(2, requires_grad=True)
    w = gradlite.ones(2)
    loss = (x * w).sum()
    gradlite.exp(gradlite.zeros(2), out=w)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_memory_that_is_read_or_written_twice_is_refused() -> None:
    x = gradlite.zeros(4)
    with pytest.raises(RuntimeError, match="some elements of the input tensor"):
        gradlite.add(x[1:], 1, out=x[:-1])
    with pytest.raises(RuntimeError, match="more than one element of the written-to tensor"):
        gradlite.add(gradlite.ones(3), 1, out=gradlite.ones(1).expand(3))
    gradlite.cumsum(gradlite.ones(4), 0, out=x)
    assert gradlite.exp(x, out=x) is x


def test_several_results_come_as_their_named_tuple() -> None:
    values, indices = gradlite.empty(0), gradlite.empty(0, dtype=gradlite.int64)
    x = gradlite.tensor([3.0, 1.0, 2.0])
    result = gradlite.sort(x, out=(values, indices))
    assert result.values is values
    assert result.indices is indices
    assert indices.tolist() == [1, 2, 0]
    with pytest.raises(TypeError, match="expected tuple of 2 elements but got 1"):
        gradlite.sort(x, out=(values,))
    with pytest.raises(RuntimeError, match="Expected out tensor to have dtype long int"):
        gradlite.sort(x, out=(values, gradlite.empty(3)))


def test_what_is_no_tensor_is_refused() -> None:
    for call in (
        lambda: gradlite.exp(gradlite.ones(2), out=3),
        lambda: gradlite.exp(gradlite.ones(2), out=(gradlite.empty(2),)),
        lambda: gradlite.max(gradlite.ones(2), 0, out=gradlite.empty(2)),
        lambda: gradlite.ones(2).exp(out=gradlite.empty(2)),
    ):
        with pytest.raises(TypeError):
            call()


def test_captured_steps_write_into_out() -> None:
    out = gradlite.zeros(3)
    x = gradlite.ones(3)
    step = gradlite.capture(lambda: gradlite.mul(x, 2, out=out))
    for k in range(6):
        x.fill_(k)
        step()
        assert out.tolist() == [2.0 * k] * 3


def test_vectors_are_normalized_in_place() -> None:
    for library in gradlite, torch:
        x, out = library.tensor([[3.0, 4.0], [0.0, 2.0]]), library.empty(0)
        assert library.nn.functional.normalize(x, dim=1, out=out) is out
        assert library.nn.functional.normalize(x, 1.0, 0, out=x) is x
        np.testing.assert_allclose(x.tolist(), [[1, 4 / 6], [0, 2 / 6]], rtol=1e-6)
        np.testing.assert_allclose(out.tolist(), [[0.6, 0.8], [0, 1]], rtol=1e-6)
        with pytest.raises(RuntimeError, match="can't be cast to"):
            library.nn.functional.normalize(x, out=x.long())
        with pytest.raises(RuntimeError, match="don't support automatic differentiation"):
            library.nn.functional.normalize(x.requires_grad_(), out=out)


@pytest.mark.parametrize("name", sorted(TABLE))
def test_none_is_forgotten(name: str) -> None:
    entry = TABLE[name]
    if not hasattr(torch, entry.torch) or not hasattr(gradlite, entry.torch):
        return
    function = getattr(torch, entry.torch)
    documented = "out=None" in (function.__doc__ or "").split("->")[0]
    if documented and torch_takes_out(function):
        assert hasattr(getattr(gradlite, entry.torch), "__wrapped__")
