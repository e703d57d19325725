"""Pruning: masks, what they are computed from, and making them permanent."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import same


def prune_of(library: Any) -> Any:
    return importlib.import_module(f"{library.__name__}.nn.utils.prune")


def state(module: Any) -> Any:
    return {k: v.detach().clone() for k, v in sorted(module.state_dict().items())}


METHODS: dict[str, Any] = {
    "identity": lambda p, L, m: p.identity(m, "weight"),
    "l1, a part": lambda p, L, m: p.l1_unstructured(m, "weight", 0.4),
    "l1, a number": lambda p, L, m: p.l1_unstructured(m, "weight", amount=3),
    "l1, nothing": lambda p, L, m: p.l1_unstructured(m, "weight", amount=0),
    "l1, everything": lambda p, L, m: p.l1_unstructured(m, "weight", amount=1.0),
    "l1 of the bias": lambda p, L, m: p.l1_unstructured(m, "bias", amount=2),
    "l1 of scores": lambda p, L, m: p.l1_unstructured(
        m, "weight", 0.5, importance_scores=tensor(L, 5, 4, 6)
    ),
    "rows": lambda p, L, m: p.ln_structured(m, "weight", 2, n=2, dim=0),
    "columns": lambda p, L, m: p.ln_structured(m, "weight", 0.5, n=float("-inf"), dim=-1),
    "no rows": lambda p, L, m: p.ln_structured(m, "weight", 0, n=1, dim=0),
    "rows by scores": lambda p, L, m: p.ln_structured(
        m, "weight", 1, n=1, dim=0, importance_scores=tensor(L, 5, 4, 6)
    ),
    "mask": lambda p, L, m: p.custom_from_mask(m, "weight", L.arange(24).reshape(4, 6) % 3),
}


@pytest.mark.parametrize("what", METHODS)
def test_a_pruned_layer(what: str) -> None:
    """The same mask, result and gradients, before and after the mask is made permanent."""

    def program(library: Any) -> Any:
        prune = prune_of(library)
        layer = fill(library, library.nn.Linear(6, 4))
        pruned = METHODS[what](prune, library, layer)
        x = tensor(library, 1, 3, 6)
        y = layer(x)
        (y * y).sum().backward()
        names = [n for n, _ in layer.named_parameters()], [n for n, _ in layer.named_buffers()]
        grads = [p.grad for p in layer.parameters()]
        held = state(layer)
        for name in ("weight", "bias"):
            if hasattr(layer, f"{name}_mask"):
                prune.remove(layer, name)
        after = sorted(n for n, _ in layer.named_parameters())
        return (
            pruned is layer,
            y.detach(),
            names,
            grads,
            held,
            after,
            state(layer),
            layer(x).detach(),
        )

    same(program)


SECOND: dict[str, Any] = {
    "elements after elements": (
        "l1_unstructured", {"amount": 0.5}, "l1_unstructured", {"amount": 0.5},
    ),
    "rows after elements": (
        "l1_unstructured", {"amount": 0.5}, "ln_structured", {"amount": 2, "n": 2, "dim": 0},
    ),
    "elements after rows": (
        "ln_structured", {"amount": 1, "n": 2, "dim": 0}, "l1_unstructured", {"amount": 4},
    ),
    "columns after rows": (
        "ln_structured", {"amount": 1, "n": 1, "dim": 0},
        "ln_structured", {"amount": 0.5, "n": 1, "dim": 1},
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", SECOND)
def test_pruned_twice(what: str) -> None:
    first, some, second, more = SECOND[what]

    def program(library: Any) -> Any:
        prune = prune_of(library)
        layer = fill(library, library.nn.Linear(6, 4))
        getattr(prune, first)(layer, "weight", **some)
        once = layer.weight_mask.clone()
        getattr(prune, second)(layer, "weight", **more)
        layer.weight.sum().backward()
        mask, before = layer.weight_mask.clone(), prune.is_pruned(layer)
        prune.remove(layer, "weight")
        return once, mask, layer.weight, prune.is_pruned(layer), before

    same(program)


def test_over_several_layers() -> None:
    def program(library: Any) -> Any:
        nn, prune = library.nn, prune_of(library)
        model = fill(library, nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
        prune.l1_unstructured(model[0], "weight", 2)
        pairs = [(model[0], "weight"), (model[2], "weight"), (model[0], "bias")]
        scores = {(model[2], "weight"): tensor(library, 7, 2, 4)}
        prune.global_unstructured(pairs, prune.L1Unstructured, importance_scores=scores, amount=0.3)
        return state(model), model(tensor(library, 1, 2, 3)).detach()

    same(program)


def test_by_chance() -> None:
    """How many, not which: the two libraries draw different numbers."""

    def program(library: Any) -> Any:
        prune, layer = prune_of(library), library.nn.Linear(6, 4)
        prune.random_unstructured(layer, "weight", amount=0.25)
        prune.random_structured(layer, "weight", amount=1, dim=0)
        some = prune_of(library).random_unstructured(library.nn.Linear(6, 4), "weight", 5)
        rows = (layer.weight_mask.sum(1) == 0).sum().item()
        return rows >= 1, int((some.weight_mask == 0).sum())

    same(program)


def test_a_method_of_ones_own() -> None:
    def program(library: Any) -> Any:
        prune = prune_of(library)

        class EverySecond(prune.BasePruningMethod):
            PRUNING_TYPE = "unstructured"

            def compute_mask(self, t: Any, default_mask: Any) -> Any:
                mask = default_mask.clone()
                mask.view(-1)[::2] = 0
                return mask

        layer = fill(library, library.nn.Linear(6, 4))
        EverySecond.apply(layer, "weight")
        once = layer.weight_mask.clone()
        last = EverySecond.apply(layer, "weight")
        return once, layer.weight_mask, type(last).__name__, len(last)

    same(program)


def test_a_tensor_of_no_module() -> None:
    def program(library: Any) -> Any:
        prune, t = prune_of(library), tensor(library, 3, 4, 5)
        some = prune.L1Unstructured(amount=7).prune(t)
        rows = prune.LnStructured(2, 1, dim=0).prune(t, importance_scores=tensor(library, 4, 4, 5))
        return some, rows

    same(program)


WRONG: dict[str, Any] = {
    "amount over 1": lambda p, m: p.l1_unstructured(m, "weight", 1.1),
    "negative amount": lambda p, m: p.l1_unstructured(m, "weight", -1),
    "amount of another type": lambda p, m: p.l1_unstructured(m, "weight", "a"),
    "too many": lambda p, m: p.l1_unstructured(m, "weight", 25),
    "too many rows": lambda p, m: p.ln_structured(m, "weight", 5, 2, 0),
    "rows of a vector": lambda p, m: p.ln_structured(m, "bias", 1, 2, 0),
    "dimension": lambda p, m: p.ln_structured(m, "weight", 1, 2, 2),
    "scores": lambda p, m: p.l1_unstructured(m, "weight", 1, importance_scores=m.bias),
    "mask": lambda p, m: p.custom_from_mask(m, "weight", m.bias),
    "not pruned": lambda p, m: p.remove(m, "weight"),
    "structured over all": lambda p, m: p.global_unstructured(
        [(m, "weight")], p.LnStructured, amount=1, n=2
    ),
    "no pairs": lambda p, m: p.global_unstructured(3, p.L1Unstructured, amount=1),
    "scores in a list": lambda p, m: p.global_unstructured(
        [(m, "weight")], p.L1Unstructured, importance_scores=[m.weight], amount=1
    ),
    "no such parameter": lambda p, m: p.l1_unstructured(m, "heavy", 1),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str) -> None:
    same(
        lambda library: WRONG[what](prune_of(library), library.nn.Linear(6, 4)),
        raises=(ValueError, TypeError, IndexError, AssertionError, AttributeError),
        message="type" if what in ("not pruned", "structured over all") else "exact",
    )


def test_a_layer_that_could_not_be_pruned_is_as_it_was() -> None:
    def program(library: Any) -> Any:
        layer = fill(library, library.nn.Linear(6, 4))
        with pytest.raises(ValueError, match="should be smaller"):
            prune_of(library).l1_unstructured(layer, "weight", 25)
        return state(layer), prune_of(library).is_pruned(layer)

    same(program)
