"""What a captured step reads in roundabout ways counts when it changes, as in
`tests/test_capture_reachable.py`: through functions of libraries, in classes, of optimizers."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import operator
import sys
import threading
import types
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from tests.capture_support import assert_change_counts

Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
CASES: dict[str, Case] = {}
DECORATORS: dict[str, Callable[[Any], Any]] = {
    "no_grad": gradlite.no_grad(),
    "inference_mode": gradlite.inference_mode(),
    "autocast": gradlite.autocast("cpu", enabled=False),
    "twice": lambda f: gradlite.no_grad()(gradlite.enable_grad()(f)),
    "func.grad": gradlite.func.grad,
    "func.vmap": gradlite.func.vmap,
    "func.jacrev": gradlite.func.jacrev,
    "singledispatch": functools.singledispatch,
    "contextmanager": lambda f: _entered(f),
}
variable: contextvars.ContextVar[float] = contextvars.ContextVar("variable", default=2.0)
number = 2.0


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


def putting(container: Any, key: Any, value: Any) -> Callable[[], None]:
    return lambda: container.__setitem__(key, value)


def _entered(f: Callable[..., Any]) -> Callable[..., Any]:
    @contextlib.contextmanager
    def manager(x: Any) -> Any:
        yield f(x)

    def call(x: Any) -> Any:
        with manager(x) as result:
            return result

    return call


class Holder:
    """An object with an attribute."""

    base = 2.0

    def __init__(self) -> None:
        self.number = 2.0

    def scaled(self, x: Any) -> Any:
        return x * self.base


class Derived(Holder):
    """A class that has everything of another one."""


def fresh() -> tuple[type, Any]:
    """Classes that a test may change: one that derives from another, and an object."""
    base = type("Base", (Holder,), {"__module__": __name__, "base": 2.0, "scaled": Holder.scaled})
    derived = type("Own", (base,), {"__module__": __name__})
    return derived, derived()


@pytest.mark.parametrize("name", DECORATORS)
def test_what_a_decorated_function_reads_counts(name: str) -> None:
    factor = [2.0]

    def helper(x: Any) -> Any:
        return (x * x * factor[0]).sum()

    decorated = DECORATORS[name](helper)
    assert_change_counts(lambda x: decorated(x), lambda: factor.append(factor.pop() + 1))
    factor[0] = 2.0
    assert_change_counts(decorated, lambda: factor.append(factor.pop() + 1))


# ---------------------------------------------------------------------- functions
@case
def the_code_of_a_function() -> Any:
    def helper(x: Any) -> Any:
        return x * 2

    def change() -> None:
        helper.__code__ = (lambda x: x * 3).__code__

    return lambda x: helper(x), change


@case
def its_defaults() -> Any:
    def helper(x: Any, k: float = 2.0) -> Any:
        return x * k

    def change() -> None:
        helper.__defaults__ = (3.0,)

    return lambda x: helper(x), change


@case
def its_keyword_defaults() -> Any:
    def helper(x: Any, *, k: float = 2.0) -> Any:
        return x * k

    return lambda x: helper(x), lambda: helper.__kwdefaults__.update(k=3.0)


@case
def the_keywords_of_a_partial() -> Any:
    helper = functools.partial(lambda x, k: x * k, k=2.0)
    return lambda x: helper(x), lambda: helper.keywords.update(k=3.0)


@case
def a_partial_method() -> Any:
    factor = [2.0]

    class Scaling:
        def scaled(self, x: Any, by: float) -> Any:
            return x * by * factor[0]

        doubled = functools.partialmethod(scaled, by=2.0)

    scaling = Scaling()
    return lambda x: scaling.doubled(x), lambda: factor.append(factor.pop() + 1)


@case
def an_attribute_behind_a_getter() -> Any:
    holder, get = Holder(), operator.attrgetter("number")
    return lambda x: x * get(holder), lambda: setattr(holder, "number", 3.0)


@case
def an_attribute_by_name_in_a_method() -> Any:
    class Step:
        def __init__(self) -> None:
            self.holder = Holder()

        def __call__(self, x: Any) -> Any:
            return x * getattr(self.holder, "number")  # noqa: B009

    step = Step()
    return step, lambda: setattr(step.holder, "number", 3.0)


@case
def a_pattern() -> Any:
    holder = Holder()

    def step(x: Any) -> Any:
        match holder:
            case Holder(number=k):
                return x * k

    return step, lambda: setattr(holder, "number", 3.0)


# ------------------------------------------------------------------------ modules
@case
def a_module_imported_in_the_step() -> Any:
    module: Any = types.ModuleType("settings_of_a_test")
    module.number = 2.0
    sys.modules["settings_of_a_test"] = module

    def step(x: Any) -> Any:
        import settings_of_a_test  # type: ignore[import-not-found]

        return x * settings_of_a_test.number

    return step, lambda: setattr(module, "number", 3.0)


@case
def a_module_that_computes_its_attributes() -> Any:
    module: Any = types.ModuleType("computing")
    exec("values = {'number': 2.0}\ndef __getattr__(name): return values[name]", vars(module))
    return lambda x: x * module.number, lambda: module.values.update(number=3.0)


@case
def another_module() -> Any:
    class Step:
        module: Any = types.ModuleType("first")

        def __call__(self, x: Any) -> Any:
            return x * self.module.number

    step, other = Step(), types.ModuleType("second")
    step.module.number, other.number = 2.0, 3.0  # type: ignore[attr-defined]
    return step, lambda: setattr(step, "module", other)


@case
def a_variable_by_name() -> Any:
    globals()["number"] = 2.0
    return lambda x: x * globals()["number"], lambda: globals().update(number=3.0)


@case
def a_variable_of_the_environment() -> Any:
    patch = pytest.MonkeyPatch()
    patch.setenv("GRADLITE_TEST_NUMBER", "2")

    def step(x: Any) -> Any:
        import os

        return x * float(os.environ.get("GRADLITE_TEST_NUMBER", "5"))

    return step, patch.undo


@case
def a_context_variable() -> Any:
    variable.set(2.0)
    return lambda x: x * variable.get(), lambda: variable.set(3.0)


@case
def what_a_thread_has_for_itself() -> Any:
    local = threading.local()
    local.number = 2.0
    return lambda x: x * local.number, lambda: setattr(local, "number", 3.0)


# ------------------------------------------------------------------------ classes
@case
def an_attribute_that_comes_to_hide_that_of_a_base() -> Any:
    derived, holder = fresh()
    return lambda x: x * holder.base, lambda: setattr(derived, "base", 3.0)


@case
def a_method_that_comes_to_hide_that_of_a_base() -> Any:
    derived, holder = fresh()
    return lambda x: holder.scaled(x), lambda: setattr(derived, "scaled", lambda self, x: x * 3)


@case
def a_method_of_one_object() -> Any:
    _, holder = fresh()
    return lambda x: holder.scaled(x), lambda: setattr(holder, "scaled", lambda x: x * 3)


@case
def a_method_of_one_object_that_its_own_method_calls() -> Any:
    class Step:
        def __call__(self, x: Any) -> Any:
            return self.scaled(x)

        def scaled(self, x: Any) -> Any:
            return x * 2

    step = Step()
    return step, lambda: setattr(step, "scaled", lambda x: x * 3)


@case
def another_class() -> Any:
    class Other(Holder):
        base = 3.0

    _, holder = fresh()
    return lambda x: holder.scaled(x), lambda: setattr(holder, "__class__", Other)


@case
def what_a_constructor_reads() -> Any:
    factor = [2.0]

    class Scale:
        def __init__(self) -> None:
            self.by = factor[0]

    return lambda x: x * Scale().by, lambda: factor.append(factor.pop() + 1)


@case
def a_property_of_a_class_of_classes() -> Any:
    class Meta(type):
        @property
        def by(cls) -> float:
            return cls.value  # type: ignore[attr-defined,no-any-return]

    class Scale(metaclass=Meta):
        value = 2.0

    return lambda x: x * Scale.by, lambda: setattr(Scale, "value", 3.0)


@case
def an_attribute_of_a_container() -> Any:
    class Options(dict[str, float]):
        by = 1.0

    options = Options()
    options.by = 2.0
    return lambda x: x * options.by, lambda: setattr(options, "by", 3.0)


@case
def what_makes_missing_items() -> Any:
    factor = [2.0]
    table: Any = defaultdict(lambda: factor[0])

    def step(x: Any) -> Any:
        result = x * table["absent"]
        del table["absent"]
        return result

    return step, lambda: factor.append(factor.pop() + 1)


# ---------------------------------------------------------- objects of the library
@case
def a_learning_rate_that_the_step_reads() -> Any:
    optimizer = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=2.0)

    def change() -> None:
        optimizer.param_groups[0]["lr"] = 3.0

    return lambda x: x * optimizer.param_groups[0]["lr"], change


@case
def a_learning_rate_of_a_loaded_state() -> Any:
    parameters = [nn.Parameter(gradlite.ones(2))]
    optimizer = optim.SGD(parameters, lr=2.0)
    saved = optim.SGD(parameters, lr=3.0).state_dict()
    read = "lr"
    return (
        lambda x: x * {k: v for k, v in optimizer.param_groups[0].items() if k == read}[read],
        lambda: optimizer.load_state_dict(saved),
    )


@case
def state_of_an_optimizer_that_the_step_reads() -> Any:
    weight = nn.Parameter(gradlite.ones(2))
    optimizer = optim.SGD([weight], lr=0.1, momentum=0.9)
    weight.grad = gradlite.ones(2)
    optimizer.step()
    other = {"state": {0: {"momentum_buffer": gradlite.full((2,), 3.0)}}}
    return (
        lambda x: x * optimizer.state[weight]["momentum_buffer"],
        lambda: optimizer.load_state_dict({**optimizer.state_dict(), **other}),
    )


@case
def where_a_schedule_is() -> Any:
    optimizer = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=2.0)
    schedule = optim.lr_scheduler.StepLR(optimizer, 1)
    optimizer.step()
    return lambda x: x * schedule.get_last_lr()[0] + schedule.last_epoch, schedule.step


@case
def an_attribute_that_somebody_gave_an_optimizer() -> Any:
    optimizer: Any = optim.SGD([nn.Parameter(gradlite.ones(2))], lr=2.0)
    optimizer.by = 2.0
    return lambda x: x * optimizer.by, lambda: setattr(optimizer, "by", 3.0)


@case
def an_attribute_that_somebody_gave_a_parameter() -> Any:
    layer: Any = nn.Linear(2, 2)
    layer.weight.by = 2.0
    return (
        lambda x: x * sum(p.by for p in layer.parameters() if hasattr(p, "by")),
        lambda: setattr(layer.weight, "by", 3.0),
    )


@case
def what_a_distribution_is_made_of() -> Any:
    prior = gradlite.distributions.Normal(gradlite.zeros(2), gradlite.ones(2))
    return lambda x: prior.log_prob(x), lambda: setattr(prior, "loc", gradlite.ones(2))


@case
def what_a_function_has_kept() -> Any:
    holder = Holder()
    kept = functools.lru_cache(lambda: holder.number)
    kept()
    holder.number = 3.0  # which the function does not know yet
    return lambda x: x * kept(), kept.cache_clear


@case
def a_function_for_a_class_that_has_another_one() -> Any:
    scaled = functools.singledispatch(lambda k, x: x * k)
    return lambda x: scaled(2, x), lambda: scaled.register(int, lambda k, x: x * 3)


@case
def an_attribute_in_front_of_one_of_the_class_of_a_class() -> Any:
    meta = type("Meta", (type,), {"__module__": __name__, "by": 2.0})
    kind: Any = meta("Own", (), {"__module__": __name__})
    return lambda x: x * kind.by, lambda: setattr(kind, "by", 3.0)


@case
def a_variable_in_front_of_a_function_of_pythons() -> Any:
    variables = {"__builtins__": __builtins__}
    exec("def step(x): return x * max(1, 2)", variables)
    return variables["step"], putting(variables, "max", lambda *numbers: 3)


@case
def what_a_view_of_a_dictionary_shows() -> Any:
    numbers = {"k": 2.0}
    values = numbers.values()
    return lambda x: x * sum(values), putting(numbers, "k", 3.0)


@case
def a_number_of_a_layer_past_setattr() -> Any:
    layer = nn.LeakyReLU(0.5)
    return lambda x: layer(x), putting(vars(layer), "negative_slope", 0.25)


@case
def another_number_of_a_layer_past_setattr() -> Any:
    layer = nn.BatchNorm1d(2, affine=False).eval()
    return lambda x: layer(x[None]), lambda: object.__setattr__(layer, "eps", 2.0)


@case
def a_tensor_of_a_layer_past_setattr() -> Any:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = gradlite.ones(2)

        def forward(self, x: Any) -> Any:
            return x * self.weight

    layer = Scale()
    return lambda x: layer(x), putting(vars(layer), "weight", gradlite.full((2,), 3.0))


@pytest.mark.parametrize("name", CASES)
def test_a_change_counts(name: str) -> None:
    assert_change_counts(*CASES[name]())


def test_a_number_beside_the_step_makes_no_other_recording() -> None:
    """Of optimizers and their groups counts what the step's code mentions."""
    layer = nn.Linear(2, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    schedule = optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layer(x).square().sum()
        loss.backward()
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)
        optimizer.step()
        return loss

    captured = gradlite.capture(step, native=False)
    for _ in range(8):
        captured(gradlite.ones(3, 2))
        schedule.step()
    assert (captured.recordings, captured.replays) == (1, 5)
