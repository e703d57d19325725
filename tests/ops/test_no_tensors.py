"""What is no Tensor where PyTorch wants one is refused in PyTorch's words, for every function."""

from __future__ import annotations

import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import arguments
from gradlite.ops.table import TABLE
from tests.ops.test_table import convert, samples_of
from tests.oracle import normalised, same, torch

SPACES = {
    "": (gradlite, torch),
    "linalg.": (gradlite.linalg, torch.linalg),
    "special.": (gradlite.special, torch.special),
    "nn.functional.": (gradlite.nn.functional, torch.nn.functional),
}
FUNCTIONS = sorted(
    space + name
    for space, (ours, theirs) in SPACES.items()
    for name in vars(ours)
    if name in TABLE and hasattr(theirs, name) and hasattr(getattr(ours, name), "__wrapped__")
    if space != "nn.functional." or name in arguments.OF_LAYERS
    if name not in arguments.IN_PYTHON or space
)
WRONG = {"a number": 3, "a string": "abc", "None": None, "an array": np.ones(2), "a list": [1.0]}

OTHER_NAME = "PyTorch's message calls the argument otherwise than its documentation does"
SIGNATURES = "PyTorch has several signatures, and lists them"
KNOWN = {
    "cholesky": OTHER_NAME,
    "cholesky_inverse": OTHER_NAME,
    "cholesky_solve": OTHER_NAME,
    "det": OTHER_NAME,
    "linalg.cholesky": OTHER_NAME,
    "linalg.cholesky_ex": OTHER_NAME,
    "linalg.cond": OTHER_NAME,
    "linalg.eigh": OTHER_NAME,
    "linalg.eigvalsh": OTHER_NAME,
    "linalg.lstsq": OTHER_NAME,
    "linalg.matrix_exp": OTHER_NAME,
    "linalg.matrix_norm": OTHER_NAME,
    "linalg.matrix_rank": SIGNATURES,
    "linalg.norm": OTHER_NAME,
    "linalg.pinv": SIGNATURES,
    "linalg.solve_triangular": OTHER_NAME,
    "linalg.tensorinv": OTHER_NAME,
    "linalg.tensorsolve": OTHER_NAME,
    "linalg.vector_norm": OTHER_NAME,
    "matrix_exp": OTHER_NAME,
    "slogdet": OTHER_NAME,
    "nn.functional.ctc_loss": "lists are taken as lengths",
}
ABOUT_ARGUMENTS = re.compile(
    "must be Tensor, not|received an invalid combination|expected Tensor as element"
)


def raised(function: Any, args: list[Any], kwargs: dict[str, Any]) -> Any:
    try:
        function(*args, **kwargs)
    except Exception as error:
        return type(error).__name__, normalised(error).partition("\n")[0]
    return None


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.xfail(reason=KNOWN[name], strict=True))
        if name in KNOWN
        else name
        for name in FUNCTIONS
    ],
)
def test_what_is_no_tensor_is_refused(name: str) -> None:
    space, _, short = name.rpartition(".")
    ours, theirs = (getattr(lib, short) for lib in SPACES[space + "." if space else ""])
    sample = samples_of(short)[0]
    kwargs = [
        {key: convert(value, make) for key, value in sample.kwargs.items()}
        for make in (ours_of, theirs_of)
    ]
    for place, given in enumerate(sample.args):
        if not isinstance(given, np.ndarray):
            continue
        for what, wrong in WRONG.items():
            args = [
                [
                    *convert(sample.args[:place], make),
                    wrong,
                    *convert(sample.args[place + 1 :], make),
                ]
                for make in (ours_of, theirs_of)
            ]
            expected = raised(theirs, args[1], kwargs[1])
            if expected is None or not ABOUT_ARGUMENTS.search(expected[1]):
                continue  # PyTorch takes it too, or fails in Python code that is given it
            found = raised(ours, args[0], kwargs[0])
            assert found is not None, f"{what} as argument {place} is taken"
            assert found[0] == expected[0], f"{what} as argument {place}: {found[1]}"
            # The functions of layers hand on more than they are given.
            cut = " - got" if space == "nn.functional" else "\n"
            ours_says, theirs_says = (text[1].partition(cut)[0] for text in (found, expected))
            assert ours_says == theirs_says, f"{what} as argument {place}"


def ours_of(array: np.ndarray) -> Any:
    return gradlite.tensor(np.asarray(array))


def theirs_of(array: np.ndarray) -> Any:
    return torch.tensor(np.asarray(array))


@pytest.mark.parametrize("name", ["relu", "exp", "greater", "softmax", "linalg.inv"])
def test_functions_of_namespaces_can_be_pickled(name: str) -> None:
    function = gradlite
    for part in name.split("."):
        function = getattr(function, part)
    assert pickle.loads(pickle.dumps(function)) is function
    assert inspect.signature(function) == inspect.signature(function.__wrapped__)


def test_arguments_by_name_are_refused_by_their_places() -> None:
    same(
        lambda lib: lib.gather(input=lib.ones(2), dim=0, index=3),
        raises=TypeError,
        match="argument 'index' must be Tensor|position 3",
        message="type",
    )


def test_an_error_about_something_else_stays_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="size of tensor a"):
        gradlite.maximum(gradlite.ones(2), gradlite.ones(3))
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        gradlite.gather(gradlite.ones(2), 0)  # type: ignore[call-arg]
