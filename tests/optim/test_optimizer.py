"""Groups, checks, hooks, aliases and failures: what does not depend on the update rule."""

from __future__ import annotations

import copy
import gc
import importlib
import weakref
from typing import Any

import numpy as np
import pytest

import gradlite
import gradlite.optim
from tests.optim.table import FULL, NAMES, Pair, made, torch
from tests.oracle import outcome_of, same

# ------------------------------------------------------------------- options and groups
BAD_OPTIONS = [
    ("SGD", {"lr": -1}),
    ("SGD", {"momentum": -0.5}),
    ("SGD", {"weight_decay": -0.5}),
    ("SGD", {"nesterov": True}),
    ("SGD", {"nesterov": True, "momentum": 0.9, "dampening": 0.1}),
    ("SGD", {"fused": True, "foreach": True}),
    ("SGD", {"fused": True, "differentiable": True}),
    ("Adam", {"lr": -1.0}),
    ("Adam", {"eps": -1.0}),
    ("Adam", {"betas": (1.0, 0.9)}),
    ("Adam", {"betas": (0.9, -0.1)}),
    ("Adam", {"betas": (0, 0.9)}),
    ("Adam", {"weight_decay": -1}),
    ("Adam", {"fused": True, "foreach": True}),
    ("AdamW", {"lr": float("nan")}),
    ("RMSprop", {"alpha": -1}),
    ("RMSprop", {"momentum": -1}),
    ("RMSprop", {"eps": -1}),
    ("RMSprop", {"lr": -1}),
    ("RMSprop", {"weight_decay": -1}),
    ("Adagrad", {"lr_decay": -1}),
    ("Adagrad", {"initial_accumulator_value": -1}),
    ("Adagrad", {"eps": -1}),
    ("Adagrad", {"fused": True, "foreach": True}),
    ("Adadelta", {"rho": 1.5}),
    ("Adadelta", {"lr": -1}),
    ("Adamax", {"betas": (0.9, 1.0)}),
    ("NAdam", {"momentum_decay": -1}),
    ("RAdam", {"betas": (-0.1, 0.9)}),
    ("Rprop", {"etas": (1.5, 1.2)}),
    ("Rprop", {"lr": -0.1}),
    ("ASGD", {"weight_decay": -1}),
]


@pytest.mark.parametrize(("name", "options"), BAD_OPTIONS)
def test_bad_options(name: str, options: dict[str, Any]) -> None:
    same(
        lambda T: getattr(T.optim, name)([T.ones(2, requires_grad=True)], **options),
        raises=(ValueError, RuntimeError),
        message="exact",
    )


@pytest.mark.parametrize("name", NAMES)
def test_defaults_and_argument_order(name: str) -> None:
    import inspect

    def describe(cls: Any) -> list[tuple[str, str, Any]]:
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [(p.name, str(p.kind), p.default) for p in parameters]

    assert describe(made(gradlite, name)) == describe(made(torch, name))
    same(lambda T: repr(made(T, name)([T.ones(2, requires_grad=True)])))


BAD_PARAMS: dict[str, Any] = {
    "a tensor": lambda T: T.optim.SGD(T.ones(2)),
    "nothing": lambda T: T.optim.SGD([]),
    "an empty generator": lambda T: T.optim.SGD(p for p in ()),
    "a number": lambda T: T.optim.SGD([1]),
    "a string": lambda T: T.optim.SGD(["weight"]),
    "a non-leaf": lambda T: T.optim.SGD([T.ones(2, requires_grad=True) * 2]),
    "a set": lambda T: T.optim.SGD([{"params": {T.ones(2)}}]),
    "a list as a group": lambda T: T.optim.SGD([{"params": [T.ones(2)]}]).add_param_group(
        [T.ones(2)]
    ),
    "half of the names": lambda T: T.optim.SGD([("a", T.ones(2)), T.ones(2)]),
}


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_bad_parameters(case: str) -> None:
    same(BAD_PARAMS[case], raises=(TypeError, ValueError), message="exact")


def test_a_parameter_in_two_groups() -> None:
    def program(T: Any) -> Any:
        p = T.ones(2, requires_grad=True)
        T.optim.SGD([{"params": [p]}, {"params": [T.ones(1), p]}])

    same(program, raises=ValueError, match="more than one parameter group", message="exact")


def test_groups_with_and_without_names() -> None:
    def program(T: Any) -> Any:
        optimizer = T.optim.SGD([("a", T.ones(2))])
        optimizer.add_param_group({"params": [T.ones(2)]})

    same(program, raises=ValueError, match="with/without names", message="exact")


def test_a_parameter_twice_in_a_group_warns_and_is_updated_twice() -> None:
    def program(T: Any) -> Any:
        p = T.tensor([1.0, 2.0], requires_grad=True)
        q = T.tensor([3.0], requires_grad=True)
        optimizer = T.optim.Adam([p, q, p], lr=0.1)
        for _ in range(3):
            p.grad, q.grad = T.tensor([1.0, -1.0]), T.tensor([2.0])
            optimizer.step()
        return p.detach(), q.detach()

    same(program, warns="duplicate parameters")


def test_named_parameters_and_groups() -> None:
    def program(T: Any) -> Any:
        a, b, c = (T.ones(2, requires_grad=True) for _ in range(3))
        optimizer = T.optim.SGD(
            [{"params": [("a", a), ("b", b)], "lr": 0.5}, {"params": iter([("c", c)])}], lr=0.1
        )
        optimizer.add_param_group({"params": ("d", T.ones(1))[1:], "param_names": ["d"]})
        state = optimizer.state_dict()
        for p in (a, b, c):
            p.grad = T.ones(2)
        optimizer.step()
        return state["param_groups"], repr(optimizer), a.detach(), c.detach()

    same(program)


def test_a_non_leaf_that_retains_its_grad_can_be_optimized() -> None:
    x = gradlite.ones(2, requires_grad=True) * 1
    x.retain_grad()
    gradlite.optim.SGD([x])


def test_required_options() -> None:
    from gradlite.optim.optimizer import Optimizer, required

    class Custom(Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": required})

    p = gradlite.ones(2, requires_grad=True)
    with pytest.raises(ValueError, match="didn't specify a value of required .* parameter lr"):
        Custom([p])
    assert Custom([{"params": p, "lr": 1.0}]).param_groups[0]["params"] == [p]


@pytest.mark.parametrize("name", NAMES)
def test_differentiable_steps_are_refused(name: str) -> None:
    p = gradlite.ones(2, requires_grad=True)
    optimizer = getattr(gradlite.optim, name)([p], differentiable=True)
    p.grad = gradlite.ones(2)
    with pytest.raises(NotImplementedError, match="differentiable=True"):
        optimizer.step()


# -------------------------------------------------------------------------------- step
@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_without_gradient_is_left_alone(name: str) -> None:
    """Weight decay, momentum and state too."""
    pair = Pair(name, FULL[name])
    pair.steps(3)
    for p, q in zip(pair.expected[:2], pair.actual[:2]):
        p.requires_grad_(False)
        q.requires_grad_(False)
    before = [q.detach().clone() for q in pair.actual[:2]]
    state = copy.deepcopy([dict(pair.optimizer.state[q]) for q in pair.actual[:2]])
    versions = [q._version for q in pair.actual]
    pair.steps(3, without=(0, 1))
    for q, old, entries in zip(pair.actual, before, state):
        np.testing.assert_array_equal(q.numpy(), old.numpy())
        for key, value in entries.items():
            np.testing.assert_array_equal(
                pair.optimizer.state[q][key].numpy(), value.numpy(), err_msg=key
            )
    moved = [q._version - v for q, v in zip(pair.actual, versions)]
    assert moved == [0, 0, 3, 3, 3]
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_aliases_of_parameters_stay_valid(name: str) -> None:
    p = gradlite.ones(4, requires_grad=True)
    array, view, detached = p.detach().numpy(), p.detach()[1:], p.detach()
    optimizer = getattr(gradlite.optim, name)([p], **FULL[name])
    for _ in range(2):
        p.grad = gradlite.tensor([1.0, 2.0, 3.0, 4.0])
        optimizer.step()
    assert array is p.detach().numpy() and not np.any(array == 1.0)
    np.testing.assert_array_equal(view.numpy(), array[1:])
    np.testing.assert_array_equal(detached.numpy(), array)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_read_only(name: str) -> None:
    grads = [np.linspace(-1, 1, n) for n in (3, 40_000)]
    params = [gradlite.ones(len(g), dtype=gradlite.float64, requires_grad=True) for g in grads]
    optimizer = getattr(gradlite.optim, name)(params, **FULL[name])
    for _ in range(3):
        for p, grad in zip(params, grads):
            p.grad = gradlite.tensor(grad)
            p.grad.numpy().flags.writeable = False
        optimizer.step()
        for p, grad in zip(params, grads):
            np.testing.assert_array_equal(p.grad.numpy(), grad)  # type: ignore[union-attr]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_not_kept_alive(name: str, no_gc: None) -> None:
    params = [gradlite.ones(n, requires_grad=True) for n in (3, 40_000)]
    optimizer = getattr(gradlite.optim, name)(params)
    for p in params:
        p.grad = gradlite.ones(*p.shape)
    grads = [weakref.ref(p.grad.numpy()) for p in params]  # type: ignore[union-attr]
    optimizer.step()
    optimizer.zero_grad()
    assert [grad() for grad in grads] == [None, None]


def test_optimizers_die_by_reference_counting(no_gc: None) -> None:
    p = gradlite.ones(3, requires_grad=True)
    optimizer = gradlite.optim.Adam([p])
    p.grad = gradlite.ones(3)
    optimizer.step()
    scheduler = gradlite.optim.lr_scheduler.StepLR(optimizer, 1)
    references = [weakref.ref(optimizer), weakref.ref(scheduler)]
    del optimizer, scheduler
    assert [reference() for reference in references] == [None, None]


@pytest.mark.parametrize("name", NAMES)
def test_a_step_is_seen_by_autograd(name: str) -> None:
    w = gradlite.ones(2, requires_grad=True)
    optimizer = getattr(gradlite.optim, name)([w])
    loss = (w * w).sum()
    w.grad = gradlite.ones(2)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("steps", [0, 3])
@pytest.mark.parametrize("name", NAMES)
def test_a_failed_step_changes_nothing(name: str, steps: int) -> None:
    pair = Pair(name, FULL[name])
    optimizer = pair.optimizer
    last = gradlite.ones(3, 2, requires_grad=True)
    optimizer.add_param_group({"params": [last]})
    for _ in range(steps):
        pair.set_grads()
        last.grad = gradlite.ones(3, 2)
        optimizer.step()
    pair.set_grads()
    before = copy.deepcopy(optimizer.state_dict())
    values = [p.detach().clone() for p in pair.actual]

    def unchanged() -> None:
        for p, value in zip(pair.actual, values):
            np.testing.assert_array_equal(p.detach().numpy(), value.numpy())
        after = optimizer.state_dict()
        assert list(after["state"]) == list(before["state"])
        for number, entries in before["state"].items():
            for key, value in entries.items():
                np.testing.assert_array_equal(after["state"][number][key].numpy(), value.numpy())

    last._grad = gradlite.ones(2, 3)
    with pytest.raises(RuntimeError, match="must match the size"):
        optimizer.step()
    unchanged()
    last.grad = gradlite.ones(3, 2)

    def closure() -> None:
        raise KeyError("in the closure")

    with pytest.raises(KeyError, match="in the closure"):
        optimizer.step(closure)
    unchanged()
    if name != "Rprop":  # its learning rate matters only once
        optimizer.param_groups[1]["lr"] = "fast"
        with pytest.raises(ValueError, match="could not convert"):
            optimizer.step()
        unchanged()
    optimizer.param_groups[1]["lr"] = 0.1
    last.data = gradlite.ones(3, 2)
    last.detach().numpy().flags.writeable = False
    with pytest.raises(RuntimeError, match="read-only"):
        optimizer.step()
    unchanged()


def test_closures() -> None:
    def program(T: Any) -> Any:
        p = T.tensor([1.0, -2.0], requires_grad=True)
        optimizer = T.optim.SGD([p], lr=0.1)
        seen = []

        def closure() -> Any:
            seen.append(T.is_grad_enabled())
            optimizer.zero_grad()
            loss = (p * p).sum()
            loss.backward()
            return loss

        with T.no_grad():
            loss = optimizer.step(closure)
        return seen, loss.detach(), p.detach(), optimizer.step(), T.is_grad_enabled()

    same(program)


def test_zero_grad() -> None:
    def program(T: Any) -> Any:
        p, q = T.ones(2, requires_grad=True), T.ones(1, requires_grad=True)
        optimizer = T.optim.SGD([p, q])
        p.grad = grad = T.ones(2, requires_grad=True) * 1
        optimizer.zero_grad(set_to_none=False)
        result = [grad is p.grad, grad.detach(), grad.requires_grad, q.grad]
        optimizer.zero_grad()
        return [*result, p.grad, grad.detach()]

    same(program)


def test_a_gradient_that_requires_grad() -> None:
    p = gradlite.ones(2, requires_grad=True)
    p._grad = gradlite.ones(2, requires_grad=True) * 2
    gradlite.optim.SGD([p], lr=1.0).step()
    assert p.is_leaf and p.tolist() == [-1.0, -1.0]


def test_parameters_moved_to_another_array_or_dtype() -> None:
    def program(T: Any) -> Any:
        p, q = T.ones(3, requires_grad=True), T.ones(2, requires_grad=True)
        optimizer = T.optim.SGD([p, q], lr=0.25, momentum=0.5)
        p.grad, q.grad = T.ones(3), T.ones(2)
        optimizer.step()
        p.data = T.zeros(3)
        optimizer.step()
        return p.detach(), q.detach(), optimizer.state[p]["momentum_buffer"]

    same(program)
    p = gradlite.ones(3, requires_grad=True)
    optimizer = gradlite.optim.Adam([p])
    p.grad = gradlite.ones(3)
    optimizer.step()
    p.data, p.grad = p.detach().double(), None
    p.grad = gradlite.ones(3, dtype=gradlite.float64)
    optimizer.step()
    assert p.dtype == gradlite.float64
    assert optimizer.state[p]["exp_avg"].dtype == gradlite.float64
    assert optimizer.state[p]["step"].item() == 2


def test_switching_options_between_steps() -> None:
    def program(T: Any) -> Any:
        p = T.tensor([1.0, -2.0, 3.0], requires_grad=True)
        optimizer = T.optim.SGD([p], lr=0.1)
        (group,) = optimizer.param_groups
        states = []
        changes: list[dict[str, Any]] = [
            {},
            {"momentum": 0.9},
            {"momentum": 0.5, "dampening": 0.1},
            {"weight_decay": 0.3},
            {"momentum": 0},
            {"momentum": 0.9, "maximize": True},
            {"nesterov": True, "dampening": 0},
        ]
        for change in changes:
            group.update(change)
            for i in range(2):
                p.grad = T.tensor([0.5, -1.0, i])
                optimizer.step()
            states.append((p.detach().clone(), len(optimizer.state[p])))
        return states

    same(program)


def test_state_missing_for_an_option_switched_on_later() -> None:
    def program(T: Any) -> Any:
        p = T.ones(2, requires_grad=True)
        optimizer = T.optim.Adam([p])
        p.grad = T.ones(2)
        optimizer.step()
        optimizer.param_groups[0]["amsgrad"] = True
        optimizer.step()

    same(program, raises=KeyError, message="exact")


def test_state_dict_is_an_alias_and_state_a_defaultdict() -> None:
    p = gradlite.ones(2, requires_grad=True)
    optimizer = gradlite.optim.SGD([p], momentum=0.9)
    assert len(optimizer.state) == 0 and optimizer.state[p] == {}
    p.grad = gradlite.ones(2)
    optimizer.step()
    saved = optimizer.state_dict()["state"][0]["momentum_buffer"]
    optimizer.step()
    assert saved.tolist() == [pytest.approx(1.9)] * 2
    optimizer.state = {}
    optimizer.step()
    assert optimizer.state[p]["momentum_buffer"].tolist() == [1.0, 1.0]


@pytest.mark.parametrize("change", ["groups", "sizes"])
def test_state_dicts_that_do_not_fit(change: str) -> None:
    def program(T: Any) -> Any:
        optimizer = T.optim.SGD([T.ones(2)])
        state = optimizer.state_dict()
        if change == "groups":
            state["param_groups"] *= 2
        else:
            state["param_groups"][0]["params"] = [0, 1]
        optimizer.load_state_dict(state)

    same(program, raises=ValueError, message="exact")


def test_old_state_dicts_lack_options_and_names() -> None:
    def program(T: Any) -> Any:
        optimizer = T.optim.AdamW([("w", T.ones(2))], maximize=True)
        group = {"params": [0], "lr": 0.5, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0}
        optimizer.load_state_dict({"state": {"extra": 3}, "param_groups": [group]})
        return repr(optimizer), optimizer.state["extra"]

    same(program)


# ------------------------------------------------------------------------------- hooks
def test_step_hooks() -> None:
    def program(T: Any) -> Any:
        p = T.ones(2, requires_grad=True)
        optimizer = T.optim.SGD([p], lr=0.5)
        p.grad = T.ones(2)
        calls = []

        def before(opt: Any, args: Any, kwargs: Any) -> None:
            calls.append(("before", opt is optimizer, len(args), list(kwargs), p.tolist()))

        def replace(opt: Any, args: Any, kwargs: Any) -> Any:
            return args, {"closure": lambda: 42.0}

        def after(opt: Any, args: Any, kwargs: Any) -> None:
            calls.append(("after", len(args), list(kwargs), p.tolist()))

        handles = [
            optimizer.register_step_pre_hook(before),
            optimizer.register_step_pre_hook(replace),
            optimizer.register_step_post_hook(after),
        ]
        losses = [optimizer.step(), optimizer.step(closure=None)]
        for handle in handles:
            handle.remove()
        losses.append(optimizer.step())
        bad = optimizer.register_step_pre_hook(lambda *_: 1)
        calls.append(type(outcome_of(optimizer.step)).__name__)
        bad.remove()
        return calls, losses, p.detach()

    same(program)


def test_a_wrapper_that_does_without_the_initialisation_of_optimizers() -> None:
    """As implementations of Lookahead: PyTorch's class gives a step hooks when it makes objects."""

    def program(T: Any) -> Any:
        class Averaging(T.optim.Optimizer):  # type: ignore[misc, name-defined]
            def __init__(self, inner: Any) -> None:
                self.inner, self.param_groups, self.state = inner, inner.param_groups, inner.state
                self.slow = [p.detach().clone() for p in inner.param_groups[0]["params"]]

            def zero_grad(self, set_to_none: bool = True) -> None:
                self.inner.zero_grad(set_to_none)

            def step(self, closure: Any = None) -> Any:
                self.inner.step(closure)
                for p, slow in zip(self.param_groups[0]["params"], self.slow):
                    slow.add_(p.detach() - slow, alpha=0.5)
                    p.data.copy_(slow)

        p = T.ones(2, requires_grad=True)
        optimizer = Averaging(T.optim.SGD([p], lr=0.5, momentum=0.9))
        for _ in range(3):
            optimizer.zero_grad()
            p.square().sum().backward()
            optimizer.step()
        return p.detach()

    same(program)


def test_global_step_hooks() -> None:
    def program(T: Any) -> Any:
        module = importlib.import_module(f"{T.__name__}.optim.optimizer")
        p = T.ones(2, requires_grad=True)
        calls: list[str] = []
        handles = [
            module.register_optimizer_step_pre_hook(lambda *_: calls.append("before")),
            module.register_optimizer_step_post_hook(lambda *_: calls.append("after")),
        ]
        optimizer = T.optim.Adam([p])
        optimizer.register_step_pre_hook(lambda *_: calls.append("own before"))
        optimizer.register_step_post_hook(lambda *_: calls.append("own after"))
        optimizer.step()
        for handle in handles:
            handle.remove()
        optimizer.step()
        return calls

    same(program)


def test_state_dict_hooks() -> None:
    def program(T: Any) -> Any:
        p = T.ones(2, requires_grad=True)
        optimizer = T.optim.SGD([p], momentum=0.9)
        calls: list[str] = []

        def note(text: str) -> Any:
            return lambda *_: calls.append(text)

        def marked(opt: Any, state: Any) -> Any:
            return {**state, "mark": 1}

        def unmarked(opt: Any, state: Any) -> Any:
            calls.append(str(sorted(state)))
            return {key: value for key, value in state.items() if key != "mark"}

        optimizer.register_state_dict_pre_hook(note("b"))
        optimizer.register_state_dict_pre_hook(note("a"), prepend=True)
        optimizer.register_state_dict_post_hook(note("c"), prepend=True)
        optimizer.register_state_dict_post_hook(marked)
        optimizer.register_load_state_dict_pre_hook(unmarked)
        optimizer.register_load_state_dict_post_hook(note("e"))
        optimizer.register_load_state_dict_post_hook(note("d"), prepend=True)
        state = optimizer.state_dict()
        optimizer.load_state_dict(state)
        return calls, sorted(state)

    same(program)


def test_a_subclass_with_its_own_step() -> None:
    def program(T: Any) -> Any:
        class SignDescent(T.optim.Optimizer):  # type: ignore[name-defined,misc]
            def __init__(self, params: Any, lr: float = 0.1) -> None:
                super().__init__(params, {"lr": lr})

            @T.no_grad()
            def step(self, closure: Any = None) -> None:
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            state = self.state[p]
                            state["steps"] = state.get("steps", 0) + 1
                            p.add_(p.grad / p.grad.abs(), alpha=-group["lr"])

        p = T.tensor([1.0, -1.0], requires_grad=True)
        optimizer = SignDescent([p])
        calls: list[int] = []
        optimizer.register_step_post_hook(lambda *_: calls.append(1))
        (p * p).sum().backward()
        optimizer.step()
        optimizer.step()
        twin = SignDescent([p])
        twin.load_state_dict(optimizer.state_dict())
        return p.detach(), calls, optimizer.state_dict(), dict(twin.state[p])

    same(program)


def test_collecting_garbage_does_not_matter() -> None:
    """Identities of dead parameters may come again: their state must not."""
    for _ in range(4):
        p = gradlite.ones(3, requires_grad=True)
        optimizer = gradlite.optim.SGD([p], lr=1.0, momentum=0.5)
        p.grad = gradlite.ones(3)
        optimizer.step()
        assert p.tolist() == [0.0] * 3
        del p, optimizer
        gc.collect()


def test_the_nodes_of_parameters_are_kept_for_the_next_step() -> None:
    p = gradlite.ones(3, requires_grad=True)
    optimizer = gradlite.optim.SGD([p], lr=0.1)
    p.sum().backward()
    optimizer.step()
    node = weakref.ref(p.sum().grad_fn.next_functions[0][0])
    assert node() is not None and node() is p.sum().grad_fn.next_functions[0][0]
    del optimizer
    gc.collect()
    assert node() is None


def test_hooks_of_parameters_run_in_the_order_of_every_graph() -> None:
    p, x = gradlite.ones(3, requires_grad=True), gradlite.ones(3, requires_grad=True)
    order: list[str] = []
    p.register_post_accumulate_grad_hook(lambda _: order.append("p"))
    optimizer = gradlite.optim.SGD([p, x], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        y = x * 2
        y.register_hook(lambda _: order.append("y"))
        (y * p).sum().backward()
        optimizer.step()
    assert order == ["p", "y"] * 3
