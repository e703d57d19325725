"""The grad mode as contexts, decorators, in generators, coroutines and threads, as in PyTorch."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.library import ON_TORCH, library
from tests.oracle import outcome_of, same

better_than_pytorch = pytest.mark.skipif(ON_TORCH, reason="PyTorch's mode is not per asyncio task")


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def modes(T: Any) -> tuple[bool, bool]:
    return T.is_grad_enabled(), T.is_inference_mode_enabled()


CONTEXTS = {
    "no_grad": lambda T: T.no_grad(),
    "enable_grad": lambda T: T.enable_grad(),
    "set_grad_enabled_true": lambda T: T.set_grad_enabled(True),
    "set_grad_enabled_false": lambda T: T.set_grad_enabled(False),
    "inference_mode": lambda T: T.inference_mode(),
    "inference_mode_false": lambda T: T.inference_mode(False),
    "autograd_grad_mode_no_grad": lambda T: T.autograd.no_grad(),
    "autograd_grad_mode_enable_grad": lambda T: T.autograd.enable_grad(),
}


# ---------------------------------------------------------------- contexts


def test_the_mode_is_on_at_the_start():
    same(modes)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_sets_and_restores_the_mode(name):
    def program(T):
        before = modes(T)
        with CONTEXTS[name](T):
            inside = modes(T)
            y = leaf(T) * 2
        return before, inside, y.requires_grad, y.is_leaf, modes(T)

    same(program)


@pytest.mark.parametrize("outer", CONTEXTS)
@pytest.mark.parametrize("inner", CONTEXTS)
def test_contexts_nest_freely(outer, inner):
    def program(T):
        seen = [modes(T)]
        with CONTEXTS[outer](T):
            seen.append(modes(T))
            with CONTEXTS[inner](T):
                seen.append(modes(T))
                seen.append((leaf(T) * 2).requires_grad)
            seen.append(modes(T))
        seen.append(modes(T))
        return seen

    same(program)


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_context_restores_the_mode_after_an_exception(name):
    def program(T):
        def fail():
            with CONTEXTS[name](T):
                raise ValueError("on purpose")

        return outcome_of(fail), modes(T)

    same(program)


def test_one_context_object_may_be_entered_again():
    def program(T):
        context, seen = T.no_grad(), []
        for _ in range(2):
            with context:
                seen.append(modes(T))
            seen.append(modes(T))
        return seen

    same(program)


def test_one_context_object_may_be_entered_after_the_mode_changed():
    def program(T):
        context, seen = T.enable_grad(), []
        with T.no_grad():
            with context:
                seen.append(modes(T))
            seen.append(modes(T))
        with context:
            seen.append(modes(T))
        seen.append(modes(T))
        return seen

    same(program)


def test_set_grad_enabled_acts_as_a_function():
    def program(T):
        T.set_grad_enabled(False)
        off = modes(T)
        T.set_grad_enabled(True)
        return off, modes(T)

    same(program)


def test_set_grad_enabled_as_a_context_restores_the_mode_before_the_call():
    def program(T):
        seen = []
        with T.no_grad():
            with T.set_grad_enabled(True):
                seen.append(modes(T))
            seen.append(modes(T))
        return seen, modes(T)

    same(program)


def test_set_grad_enabled_follows_an_expression():
    def program(T):
        x = leaf(T)
        return [outcome_of(lambda flag=flag: run_with(T, x, flag)) for flag in (True, False)]

    def run_with(T, x, flag):
        with T.set_grad_enabled(flag):
            return x * 2

    same(program)


def test_the_context_yields_nothing():
    def program(T):
        with (
            T.no_grad() as a,
            T.enable_grad() as b,
            T.set_grad_enabled(True) as c,
            T.inference_mode() as d,
        ):
            return a, b, c, d

    same(program)


# ---------------------------------------------------------------- decorators


@pytest.mark.parametrize("name", CONTEXTS)
def test_a_decorator_sets_the_mode_for_each_call(name):
    def program(T):
        if name.startswith("set_grad_enabled"):
            decorator = T.set_grad_enabled
            argument = name.endswith("true")

            @decorator(argument)
            def decorated():
                return modes(T)

        else:

            @CONTEXTS[name](T)
            def decorated():
                return modes(T)

        return decorated(), modes(T), decorated(), modes(T)

    same(program)


def test_decorators_without_parentheses():
    def program(T):
        @T.no_grad
        def off():
            return modes(T)

        @T.enable_grad
        def on():
            return modes(T)

        @T.inference_mode
        def inference():
            return modes(T)

        with T.no_grad():
            nested = on()
        return off(), on(), inference(), nested, modes(T)

    same(program)


def test_a_decorated_function_keeps_its_name_arguments_and_result():
    def program(T):
        @T.no_grad()
        def scale(x, factor=2, *, bias=0):
            """Scales."""
            return x * factor + bias

        return scale.__name__, scale.__doc__, scale(leaf(T), 3, bias=1), scale(x=leaf(T))

    same(program)


def test_a_decorated_method():
    def program(T):
        class Model:
            def __init__(self):
                self.w = leaf(T)

            @T.no_grad()
            def predict(self, x):
                return self.w * x

        return Model().predict(2.0)

    same(program)


def test_a_decorated_recursive_function():
    def program(T):
        seen = []

        @T.no_grad()
        def recurse(depth):
            seen.append(modes(T))
            if depth:
                recurse(depth - 1)
            seen.append(modes(T))

        recurse(3)
        return seen, modes(T)

    same(program)


def test_a_decorator_restores_the_mode_after_an_exception():
    def program(T):
        @T.no_grad()
        def fail():
            raise KeyError("on purpose")

        return outcome_of(fail), modes(T)

    same(program)


def test_decorating_a_class_warns():
    def program(T):
        @T.no_grad()
        class Thing:
            def __init__(self):
                self.modes = modes(T)

        return Thing().modes, modes(T)

    same(program, warns="Decorating classes is deprecated")


# ---------------------------------------------------------------- generators and coroutines


def test_a_decorated_generator_sets_the_mode_only_while_it_runs():
    def program(T):
        @T.no_grad()
        def generate():
            yield modes(T)
            yield modes(T)
            return modes(T)

        seen = []
        iterator = generate()
        while True:
            try:
                seen.append(next(iterator))
                seen.append(modes(T))
            except StopIteration as stop:
                return seen, stop.value, modes(T)

    same(program)


def test_a_decorated_generator_takes_sent_values_and_thrown_exceptions():
    def program(T):
        log = []

        @T.no_grad()
        def generate():
            received = yield "first"
            log.append((received, modes(T)))
            try:
                yield "second"
            except ValueError as error:
                log.append((error, modes(T)))
                yield "third"
            finally:
                log.append(("closed", modes(T)))

        g = generate()
        outcomes = [next(g), g.send("hello")]
        with warnings.catch_warnings():  # PyTorch throws as Python 3.12 and later advise against
            warnings.simplefilter("ignore", DeprecationWarning)
            outcomes.append(g.throw(ValueError("thrown")))
        g.close()
        return outcomes, log, modes(T)

    same(program)


def test_two_interleaved_generators_do_not_mix_their_modes():
    def program(T):
        @T.no_grad()
        def off():
            for _ in range(3):
                yield modes(T)

        @T.enable_grad()
        def on():
            for _ in range(3):
                yield modes(T)

        seen = []
        for pair in zip(off(), on()):
            seen.extend([*pair, modes(T)])
        return seen

    same(program)


def test_a_decorated_generator_left_early_restores_the_mode():
    def program(T):
        @T.inference_mode()
        def generate():
            while True:
                yield modes(T)

        for inside in generate():
            seen = (inside, modes(T))
            break
        return seen, modes(T)

    same(program)


@better_than_pytorch
def test_a_decorated_coroutine_runs_in_the_mode():
    """PyTorch's decorator holds only while the coroutine object is made."""
    T = library

    @T.no_grad()
    async def evaluate(x):
        before = T.is_grad_enabled()
        await asyncio.sleep(0)
        return before, T.is_grad_enabled(), (x * 2).requires_grad

    assert asyncio.run(evaluate(leaf(T))) == (False, False, False)
    assert T.is_grad_enabled()


@better_than_pytorch
def test_a_decorated_async_generator_runs_in_the_mode():
    T = library

    @T.no_grad()
    async def evaluate():
        for _ in range(3):
            yield T.is_grad_enabled()
            await asyncio.sleep(0)

    async def main():
        seen = []
        async for mode in evaluate():
            seen.extend([mode, T.is_grad_enabled()])
        return seen

    assert asyncio.run(main()) == [False, True] * 3


@better_than_pytorch
def test_asyncio_tasks_do_not_mix_their_modes():
    T = library
    seen: list[tuple[str, bool]] = []

    async def evaluate():
        with T.no_grad():
            for _ in range(3):
                seen.append(("evaluate", T.is_grad_enabled()))
                await asyncio.sleep(0)

    async def train():
        for _ in range(3):
            seen.append(("train", T.is_grad_enabled()))
            await asyncio.sleep(0)

    async def main():
        await asyncio.gather(evaluate(), train(), evaluate())

    asyncio.run(main())
    assert {mode for name, mode in seen if name == "evaluate"} == {False}
    assert {mode for name, mode in seen if name == "train"} == {True}
    assert T.is_grad_enabled()


@better_than_pytorch
def test_an_asyncio_task_starts_in_the_mode_of_its_creator():
    T = library

    async def child():
        return T.is_grad_enabled()

    async def main():
        with T.no_grad():
            task = asyncio.create_task(child())
        return await task, T.is_grad_enabled()

    assert asyncio.run(main()) == (False, True)


@better_than_pytorch
def test_a_copied_context_carries_the_mode():
    T = library
    with T.no_grad():
        context = contextvars.copy_context()
    assert context.run(T.is_grad_enabled) is False
    assert T.is_grad_enabled() is True


# ---------------------------------------------------------------- threads


@pytest.mark.parametrize("name", ["no_grad", "inference_mode"])
def test_a_new_thread_starts_with_grad_mode_on(name):
    def program(T):
        with CONTEXTS[name](T), ThreadPoolExecutor(1) as pool:
            return modes(T), pool.submit(modes, T).result()

    same(program)


def test_a_mode_set_in_a_thread_stays_there():
    def program(T):
        def off():
            T.set_grad_enabled(False)
            return modes(T)

        with ThreadPoolExecutor(1) as pool:
            return pool.submit(off).result(), modes(T)

    same(program)


def test_threads_in_different_modes_at_the_same_time():
    T = library
    barrier = threading.Barrier(4, timeout=30)
    errors: list[str] = []

    def work(flag: bool) -> None:
        x = leaf(T)
        for _ in range(200):
            with T.set_grad_enabled(flag):
                y = x * 2
                if y.requires_grad is not flag or T.is_grad_enabled() is not flag:
                    errors.append(f"{flag}")
        barrier.wait()

    threads = [threading.Thread(target=work, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors and T.is_grad_enabled()


def test_backward_runs_in_another_thread():
    def program(T):
        x = leaf(T)
        y = (x * x).sum()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(y.backward).result()
        return x.grad

    same(program)


def test_threads_accumulate_into_one_leaf():
    T = library
    x = T.zeros(3, requires_grad=True)

    def work(_):
        for _ in range(100):
            (x * 1.0).sum().backward()

    x.grad = T.zeros(3)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert x.grad.tolist() == [400.0] * 3


@pytest.mark.parametrize("requires_grad", [True, False])
def test_views_of_inference_tensors_are_inference_tensors_outside_of_the_graph(requires_grad):
    def program(T):
        with T.inference_mode():
            x = T.ones(2, 3, requires_grad=requires_grad)
        views = [x.view(-1), x[0], x.t(), *x.unbind(), *x.split(2, 1)]
        return [(v.is_inference(), v.requires_grad, v._is_view(), v.is_leaf) for v in views]

    same(program)


def test_inference_tensors_that_require_grad_are_resized_in_inference_mode():
    def program(T):
        with T.inference_mode():
            x = T.ones(1, 2, 3, requires_grad=True)
            x.resize_(1, 2)
            return x.shape == (1, 2), x.requires_grad, x.is_inference()

    same(program)
