"""PyTorch's own tables of ops, modules and optimizers, as data: what it feeds to its own tests.

They come with the installed PyTorch: nothing of them is kept here. Loading them takes seconds, so
they are functions, and a test asks for them while it runs, not while tests are collected.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import sys
import types
import unittest
import warnings
from typing import Any
from unittest import mock

import pytest

torch = pytest.importorskip("torch")


@functools.cache
def _internal(name: str) -> Any:
    """A module of ``torch.testing._internal``, without what importing it changes elsewhere.

    These modules import the package ``expecttest`` to derive a class of tests from it, which
    nobody runs here: where it is not installed, an empty one stands in for it.
    """
    found = {}
    if "expecttest" not in sys.modules and importlib.util.find_spec("expecttest") is None:
        stub = types.ModuleType("expecttest")
        stub.TestCase = unittest.TestCase  # type: ignore[attr-defined]
        found["expecttest"] = stub
    frozen = mock.patch.object(torch.backends, "disable_global_flags", lambda: None)
    with frozen, mock.patch.dict(os.environ), warnings.catch_warnings():
        try:
            # Not with mock.patch.dict, which would forget every module that is imported meanwhile.
            sys.modules.update(found)
            return importlib.import_module(f"torch.testing._internal.{name}")
        except ImportError as error:
            pytest.skip(f"PyTorch's tables cannot be loaded: {error}")
        finally:
            for module in found:
                del sys.modules[module]


def op_db() -> list[Any]:
    """An ``OpInfo`` of every op: sample inputs, inputs that must be refused, dtypes, variants."""
    return _internal("common_methods_invocations").op_db  # type: ignore[no-any-return]


def module_db() -> list[Any]:
    """A ``ModuleInfo`` of every layer: arguments of the constructor and of the call."""
    return _internal("common_modules").module_db  # type: ignore[no-any-return]


def optim_db() -> list[Any]:
    """An ``OptimizerInfo`` of every optimizer: its options, and those that must be refused."""
    return _internal("common_optimizers").optim_db  # type: ignore[no-any-return]
