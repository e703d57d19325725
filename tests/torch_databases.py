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

import gradlite

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


class AbsentError(Exception):
    """An argument of what gradlite has not: complex numbers, sparse tensors."""


class Translation:
    """Arguments for gradlite, made of those for PyTorch; what is one object stays one object.

    Tensors have memory of their own, unless they are to share PyTorch's (``copies=False``).
    """

    def __init__(self, copies: bool = True) -> None:
        self._copies = copies
        self._known: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return type(value)(self(item) for item in value)
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if id(value) not in self._known:
            self._known[id(value)] = value, self._translated(value)
        return self._known[id(value)][1]

    def _translated(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return self._tensor(value)
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            name = str(value).rpartition(".")[2]
            if not hasattr(gradlite, name):
                raise AbsentError(str(value))
            return getattr(gradlite, name)
        if isinstance(value, torch.device):
            return gradlite.device(str(value))
        if isinstance(value, (complex, torch.Generator)):
            raise AbsentError(type(value).__name__)
        if isinstance(value, torch.nn.TransformerEncoderLayer):
            return self._encoder_layer(value)
        if isinstance(value, torch.nn.Module):
            return getattr(gradlite.nn, type(value).__name__)()
        name = getattr(value, "__name__", "")
        for theirs, ours in (
            (torch.nn.functional, gradlite.nn.functional),
            (torch, gradlite),
        ):
            if name and getattr(theirs, name, None) is value:
                return getattr(ours, name)
        return value

    def _tensor(self, value: Any) -> Any:
        if value.is_complex() or value.layout is not torch.strided or value.is_meta:
            raise AbsentError(f"a tensor of {value.dtype}, {value.layout}, {value.device}")
        plain = value.detach()
        if value.dtype is torch.bfloat16:
            made = gradlite.from_numpy(plain.view(torch.int16).numpy()).view(gradlite.bfloat16)
        else:
            made = gradlite.from_numpy(plain.numpy())
        # On memory of its own, except where elements share theirs.
        shared = any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape))
        if self._copies and not shared:
            made = made.clone()
        if isinstance(value, torch.nn.Parameter):
            return gradlite.nn.Parameter(made, requires_grad=value.requires_grad)
        return made.requires_grad_(value.requires_grad)

    def _encoder_layer(self, value: Any) -> Any:
        made = gradlite.nn.TransformerEncoderLayer(
            value.linear1.in_features,
            value.self_attn.num_heads,
            value.linear1.out_features,
            value.dropout.p,
            self(value.activation),
            value.norm1.eps,
            value.self_attn.batch_first,
            value.norm_first,
            bias=value.linear1.bias is not None,
            dtype=self(value.linear1.weight.dtype),
        )
        made.load_state_dict(self(dict(value.state_dict())))
        return made
