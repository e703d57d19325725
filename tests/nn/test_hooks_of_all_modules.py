"""Hooks of all modules at once, hooks at the last op's node, and outputs that hooks cannot see."""

from __future__ import annotations

import gc
from collections import namedtuple
from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.nn.programs import fill, tensor
from tests.oracle import same

Pair = namedtuple("Pair", "left right")  # noqa: PYI024

KINDS = ["forward_pre", "forward", "full_backward_pre", "full_backward"]


def registrar(library: Any, kind: str) -> Any:
    return getattr(library.nn.modules.module, f"register_module_{kind}_hook")


@pytest.mark.parametrize("kind", KINDS)
def test_all_modules_are_seen_until_the_hook_is_removed(kind: str) -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        model = fill(library, nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)))
        seen: list[Any] = []

        def hook(module: Any, *rest: Any) -> None:
            shapes = [[tuple(t.shape) for t in part if t is not None] for part in rest]
            seen.append((type(module).__name__, shapes))

        x = tensor(library, 1, 4, 3, requires_grad=True)
        with registrar(library, kind)(hook):
            model(x).sum().backward()
        during = len(seen)
        model(x).sum().backward()
        return seen, during, x.grad

    same(program)


@pytest.mark.parametrize("kind", KINDS)
def test_global_hooks_run_first_and_replace(kind: str) -> None:
    def program(library: Any) -> Any:
        linear = fill(library, library.nn.Linear(3, 3))
        order: list[str] = []

        def hook(who: str, factor: float) -> Any:
            def call(module: Any, first: Any, *rest: Any) -> Any:
                order.append(who)
                value = rest[-1] if kind == "forward" else first
                if isinstance(value, tuple):
                    return tuple(None if v is None else v * factor for v in value)
                return value * factor

            return call

        getattr(linear, f"register_{kind}_hook")(hook("own", 3.0))
        x = tensor(library, 1, 4, 3, requires_grad=True)
        with registrar(library, kind)(hook("global", 2.0)):
            output = linear(x)
            output.sum().backward()
        return order, output.detach(), x.grad, linear.weight.grad

    same(program)


def test_a_global_hook_with_keywords_that_is_always_called() -> None:
    def program(library: Any) -> Any:
        class Fails(library.nn.Module):
            def forward(self, x: Any, *, scale: float) -> Any:
                raise ValueError("no")

        calls: list[Any] = []

        def hook(module: Any, args: Any, kwargs: Any, output: Any) -> None:
            calls.append((type(module).__name__, kwargs, output))

        register = library.nn.modules.module.register_module_forward_hook
        with register(hook, with_kwargs=True):
            library.nn.Identity()(library.ones(1))
        with register(lambda *a: calls.append(a[-1]), always_call=True):
            with pytest.raises(ValueError, match="no"):
                Fails()(library.ones(1), scale=2.0)
        return calls

    same(program)


def test_older_and_newer_global_hooks_do_not_mix() -> None:
    modules = nn.modules.module
    for first, second in [("full_backward", "backward"), ("backward", "full_backward")]:
        with registrar(gradlite, first)(lambda *a: None):
            with pytest.raises(RuntimeError, match="both regular backward hooks and full"):
                registrar(gradlite, second)(lambda *a: None)
    with modules.register_module_backward_hook(lambda *a: None):
        pass


def test_without_global_hooks_modules_take_the_short_way_again() -> None:
    linear = nn.Linear(1, 1)
    with registrar(gradlite, "forward")(lambda *a: None):
        assert linear._hooked
    linear(gradlite.ones(1))
    assert not linear._hooked and not nn.Linear._hooked


def test_a_hook_at_the_last_op() -> None:
    def program(library: Any) -> Any:
        seen: list[Any] = []
        sigmoid = library.nn.Sigmoid()
        handle = sigmoid.register_backward_hook(lambda m, gi, go: seen.append((gi, go)))
        x = tensor(library, 1, 4, requires_grad=True)
        sigmoid(x * 1).sum().backward()
        handle.remove()
        sigmoid(x * 1).sum().backward()
        return seen, x.grad

    same(program)


def test_a_hook_at_the_last_op_replaces_grad_input() -> None:
    def program(library: Any) -> Any:
        sigmoid = library.nn.Sigmoid()
        sigmoid.register_backward_hook(lambda m, gi, go: tuple(g * 2 for g in gi))
        x = tensor(library, 1, 4, requires_grad=True)
        sigmoid(x * 1).sum().backward()
        return x.grad

    same(program)


class Outputs:
    """Modules of which a hook at the last op misses something, and what PyTorch says of it."""

    several = (lambda x: (x * 2).exp(), "multiple autograd Nodes")
    different = (lambda x: (x * 2, x + 1), "different autograd Nodes")
    a_dict = (lambda x: {"x": x * 2}, "does not return a single Tensor")


@pytest.mark.parametrize("name", ["several", "different", "a_dict"])
def test_what_a_hook_at_the_last_op_misses(name: str) -> None:
    function, text = getattr(Outputs, name)

    def program(library: Any) -> None:
        class Layer(library.nn.Module):
            def forward(self, x: Any) -> Any:
                return function(x)

        layer = Layer()
        layer.register_backward_hook(lambda *a: None)
        layer(library.ones(2, requires_grad=True))

    same(program, warns=text, message="exact")


@pytest.mark.parametrize("order", [("full_backward", "backward"), ("backward", "full_backward")])
def test_older_and_newer_hooks_do_not_mix(order: tuple[str, str]) -> None:
    def program(library: Any) -> None:
        linear = library.nn.Linear(1, 1)
        for name in order:
            getattr(linear, f"register_{name}_hook")(lambda *a: None)

    same(program, raises=RuntimeError, message="exact")


def test_named_tuples_stay_named_tuples() -> None:
    def program(library: Any) -> Any:
        class Layer(library.nn.Module):
            def forward(self, x: Any) -> Any:
                return Pair(x * 2, x * 3)

        layer, count = Layer(), []
        layer.register_full_backward_hook(lambda *a: count.append(1))
        x = library.ones(2, requires_grad=True)
        output = layer(x)
        output.right.sum().backward()
        return type(output).__name__, count, x.grad

    same(program)


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_outputs_that_full_hooks_cannot_see(kind: str) -> None:
    def program(library: Any) -> None:
        class Layer(library.nn.Module):
            def forward(self, x: Any) -> Any:
                return {"x": x * 2} if kind == "dict" else [x * 2]

        layer = Layer()
        layer.register_full_backward_hook(lambda *a: None)
        layer(library.ones(2, requires_grad=True))

    same(program, warns="module output should be a Tensor", message="exact")


def test_loading_a_state_leaves_no_garbage() -> None:
    linear = nn.Sequential(nn.Linear(2, 2))
    state = linear.state_dict()
    while gc.collect():  # what earlier tests have left may have finalizers, and need several
        pass
    linear.load_state_dict(state)
    assert gc.collect() == 0
