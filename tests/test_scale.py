"""Deep, wide and nested graphs: no recursion, no quadratic time, no crash when they are freed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from time import perf_counter
from typing import Any

import pytest

from tests.library import library

T = library
pytestmark = pytest.mark.usefixtures("no_gc")

DEEP = 100_000


class Double(T.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * 1.0

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g + 0 * x


def chained(step: Callable[[Any], Any], x: Any, length: int) -> Any:
    y = x
    for _ in range(length):
        y = step(y)
    return y


def write_a_view(y: Any) -> Any:
    y[0].mul_(1.0)
    return y


def hooked(y: Any) -> Any:
    y = y * 1.0
    y.register_hook(lambda g: None)
    return y


def retained(y: Any) -> Any:
    y = y * 1.0
    y.retain_grad()
    return y


CHAINS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "function": (Double.apply, DEEP // 5),
    "sin": (lambda y: y.sin(), DEEP),
    "view": (lambda y: y.view(2), DEEP // 5),
    "clone": (lambda y: y.clone(), DEEP),
    "written_views": (write_a_view, DEEP // 20),
    "in_place": (lambda y: y.mul_(1.0), DEEP),
    "hooks": (hooked, DEEP // 5),
    "retained": (retained, DEEP // 5),
    "unbind_and_stack": (lambda y: T.stack(y.unbind()), DEEP // 10),
    "cat": (lambda y: T.cat([y[:1], y[1:]]), DEEP // 20),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_deep_chain_goes_backward_and_is_freed(name):
    step, length = CHAINS[name]
    x = T.tensor([0.5, 0.25], requires_grad=True)
    y = chained(step, x * 1.0, length)
    y.sum().backward()
    assert x.grad.shape == (2,)
    del y


@pytest.mark.parametrize("name", CHAINS)
def test_a_deep_chain_is_freed_without_a_backward(name):
    step, length = CHAINS[name]
    x = T.tensor([0.5, 0.25], requires_grad=True)
    y = chained(step, x * 1.0, length)
    del y
    assert x.grad is None


def test_a_deep_chain_is_freed_in_a_thread_with_a_small_stack():
    errors: list[BaseException] = []

    def work() -> None:
        try:
            x = T.tensor([0.5], requires_grad=True)
            y = chained(lambda y: y + 1.0, x, DEEP)
            y.backward()
            del y
            chained(lambda y: y + 1.0, x, DEEP)
        except BaseException as error:
            errors.append(error)

    # Python 3.13 frees 10,000 objects inside of each other, however small the stack is.
    room = 4096 if sys.version_info[:2] == (3, 13) else 256
    before = threading.stack_size(room * 1024)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(120)
    finally:
        threading.stack_size(before)
    assert not errors and not thread.is_alive()


def test_backward_does_not_use_the_python_stack():
    x = T.tensor([0.5], requires_grad=True)
    y = chained(lambda y: y.sin(), x, 5_000)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(200)
    try:
        y.backward()
    finally:
        sys.setrecursionlimit(before)
    assert x.grad is not None


def test_second_derivatives_of_a_deep_chain():
    x = T.tensor([0.5], requires_grad=True)
    y = chained(lambda y: y.sin(), x, 2_000)
    (g,) = T.autograd.grad(y, x, create_graph=True)
    (h,) = T.autograd.grad(g, x)
    assert h.shape == (1,)


def seconds(action: Callable[[], Any]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start


def shared_leaf(size: int) -> None:
    x = T.tensor([1.0], requires_grad=True)
    sum_of([x * 1.0 for _ in range(size)]).backward()
    assert x.grad.item() == size


def many_leaves(size: int) -> None:
    leaves = [T.tensor([1.0], requires_grad=True) for _ in range(size)]
    sum_of(leaves).backward()
    assert leaves[-1].grad.item() == 1.0


def many_inputs_of_grad(size: int) -> None:
    leaves = [T.tensor([1.0], requires_grad=True) for _ in range(size)]
    grads = T.autograd.grad(sum_of(leaves), leaves)
    assert len(grads) == size


def one_wide_op(size: int) -> None:
    leaves = [T.tensor([1.0], requires_grad=True) for _ in range(size)]
    T.cat(leaves).sum().backward()
    assert leaves[0].grad.item() == 1.0


def one_split(size: int) -> None:
    x = T.ones(size, requires_grad=True)
    sum_of(x.unbind()[:: size // 500]).backward()
    assert x.grad.sum().item() == 500


def many_views_of_one_base(size: int) -> None:
    base = T.ones(4, requires_grad=True) * 1.0
    views = [base[1:] for _ in range(size)]
    base.mul_(2.0)
    views[-1].sum().backward()
    assert views[0].grad_fn is not None


WIDE = {
    "shared_leaf": shared_leaf,
    "many_leaves": many_leaves,
    "many_inputs_of_grad": many_inputs_of_grad,
    "one_wide_op": one_wide_op,
    "one_split": one_split,
    "many_views_of_one_base": many_views_of_one_base,
}


def sum_of(tensors: Any) -> Any:
    """A balanced tree of additions."""
    tensors = list(tensors)
    while len(tensors) > 1:
        pairs = zip(tensors[::2], tensors[1::2])
        tensors = [a + b for a, b in pairs] + tensors[len(tensors) // 2 * 2 :]
    return tensors[0]


@pytest.mark.parametrize("name", WIDE)
def test_time_grows_with_the_size_of_a_wide_graph_and_not_with_its_square(name):
    action = WIDE[name]
    action(1_000)
    small = min(seconds(lambda: action(1_000)) for _ in range(3))
    large = min(seconds(lambda: action(8_000)) for _ in range(2))
    assert large < 30 * small + 0.05, f"8 times the size takes {large / small:.0f} times as long"


def test_a_backward_inside_a_backward_inside_a_backward():
    depth = 40

    class Nested(T.autograd.Function):
        @staticmethod
        def forward(ctx, x, level):
            ctx.save_for_backward(x)
            ctx.level = level
            return x * 2

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            with T.enable_grad():
                inner = x.detach().requires_grad_()
                y = Nested.apply(inner, ctx.level - 1) if ctx.level else inner * 2
                y.sum().backward()
            return inner.grad * g, None

    x = T.tensor([1.0], requires_grad=True)
    Nested.apply(x, depth).sum().backward()
    assert x.grad.item() == 2.0


def test_many_threads_build_and_run_their_own_graphs():
    errors: list[BaseException] = []
    shared = T.ones(3, requires_grad=True)

    def work(seed: int) -> None:
        try:
            for number in range(50):
                x = T.full((3,), float(seed), requires_grad=True)
                with T.no_grad():
                    assert not (x * 2).requires_grad
                y = (x * shared * number).sum()
                (g,) = T.autograd.grad(y, x)
                assert g.tolist() == [float(number)] * 3
                y = (x**2).sum()
                y.backward()
                assert x.grad.tolist() == [2.0 * seed] * 3
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors


def test_threads_go_backward_through_one_graph():
    x = T.ones(3, requires_grad=True)
    y = (x.exp() * x.sin()).sum()
    (expected,) = T.autograd.grad(y, x, retain_graph=True)
    results: list[Any] = []

    def work() -> None:
        for _ in range(50):
            results.append(T.autograd.grad(y, x, retain_graph=True)[0].tolist())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert len(results) == 200 and all(result == expected.tolist() for result in results)
