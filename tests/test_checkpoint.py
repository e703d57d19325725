"""Checkpointing: the same values and gradients as without, for less memory, as in PyTorch."""

from __future__ import annotations

import contextlib
import importlib
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

from tests.library import ON_TORCH, T
from tests.oracle import outcome_of, same

FORMS = [False, True]
only_gradlite = pytest.mark.skipif(ON_TORCH, reason="measures NumPy's memory")


def tools(T: Any) -> Any:
    return importlib.import_module(T.__name__ + ".utils.checkpoint")


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def curve(x: Any) -> Any:
    return (x.sin() * x).exp()


# ---------------------------------------------------------------- bit for bit


class Block(T.nn.Module):
    """Everything that saves something of another kind: products, masks, indices, statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.first = T.nn.Linear(6, 8)
        self.second = T.nn.Linear(8, 6)
        self.dropout = T.nn.Dropout(0.3)

    def forward(self, x: Any) -> Any:
        hidden = self.dropout(T.nn.functional.gelu(self.first(x)))
        out = self.second(hidden).relu() + x
        noise = T.rand_like(out)
        return out * noise + out.max(dim=1, keepdim=True)[0].softmax(0)


def gradients(run: Any, model: Any, x: Any) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
    for p in model.parameters():
        p.grad = None
    x.grad = None
    T.manual_seed(11)
    out = run(x)
    after = T.rand(2)
    out.square().sum().backward()
    later = T.rand(2)
    grads = [p.grad.numpy().copy() for p in model.parameters()] + [x.grad.numpy().copy()]
    numbers = np.concatenate([after.numpy(), later.numpy()])
    return out.detach().numpy().copy(), grads, numbers


@pytest.mark.parametrize("use_reentrant", FORMS)
@pytest.mark.parametrize("training", [True, False])
def test_values_and_gradients_are_the_same_bits(use_reentrant, training):
    T.manual_seed(3)
    model = T.nn.Sequential(Block(), Block(), Block()).train(training)
    x = T.randn(5, 6).requires_grad_()
    checkpoint = tools(T).checkpoint

    def checkpointed(x: Any) -> Any:
        for block in model:
            x = checkpoint(block, x, use_reentrant=use_reentrant)
        return x

    plain, kept, numbers = gradients(model, model, x)
    again, recomputed, same_numbers = gradients(checkpointed, model, x)
    np.testing.assert_array_equal(again, plain)
    for one, other in zip(recomputed, kept, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(same_numbers, numbers)


@pytest.mark.parametrize("use_reentrant", FORMS)
@pytest.mark.parametrize("segments", [1, 2, 3, 4])
def test_sequential_gives_the_same_bits(use_reentrant, segments):
    T.manual_seed(3)
    model = T.nn.Sequential(*[Block() for _ in range(4)])
    x = T.randn(5, 6).requires_grad_()

    def checkpointed(x: Any) -> Any:
        return tools(T).checkpoint_sequential(model, segments, x, use_reentrant=use_reentrant)

    plain, kept, _ = gradients(model, model, x)
    again, recomputed, _ = gradients(checkpointed, model, x)
    np.testing.assert_array_equal(again, plain)
    for one, other in zip(recomputed, kept, strict=True):
        np.testing.assert_array_equal(one, other)


def test_nested_checkpoints_give_the_same_bits():
    T.manual_seed(3)
    blocks = [Block() for _ in range(4)]
    model = T.nn.Sequential(*blocks)
    x = T.randn(5, 6).requires_grad_()
    checkpoint = tools(T).checkpoint

    def inner(x: Any, start: int) -> Any:
        for block in blocks[start : start + 2]:
            x = checkpoint(block, x, use_reentrant=False)
        return x.tanh()

    def outer(x: Any) -> Any:
        return checkpoint(
            inner, checkpoint(inner, x, 0, use_reentrant=False), 2, use_reentrant=False
        )

    plain, kept, _ = gradients(lambda x: inner(inner(x, 0), 2), model, x)
    again, recomputed, _ = gradients(outer, model, x)
    np.testing.assert_array_equal(again, plain)
    for one, other in zip(recomputed, kept, strict=True):
        np.testing.assert_array_equal(one, other)


# ---------------------------------------------------------------- as in PyTorch


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_a_function_is_run_once_in_forward_and_once_in_backward(use_reentrant):
    def program(T):
        modes = []

        def f(x):
            modes.append((T.is_grad_enabled(), x.requires_grad))
            return curve(x)

        x = leaf(T)
        y = tools(T).checkpoint(f, x, use_reentrant=use_reentrant)
        y.sum().backward()
        return y, x.grad, modes

    same(program)


def test_the_form_must_be_said():
    def program(T):
        x = leaf(T)
        y = tools(T).checkpoint(curve, x)
        y.sum().backward()
        return y, x.grad

    same(program, warns="use_reentrant parameter should be passed explicitly", message="exact")


@pytest.mark.parametrize("use_reentrant", FORMS)
@pytest.mark.parametrize(
    "options",
    [{"zork": 1}, {"debug": True}, {"context_fn": lambda: 3}, {"determinism_check": "sometimes"}],
    ids=lambda options: next(iter(options)),
)
def test_options(use_reentrant, options):
    def program(T):
        return outcome_of(
            lambda: tools(T).checkpoint(curve, leaf(T), use_reentrant=use_reentrant, **options)
        )

    same(program, message="type" if "zork" in options or "context_fn" in options else "exact")


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_no_argument_requires_grad(use_reentrant):
    def program(T):
        w = leaf(T)
        y = tools(T).checkpoint(lambda x: x * w, T.ones(3), use_reentrant=use_reentrant)
        if y.requires_grad:
            y.sum().backward()
        return y, w.grad

    same(program, warns="None of the inputs have requires_grad" if use_reentrant else None)


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_in_no_grad_nothing_is_kept(use_reentrant):
    def program(T):
        calls = []

        def f(x):
            calls.append(1)
            return curve(x)

        with T.no_grad():
            return tools(T).checkpoint(f, leaf(T), use_reentrant=use_reentrant), calls

    same(program)


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_arguments_and_results_that_are_not_tensors(use_reentrant):
    def program(T):
        x, w = leaf(T), leaf(T)

        def f(x, number, pair, nothing):
            return x * number + pair[0], "text", None, (x * 2).exp()

        y = tools(T).checkpoint(f, x, 2.0, [w], None, use_reentrant=use_reentrant)
        (y[0] * y[3]).sum().backward()
        return y, x.grad, w.grad

    same(program)


def test_keyword_arguments_and_tensors_in_containers():
    def program(T):
        x, w, v = leaf(T), leaf(T), leaf(T)

        def f(x, parts, *, scale):
            return {"out": x * parts["w"] * scale}

        y = tools(T).checkpoint(f, x, {"w": w}, scale=v, use_reentrant=False)
        y["out"].exp().sum().backward()
        return y, x.grad, w.grad, v.grad

    same(program)


def test_autograd_grad_and_second_derivatives():
    def program(T):
        x = T.tensor([0.3, 0.7], dtype=T.float64, requires_grad=True)
        y = tools(T).checkpoint(curve, x, use_reentrant=False).sum()
        (g,) = T.autograd.grad(y, x, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), x, create_graph=True)
        (k,) = T.autograd.grad(h.sum(), x)
        return g.detach(), h.detach(), k

    same(program)


def test_gradcheck_of_a_checkpoint():
    def program(T):
        x = T.tensor([0.3, 0.7], dtype=T.float64, requires_grad=True)

        def f(x):
            return tools(T).checkpoint(curve, x, use_reentrant=False)

        return T.autograd.gradcheck(f, (x,)), T.autograd.gradgradcheck(f, (x,))

    same(program)


def test_the_reentrant_form_refuses_chosen_inputs():
    def program(T):
        x = leaf(T)
        y = tools(T).checkpoint(curve, x, use_reentrant=True).sum()
        return outcome_of(lambda: T.autograd.grad(y, x)), outcome_of(lambda: y.backward(inputs=[x]))

    same(program, message="exact")


def test_the_reentrant_form_needs_a_result_that_requires_grad():
    def program(T):
        def f(x):
            return x.detach() * 2

        tools(T).checkpoint(f, leaf(T), use_reentrant=True).sum().backward()

    same(program, raises=RuntimeError, match="this checkpoint.. is not necessary", message="exact")


@pytest.mark.parametrize("use_reentrant", FORMS)
@pytest.mark.parametrize("retain_graph", [True, False])
def test_two_backward_passes(use_reentrant, retain_graph):
    def program(T):
        x, w = leaf(T), leaf(T)
        y = tools(T).checkpoint(lambda x: (x * w).exp(), x, use_reentrant=use_reentrant).sum()
        y.backward(retain_graph=retain_graph)
        return outcome_of(y.backward), x.grad, w.grad

    same(program, message="exact")


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_an_argument_changed_in_place_is_caught(use_reentrant):
    def program(T):
        h = leaf(T) * 1
        y = tools(T).checkpoint(curve, h, use_reentrant=use_reentrant)
        h.add_(1)
        y.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="exact")


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_in_place_ops_inside(use_reentrant):
    def program(T):
        def f(x):
            y = x * 2
            y.mul_(x)
            y[0] = 3
            return y.exp_() * x

        x = leaf(T, 0.3, 0.5, 0.7)
        tools(T).checkpoint(f, x, use_reentrant=use_reentrant).sum().backward()
        return x.grad

    same(program)


def test_a_custom_function_inside():
    def program(T):
        class Square(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                y = x * x
                ctx.save_for_backward(x, y)
                return y

            @staticmethod
            def backward(ctx, g):
                x, y = ctx.saved_tensors
                return 2 * x * g + 0 * y

        x = leaf(T)
        tools(T).checkpoint(
            lambda x: Square.apply(x).sin(), x, use_reentrant=False
        ).sum().backward()
        return x.grad

    same(program)


def test_backward_inside():
    def program(T):
        x, w = leaf(T), leaf(T)

        def f(x):
            (g,) = T.autograd.grad((x * w).exp().sum(), x, create_graph=True)
            return g.sin()

        tools(T).checkpoint(f, x, use_reentrant=False).sum().backward()
        return x.grad, w.grad

    same(program, rtol=1e-5)


def test_the_second_run_stops_early():
    def program(T):
        def count(**options):
            steps = []

            def f(x):
                steps.append("first")
                y = x.exp().sin()
                steps.append("second")
                return y + 1

            tools(T).checkpoint(f, leaf(T), use_reentrant=False, **options).sum().backward()
            return steps

        with tools(T).set_checkpoint_early_stop(False):
            to_the_end = count()
        return count(), count(early_stop=False), to_the_end

    same(program)


def test_contexts_of_both_runs():
    def program(T):
        log = []

        @contextlib.contextmanager
        def say(name):
            log.append(name)
            try:
                yield
            finally:
                log.append("end of " + name)

        y = tools(T).checkpoint(
            curve, leaf(T), use_reentrant=False, context_fn=lambda: (say("first"), say("second"))
        )
        log.append("backward")
        y.sum().backward()
        return log

    same(program)


RUNS_DIFFER = {
    "fewer": lambda x, second: x * 2 if second else x.exp().sin(),
    "shape": lambda x, second: (x[:1] if second else x[:2]).exp(),
    "dtype": lambda x, second: (x.double() if second else x).exp().float(),
}


@pytest.mark.parametrize("name", RUNS_DIFFER)
def test_runs_that_differ_are_found_out(name):
    def program(T):
        runs = []

        def f(x):
            runs.append(1)
            return RUNS_DIFFER[name](x, len(runs) > 1)

        y = tools(T).checkpoint(f, leaf(T), use_reentrant=False)
        error = outcome_of(y.sum().backward)
        return error, isinstance(error, tools(T).CheckpointError), isinstance(error, RuntimeError)

    same(program, message="prefix")


@only_gradlite
def test_debug_names_the_lines():
    runs: list[int] = []

    def f(x: Any) -> Any:
        runs.append(1)
        return x * 2 if len(runs) > 1 else x.exp().sin()

    y = tools(T).checkpoint(f, leaf(T), use_reentrant=False, debug=True)
    with pytest.raises(RuntimeError, match="x.exp.*sin"):
        y.sum().backward()


@pytest.mark.parametrize("use_reentrant", FORMS)
def test_the_random_state_may_be_left_alone(use_reentrant):
    def program(T):
        def f(x):
            return x * T.rand(3)

        x = leaf(T)
        options = {"use_reentrant": use_reentrant, "preserve_rng_state": False}
        y = tools(T).checkpoint(f, x, **options)
        y.sum().backward()
        return bool((x.grad * x == y).all())

    assert same(program) is False


# ---------------------------------------------------------------- memory


def deep(layers: int, width: int) -> Any:
    T.manual_seed(0)
    parts: list[Any] = []
    for _ in range(layers):
        parts += [T.nn.Linear(width, width), T.nn.GELU(), T.nn.Dropout(0.1)]
    return T.nn.Sequential(*parts)


def peak(run: Any) -> int:
    """The most memory that a training step holds beyond what was there before."""
    run()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@only_gradlite
@pytest.mark.parametrize("use_reentrant", FORMS)
def test_the_peak_of_a_deep_network_falls(use_reentrant):
    """30 layers in 6 segments keep 6 inputs and one segment's values: about a third."""
    batch, width, layers = 512, 32, 30
    model = deep(layers, width)
    x = T.randn(batch, width)
    x.requires_grad_()

    def step(run: Any) -> None:
        run(x).square().mean().backward()
        for p in model.parameters():
            p.grad = None
        x.grad = None

    def checkpointed(x: Any) -> Any:
        return tools(T).checkpoint_sequential(model, 6, x, use_reentrant=use_reentrant)

    plain = peak(lambda: step(model))
    less = peak(lambda: step(checkpointed))
    one = batch * width * 4
    assert plain > 2 * layers * one
    assert less < 0.45 * plain


@only_gradlite
def test_nesting_lets_it_fall_further():
    batch, width, layers = 512, 32, 32
    model = deep(layers, width)
    x = T.randn(batch, width)
    x.requires_grad_()
    checkpoint = tools(T).checkpoint
    parts = list(model)

    def run(x: Any, start: int, stop: int) -> Any:
        if stop - start <= 12:
            for part in parts[start:stop]:
                x = part(x)
            return x
        middle = (start + stop) // 2
        x = checkpoint(run, x, start, middle, use_reentrant=False)
        return checkpoint(run, x, middle, stop, use_reentrant=False)

    def step(forward: Any) -> None:
        forward(x).square().mean().backward()
        for p in model.parameters():
            p.grad = None
        x.grad = None

    plain = peak(lambda: step(model))
    less = peak(lambda: step(lambda x: run(x, 0, len(parts))))
    assert less < 0.3 * plain


@only_gradlite
@pytest.mark.parametrize("use_reentrant", FORMS)
def test_a_checkpointed_graph_dies_by_reference_counting(no_gc, use_reentrant):
    x = leaf(T)
    arrays = []

    def f(x: Any) -> Any:
        y = x.exp()
        arrays.append(weakref.ref(y.array))
        return y.sin()

    y = tools(T).checkpoint(f, x, use_reentrant=use_reentrant)
    assert arrays[0]() is None
    y.sum().backward()
    assert arrays[1]() is None
    z = tools(T).checkpoint(f, x, use_reentrant=use_reentrant)
    node = weakref.ref(z.grad_fn)
    del z, y
    assert node() is None
