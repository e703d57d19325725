"""The precision of float32 products: names, switch and warnings as in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.library import T

matmul: Any = T.backends.cuda.matmul


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    assert T.get_float32_matmul_precision() == "highest"
    yield
    T.set_float32_matmul_precision("highest")


@pytest.mark.parametrize(
    ("choice", "allowed"), [("high", True), ("medium", True), ("highest", False)]
)
def test_the_precision_switches_tf32(choice: str, allowed: bool) -> None:
    T.set_float32_matmul_precision(choice)
    assert T.get_float32_matmul_precision() == choice
    assert matmul.allow_tf32 is allowed


def test_tf32_switches_the_precision() -> None:
    matmul.allow_tf32 = True
    assert T.get_float32_matmul_precision() == "high" and matmul.allow_tf32 is True
    matmul.allow_tf32 = False
    assert T.get_float32_matmul_precision() == "highest" and matmul.allow_tf32 is False


def test_an_unknown_precision_is_warned_about_and_ignored() -> None:
    with pytest.warns(UserWarning, match="low is not one of 'highest', 'high', or 'medium'"):
        T.set_float32_matmul_precision("low")
    assert T.get_float32_matmul_precision() == "highest"


@pytest.mark.parametrize("value", [3, None])
def test_a_precision_is_a_string(value: Any) -> None:
    message = f"set_float32_matmul_precision expects a str, but got {type(value).__name__}"
    with pytest.raises(RuntimeError, match=message):
        T.set_float32_matmul_precision(value)


@pytest.mark.parametrize("value", [1, "x"])
def test_allow_tf32_is_a_bool(value: Any) -> None:
    message = f"set_allow_tf32_cublas expects a bool, but got {type(value).__name__}"
    with pytest.raises(RuntimeError, match=message):
        matmul.allow_tf32 = value


def test_other_switches_do_not_exist() -> None:
    with pytest.raises(AttributeError):
        matmul.nope = True


@pytest.mark.parametrize(
    ("precision", "allowed"), [("tf32", True), ("ieee", False), ("none", False)]
)
def test_the_newer_name(precision: str, allowed: bool) -> None:
    assert matmul.fp32_precision == "none"
    matmul.fp32_precision = precision
    assert matmul.fp32_precision == precision and matmul.allow_tf32 is allowed
    matmul.fp32_precision = "none"


@pytest.mark.parametrize("precision", ["bf16", "x"])
def test_an_unknown_newer_name_is_an_error(precision: str) -> None:
    with pytest.raises(RuntimeError, match=f"precision.*{precision}"):
        matmul.fp32_precision = precision
