"""A dead graph is freed at once by reference counting: every test runs with the collector off."""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.conftest import PASSED
from tests.library import ON_TORCH, library

T = library
pytestmark = pytest.mark.usefixtures("no_gc")
numpy_memory = pytest.mark.skipif(ON_TORCH, reason="tracemalloc does not see PyTorch's memory")

MEGABYTE = 262_144


def leaf(size: int = 3) -> Any:
    return T.linspace(0.5, 1.5, size).requires_grad_()


def watched(t: Any) -> Any:
    """A reference that dies with the tensor's memory, however many tensors share it."""
    return weakref.ref(t) if ON_TORCH else weakref.ref(owner(t.array))


def owner(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


@pytest.fixture(scope="module", autouse=True)
def frozen_past():
    """Collections look only at what the tests of this file make.

    It is not undone: the tests themselves are frozen from their collection on (conftest.py).
    The first use of compiled code leaves classes of ctypes' that refer to themselves.
    """
    T.nn.Sequential(T.nn.Linear(3, 4), T.nn.ReLU())(T.ones(2, 3)).sum().backward()
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def no_cycles(request):
    """Fails the test that leaves cyclic garbage behind; a test that failed leaves its traceback."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        vars(sys).pop(name, None)
    gc.collect()
    yield
    if request.node.stash.get(PASSED, False) is False:
        gc.collect()
        return
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        leaked = [type(item).__name__ for item in gc.garbage]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    ours = [name for name in leaked if name not in ("function", "cell", "tuple", "dict", "list")]
    assert not ours, f"reference cycles through {sorted(set(ours))}"


# ---------------------------------------------------------------- single tensors


def test_a_tensor_dies_with_its_last_name():
    t = T.ones(3)
    alive = watched(t)
    del t
    assert alive() is None


def test_a_leaf_and_its_grad_die():
    x = leaf()
    (x * x).sum().backward()
    alive = watched(x), watched(x.grad)
    del x
    assert [reference() for reference in alive] == [None, None]


def test_clearing_the_grad_frees_it():
    x = leaf()
    (x * x).sum().backward()
    alive = watched(x.grad)
    x.grad = None
    assert alive() is None


def test_a_view_keeps_its_memory_and_no_more():
    base = T.ones(3)
    view = base[1:]
    alive = watched(base)
    del base
    assert view.tolist() == [1.0, 1.0]
    if not ON_TORCH:
        assert alive() is not None
    del view
    assert alive() is None


def test_a_detached_alias_keeps_no_graph():
    x = leaf()
    h = x.exp()
    y = h.sin()
    alive = watched(h)
    d = y.detach()
    del h, y
    assert alive() is None and d.shape == (3,)


# ---------------------------------------------------------------- graphs

GRAPHS: dict[str, Callable[[Any], Any]] = {
    "product": lambda h: h * h,
    "exp": lambda h: h.exp(),
    "chain": lambda h: h.sin().exp().tanh() * 2,
    "matmul": lambda h: h[:, None] @ h[None],
    "softmax": lambda h: h.softmax(0),
    "sum": lambda h: h.sum(),
    "view": lambda h: h.view(3, 1).t(),
    "index": lambda h: h[[0, 1]],
    "mask": lambda h: h[h > 0],
    "cat": lambda h: T.cat([h, h]),
    "unbind": lambda h: h.unbind()[0] * h.unbind()[1],
    "max": lambda h: h.max(0)[0],
    "where": lambda h: T.where(h > 1, h, 0.0),
    "in_place": lambda h: h.clone().mul_(h).add_(1),
    "in_place_on_a_view": lambda h: written_through_a_view(h),
    "written_base": lambda h: view_of_a_written_base(h),
    "linear": lambda h: T.nn.functional.linear(h, T.ones(2, 3, requires_grad=True)),
    "layer_norm": lambda h: T.nn.functional.layer_norm(h, (3,)),
    "cross_entropy": lambda h: T.nn.functional.cross_entropy(h[None], T.tensor([1])),
    "retain_grad": lambda h: retained(h),
    "hooked": lambda h: hooked(h),
    "function": lambda h: Double.apply(h),
}


def written_through_a_view(h: Any) -> Any:
    base = h * 1
    base[1:].mul_(h[1:])
    base[0] = 2.0
    return base


def view_of_a_written_base(h: Any) -> Any:
    base = h * 1
    view = base[1:]
    base.exp_()
    return view * 2


def retained(h: Any) -> Any:
    y = h * 2
    y.retain_grad()
    return y * y


def hooked(h: Any) -> Any:
    y = h * 2
    y.register_hook(lambda g: g * 2)
    y.grad_fn.register_hook(lambda gi, go: None)
    y.grad_fn.register_prehook(lambda go: None)
    return y * y


class Double(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        result = x * 2
        ctx.save_for_backward(x, result)
        ctx.note = "kept"
        return result

    @staticmethod
    def backward(ctx, g):
        x, result = ctx.saved_tensors
        return g * 2 + (result - 2 * x)


def intermediate(x: Any) -> tuple[Any, Any]:
    h = x * 1.5
    return h, watched(h)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_dies_without_backward(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h)
    del h
    del y
    assert alive() is None


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_dies_after_backward(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h).sum()
    del h
    y.backward()
    del y
    assert alive() is None
    assert x.grad is not None


@pytest.mark.parametrize("name", [name for name in GRAPHS if name not in ("view", "index")])
def test_backward_frees_saved_values_while_the_result_lives(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h).sum()
    del h
    y.backward()
    assert alive() is None, "a saved value outlives the backward that freed it"
    assert y.shape == ()


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_dies_after_two_backwards(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h).sum()
    del h
    y.backward(retain_graph=True)
    y.backward()
    del y
    assert alive() is None


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_dies_after_autograd_grad(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h).sum()
    del h
    (g,) = T.autograd.grad(y, x)
    del y
    assert alive() is None and g.shape == (3,)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_dies_after_create_graph(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h).sum()
    del h
    (g,) = T.autograd.grad(y, x, create_graph=True)
    if g.requires_grad:
        T.autograd.grad(g.sum(), x, allow_unused=True)
    del y, g
    assert alive() is None


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_dies_after_an_exception_in_backward(name):
    x = leaf()
    h, alive = intermediate(x)
    y = GRAPHS[name](h).sum()

    def fail(g):
        raise ValueError("on purpose")

    h.register_hook(fail)
    del h
    with pytest.raises(ValueError, match="on purpose") as caught:
        y.backward()
    del y, caught
    assert alive() is None


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_survives_in_no_grad(name):
    x = leaf()
    with T.no_grad():
        h, alive = intermediate(x)
        y = GRAPHS[name](h) if name not in ("retain_grad", "hooked") else h * 2
        shares = y._is_view() if hasattr(y, "_is_view") else False
        del h
        if not shares:
            assert alive() is None
        del y
    assert alive() is None


def test_an_input_that_no_gradient_needs_is_not_kept():
    x = leaf()
    h, alive = intermediate(x)
    y = (h + 1).sum()
    del h
    assert alive() is None
    y.backward()


def test_an_output_replaces_the_input_that_is_not_needed():
    x = leaf()
    h, alive = intermediate(x)
    y = h.exp()
    del h
    assert alive() is None, "exp needs its output only"
    assert y.requires_grad


def test_a_product_with_a_constant_keeps_only_the_constant():
    x = leaf()
    h, alive = intermediate(x)
    y = h * T.ones(3)
    del h
    assert alive() is None, "the gradient of the constant is not wanted"
    assert y.requires_grad


def test_gradients_on_the_way_are_freed():
    """At most a few gradients live at once in a long chain."""
    x = leaf()
    alive: list[Any] = []
    y = x
    for _ in range(20):
        y = y.sin()
        y.register_hook(lambda g: alive.append(watched(g)))
    most = []
    x.register_hook(lambda g: most.append(sum(one() is not None for one in alive)))
    y.sum().backward()
    assert len(alive) == 20 and most[0] <= 3


def test_backward_frees_as_it_goes():
    """When the gradient reaches the first layer, the saved values of the later ones are gone."""
    x = leaf()
    alive: list[Any] = []
    y = x
    for _ in range(20):
        y = y.sin()
        alive.append(watched(y))
    most = []
    x.register_hook(lambda g: most.append(sum(one() is not None for one in alive)))
    root = y.sum()
    del y
    root.backward()
    assert most[0] <= 3


def test_retained_gradients_die_with_their_tensor():
    x = leaf()
    y = x * 2
    y.retain_grad()
    y.sum().backward()
    alive = watched(y.grad)
    del y
    assert alive() is None


def test_the_version_error_frees_its_graph():
    x = leaf()
    h, alive = intermediate(x)
    y = h.sin().sum()
    h.add_(1)
    del h
    with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
        y.backward()
    del y, caught
    assert alive() is None


def test_saved_tensors_hooks_make_no_cycle():
    x = leaf()
    with T.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
        h, alive = intermediate(x)
        y = h.exp().sin().sum()
    del h
    y.backward()
    del y
    assert alive() is None


def test_anomaly_mode_makes_no_cycle():
    x = leaf()
    with T.autograd.set_detect_anomaly(True):
        h, alive = intermediate(x)
        y = (h * h).sum()
        del h
        y.backward()
    del y
    assert alive() is None


def test_a_module_and_its_parameters_die():
    model = T.nn.Sequential(T.nn.Linear(3, 4), T.nn.ReLU(), T.nn.Linear(4, 1))
    model(T.ones(2, 3)).sum().backward()
    alive = [watched(p) for p in model.parameters()]
    del model
    assert [one() for one in alive] == [None] * 4


def test_post_accumulate_hooks_make_no_cycle():
    x = leaf()
    x.register_post_accumulate_grad_hook(lambda p: None)
    x.register_hook(lambda g: None)
    x.sum().backward()
    alive = watched(x)
    del x
    assert alive() is None


def test_walking_the_graph_makes_no_cycle():
    x = leaf()
    h, alive = intermediate(x)
    y = (h * h).sum()
    del h
    stack = [y.grad_fn]
    while stack:
        node = stack.pop()
        node.name()
        stack.extend(child for child, _ in node.next_functions if child is not None)
    del y, node, stack
    assert alive() is None


# ---------------------------------------------------------------- many steps


def train(steps: int, parameters: list[Any], inputs: Any) -> float:
    w1, b1, w2 = parameters
    for _ in range(steps):
        hidden = (inputs @ w1 + b1).tanh()
        loss = ((hidden @ w2) ** 2).mean()
        loss.backward()
        with T.no_grad():
            for p in parameters:
                p -= 1e-3 * p.grad
                p.grad = None
    return loss.item()


def fill_free_lists() -> None:
    """Python keeps up to 2,000 dead tuples of each length: fill that up, so that it cannot grow."""
    for length in range(1, 20):
        tuples = [(None,) * length for _ in range(2_500)]
        del tuples


def growth(step: Callable[[int], Any], steps: int) -> tuple[int, int]:
    """How many memory blocks of Python and bytes of array data `step(steps)` leaves behind."""
    step(20)
    fill_free_lists()
    arrays = [tracemalloc.DomainFilter(True, np.lib.tracemalloc_domain)]
    tracemalloc.start()
    try:
        step(20)
        data = tracemalloc.take_snapshot().filter_traces(arrays)
        step(20)
        more = tracemalloc.take_snapshot().filter_traces(arrays)
    finally:
        tracemalloc.stop()
    step(20)
    blocks = sys.getallocatedblocks()
    step(steps)
    blocks = sys.getallocatedblocks() - blocks
    return blocks, sum(t.size for t in more.traces) - sum(t.size for t in data.traces)


def test_ten_thousand_training_steps_leave_memory_flat():
    parameters = [T.randn(4, 8), T.randn(8), T.randn(8, 1)]
    for p in parameters:
        p.requires_grad_()
    inputs = T.randn(16, 4)
    blocks, data = growth(lambda steps: train(steps, parameters, inputs), 10_000)
    assert blocks < 100 and data == 0


@pytest.mark.parametrize("name", GRAPHS)
def test_every_graph_leaves_memory_flat(name):
    x = leaf()

    def run(steps: int) -> None:
        for _ in range(steps):
            x.grad = None
            GRAPHS[name](x * 1.5).sum().backward()

    blocks, data = growth(run, 200)
    assert blocks < 20 and data == 0


@numpy_memory
def test_accumulating_gradients_allocates_nothing_new():
    x = leaf(MEGABYTE)
    for _ in range(3):
        (x * 2.0).sum().backward()
    tracemalloc.start()
    try:
        (x * 2.0).sum().backward()
        current, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 4 * MEGABYTE / 10
    assert peak < 3.5 * 4 * MEGABYTE


@numpy_memory
def test_the_peak_of_a_training_step_is_the_sum_of_its_activations_and_a_few_buffers():
    """Twenty layers keep twenty activations; backward adds at most three buffers."""
    x = leaf(MEGABYTE)
    for _ in range(2):
        tracemalloc.start()
        try:
            y = x
            for _ in range(20):
                y = y.sin()
            root = y.sum()
            del y
            forward, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
            root.backward()
            _, peak = tracemalloc.get_traced_memory()
            del root
        finally:
            tracemalloc.stop()
        x.grad = None
    layers = 4 * MEGABYTE
    assert forward < 21 * layers
    assert peak < 24 * layers


@numpy_memory
def test_keeping_the_loss_keeps_no_activations():
    """``total += loss`` keeps graphs; after backward only the small nodes are left of each."""
    x = leaf(MEGABYTE)
    tracemalloc.start()
    try:
        losses = []
        for _ in range(5):
            loss = x.sin().exp().sum()
            loss.backward()
            losses.append(loss)
        x.grad = None
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(losses) == 5 and current < 4 * MEGABYTE / 10
