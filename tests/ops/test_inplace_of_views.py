"""The in-place form of every op of the table on a view: its base's graph, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.table import TABLE, Sample
from tests.ops.test_table import convert, describe, leaves, ours, ours_constant, samples_of, theirs

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")


def edited(library: Any, name: str, sample: Sample, make: Any) -> Any:
    """A base one of whose rows was edited in place, and gradients of what it was made from."""
    args, kwargs = convert(sample.args, make), convert(sample.kwargs, make)
    base = library.stack([args[0], args[0] * 2 if args[0].requires_grad else args[0]])
    try:
        getattr(base[0], f"{name}_")(*args[1:], **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        return type(error), []
    found = [base]
    if base.requires_grad:
        weights = np.random.default_rng(3).standard_normal(tuple(base.shape))
        try:
            (base * library.tensor(weights)).sum().backward()
        except (RuntimeError, NotImplementedError) as error:
            return type(error), []
        found += [leaf.grad for leaf in leaves((args, kwargs))]
    return None, [None if t is None else t.detach().numpy(force=True) for t in found]


@pytest.mark.parametrize("name", [n for n in sorted(TABLE) if TABLE[n].inplace])
def test_an_edit_of_a_view_reaches_its_base(name: str) -> None:
    entry = TABLE[name]
    for number, sample in enumerate(samples_of(name)):
        if not isinstance(sample.args[0], np.ndarray):
            continue
        what = f"{name}_ sample {number} {describe(sample)}"
        mine = edited(gradlite, name, sample, ours if entry.differentiable else ours_constant)
        yours = edited(torch, name, sample, theirs if entry.differentiable else torch.tensor)
        if yours[0] is NotImplementedError:
            continue  # PyTorch has no gradient for this one in place
        assert mine[0] == yours[0], f"{what}: {mine[0]} instead of {yours[0]}"
        for place, (a, b) in enumerate(zip(mine[1], yours[1], strict=True)):
            assert (a is None) == (b is None), f"{what}: {place}"
            if b is not None:
                scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
                np.testing.assert_allclose(
                    a, b, rtol=sample.rtol, atol=sample.rtol * scale, err_msg=f"{what}: {place}"
                )
