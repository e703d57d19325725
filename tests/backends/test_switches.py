"""Switches that programs set at their start, and names that say what there is instead."""

from __future__ import annotations

from typing import Any

import pytest

import gradlite
from tests.oracle import torch

SWITCHES = ["allow_tf32", "benchmark", "deterministic", "enabled"]


def test_cudnn_switches_start_as_in_pytorch() -> None:
    ours, theirs = gradlite.backends.cudnn, torch.backends.cudnn
    assert [getattr(ours, n) for n in SWITCHES] == [getattr(theirs, n) for n in SWITCHES]
    assert not ours.is_available() and not ours.is_acceptable(gradlite.ones(1))


@pytest.mark.parametrize("library", [gradlite, torch], ids=["gradlite", "torch"])
def test_cudnn_flags_hold_in_a_region(library: Any) -> None:
    cudnn = library.backends.cudnn
    before = [getattr(cudnn, name) for name in SWITCHES]
    with pytest.raises(KeyError), cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
        assert [getattr(cudnn, name) for name in SWITCHES] == [False, True, False, True]
        raise KeyError
    assert [getattr(cudnn, name) for name in SWITCHES] == before


def test_built_for_cuda_means_that_cupy_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradlite.backends.cuda, "_has_cupy", lambda: False)
    assert not gradlite.backends.cuda.is_built()
    monkeypatch.setattr(gradlite.backends.cuda, "_has_cupy", lambda: True)
    assert gradlite.backends.cuda.is_built()


def test_programs_can_ask_for_other_processes() -> None:
    """As of a PyTorch that was built without them, and of one where no group has been made."""
    import gradlite.distributed as dist

    assert gradlite.distributed is dist
    assert not dist.is_available()
    assert dist.is_initialized() is torch.distributed.is_initialized() is False
    for name in dist.__all__:
        if name in ("init_process_group", "is_available", "is_initialized"):
            continue
        t = torch.ones(1)
        arguments = {"all_gather": ([t], t), "all_reduce": (t,), "broadcast": (t, 0)}
        arguments["reduce"] = arguments["broadcast"]
        with pytest.raises((AssertionError, ValueError)) as expected:
            getattr(torch.distributed, name)(*arguments.get(name, ()))
        with pytest.raises(expected.type) as ours:
            getattr(dist, name)(*arguments.get(name, ()))
        assert str(ours.value) == str(expected.value)
    with pytest.raises(RuntimeError, match="one process"):
        dist.init_process_group("nccl", rank=0, world_size=1)


def test_what_there_is_instead() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'as_strided': Tensor\.unfold\(\)"):
        _ = gradlite.as_strided
    with pytest.raises(AttributeError, match="no attribute 'nothing'$"):
        _ = gradlite.nothing
    assert not any(hasattr(gradlite, name) for name in gradlite._INSTEAD)
    assert all(hasattr(torch, name) for name in gradlite._INSTEAD)
