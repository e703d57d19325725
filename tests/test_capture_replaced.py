"""What a program puts in the place of something else: modules, classes, bases, states."""

from __future__ import annotations

import importlib
import sys
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import gradlite
from gradlite import distributions, nn, optim
from gradlite.utils.data import DataLoader, TensorDataset
from tests.capture_support import assert_change_counts

Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
CASES: dict[str, Case] = {}
NAME = "rates_of_a_tested_program"


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """A module of the program's own, with a number and a function."""
    sys.modules[NAME] = module(2.0)
    yield
    sys.modules.pop(NAME, None)
    sys.modules.pop(f"{NAME}_to_come", None)


def module(rate: float) -> types.ModuleType:
    made: Any = types.ModuleType(NAME)
    made.rate, made.by_rate = rate, lambda x: x * rate
    return made


def other_module() -> None:
    sys.modules[NAME] = module(3.0)


# ----------------------------------------------------------------------------- modules
@case
def a_module_that_is_imported() -> Any:
    def step(x: Any) -> Any:
        import rates_of_a_tested_program as rates  # type: ignore[import-not-found]

        return rates.by_rate(x)

    return step, other_module


@case
def a_module_that_something_is_imported_of() -> Any:
    def step(x: Any) -> Any:
        from rates_of_a_tested_program import rate  # type: ignore[import-not-found]

        return x * rate

    return step, other_module


@case
def a_module_in_the_table_of_modules() -> Any:
    return lambda x: sys.modules["rates_of_a_tested_program"].by_rate(x), other_module


@case
def a_module_of_a_name_that_is_put_together() -> Any:
    parts = NAME.split("_")
    return lambda x: x * importlib.import_module("_".join(parts)).rate, other_module


@case
def a_module_that_comes_into_the_table() -> Any:
    return (
        lambda x: x * (2 if "rates_of_a_tested_program_to_come" in sys.modules else 3),
        lambda: sys.modules.update({f"{NAME}_to_come": module(2.0)}),
    )


@case
def a_module_that_was_not_to_be_imported() -> Any:
    def step(x: Any) -> Any:
        try:
            import rates_of_a_tested_program_to_come as rates  # type: ignore[import-not-found]
        except ImportError:
            return x * 3
        return x * rates.rate

    return step, lambda: sys.modules.update({f"{NAME}_to_come": module(2.0)})


@case
def a_name_that_a_module_did_not_have() -> Any:
    def step(x: Any) -> Any:
        try:
            from rates_of_a_tested_program import factor
        except ImportError:
            return x * 3
        return x * factor

    return step, lambda: setattr(sys.modules[NAME], "factor", 2.0)


# ----------------------------------------------------------------------------- classes
class Doubling:
    factor = 2.0

    def scaled(self, x: Any) -> Any:
        return x * 2


class Tripling:
    factor = 3.0

    def scaled(self, x: Any) -> Any:
        return x * 3


def derived() -> Any:
    return type("Derived", (Doubling,), {"__module__": __name__})


def with_other_bases(kind: Any) -> Callable[[], None]:
    return lambda: setattr(kind, "__bases__", (Tripling,))


@pytest.mark.parametrize(
    "way",
    [
        lambda kind, value, x: value.scaled(x),
        lambda kind, value, x: kind().scaled(x),
        lambda kind, value, x: x * kind.factor,
        lambda kind, value, x: x * 2 if isinstance(value, Doubling) else x,
        lambda kind, value, x: x * 2 if issubclass(kind, Doubling) else x,
        lambda kind, value, x: super(kind, value).scaled(x),
    ],
)
def test_other_bases_of_a_class_count(way: Any) -> None:
    kind = derived()
    value = kind()
    assert_change_counts(lambda x: way(kind, value, x), with_other_bases(kind))


@case
def another_class_of_the_object_whose_method_is_captured() -> Any:
    class Trainer:
        def step(self, x: Any) -> Any:
            return self.scaled(x)

        def scaled(self, x: Any) -> Any:
            return x * 2

    class Other(Trainer):
        def scaled(self, x: Any) -> Any:
            return x * 3

    trainer = Trainer()
    return trainer.step, lambda: setattr(trainer, "__class__", Other)


@case
def another_class_of_what_a_weak_reference_refers_to() -> Any:
    value: Any = Doubling()
    reference = weakref.ref(value)
    return lambda x: reference().scaled(x), lambda: setattr(value, "__class__", Tripling)


class Marked(nn.Parameter):
    factor = 2.0

    def doubled(self) -> Any:
        return self * 2


class Descending(optim.SGD):
    factor = 2.0


@pytest.mark.parametrize("kind", [Marked, Descending])
@pytest.mark.parametrize("by", ["its class", "itself", "a class of its own"])
def test_attributes_of_parameters_and_optimizers_of_a_program_s_own_classes_count(
    kind: Any, by: str
) -> None:
    own = type("Own", (kind,), {"__module__": __name__, "factor": 2.0})
    layer = nn.Linear(2, 2)
    value: Any = own(gradlite.ones(2)) if kind is Marked else own(layer.parameters(), 0.1)

    def change() -> None:
        if by == "a class of its own":
            value.__class__ = type("Other", (kind,), {"__module__": __name__, "factor": 3.0})
        else:
            (own if by == "its class" else value).factor = 3.0

    assert_change_counts(lambda x: x * value.factor, change)


@case
def a_method_of_a_parameter_of_a_class_of_its_own() -> Any:
    own: Any = type("Own", (Marked,), {"__module__": __name__, "doubled": Marked.doubled})
    weight = own(gradlite.ones(2))
    return lambda x: x * weight.doubled(), lambda: setattr(own, "doubled", lambda self: self * 3)


def what_a_method_reads(change: Callable[[Any, Any], None]) -> Any:
    class Scaling(optim.SGD):
        factor = 2.0

        def scaled(self, x: Any) -> Any:
            return x * self.doubled()

        def doubled(self) -> float:
            return self.factor * 2

    optimizer = Scaling(nn.Linear(2, 2).parameters(), lr=0.1)
    return lambda x: optimizer.scaled(x), lambda: change(Scaling, optimizer)


@case
def what_a_method_of_an_optimizer_reads_of_its_class() -> Any:
    return what_a_method_reads(lambda kind, optimizer: setattr(kind, "factor", 3.0))


@case
def what_a_method_of_an_optimizer_reads_of_that() -> Any:
    return what_a_method_reads(lambda kind, optimizer: setattr(optimizer, "factor", 3.0))


# ------------------------------------------------------- attributes that a method has found
def finding(self: Any, name: str) -> Any:
    return 2.0


@case
def an_attribute_in_place_of_what_a_method_finds() -> Any:
    value = type("Finding", (), {"__module__": __name__, "__getattr__": finding})()
    return lambda x: x * value.factor, lambda: setattr(value, "factor", 3.0)


@case
def one_of_the_class_in_place_of_what_a_method_finds() -> Any:
    kind: Any = type("Finding", (), {"__module__": __name__, "__getattr__": finding})
    value = kind()
    return lambda x: x * value.factor, lambda: setattr(kind, "factor", 3.0)


@case
def one_of_a_module_in_place_of_what_its_function_finds() -> Any:
    rates: Any = types.ModuleType(NAME)
    rates.__getattr__ = lambda name: 2.0
    return lambda x: x * rates.factor, lambda: setattr(rates, "factor", 3.0)


# ------------------------------------------------------------ what the library's objects hold
@case
def a_dictionary_that_a_layer_of_the_library_was_given() -> Any:
    layer: Any = nn.Linear(2, 2)
    layer.settings = {"factor": 2.0}
    return lambda x: x * layer.settings["factor"], lambda: layer.settings.update(factor=3.0)


@case
def the_tensors_of_a_data_set() -> Any:
    loader: Any = DataLoader(TensorDataset(gradlite.ones(4)), batch_size=2)
    return (
        lambda x: x * sum(batch.sum() for (batch,) in loader),
        lambda: setattr(loader.dataset, "tensors", (gradlite.zeros(4),)),
    )


@case
def the_scale_of_a_transform() -> Any:
    transform: Any = distributions.AffineTransform(0.0, 2.0)
    return transform, lambda: setattr(transform, "scale", 3.0)


@case
def the_transform_of_a_distribution() -> Any:
    normal = distributions.Normal(0.0, 1.0)
    transformed = distributions.TransformedDistribution(
        normal, [distributions.AffineTransform(0.0, 2.0)]
    )
    return transformed.log_prob, lambda: transformed.transforms.append(
        distributions.AffineTransform(0.0, 2.0)
    )


def with_state(make: Any = optim.SGD, **options: Any) -> tuple[Any, Any]:
    weight = nn.Parameter(gradlite.ones(2))
    optimizer = make([weight], lr=0.1, **options)
    weight.grad = gradlite.ones(2)
    optimizer.step()
    return weight, optimizer


@pytest.mark.parametrize(
    "read",
    [
        lambda o, w: o.state[w]["momentum_buffer"],
        lambda o, w: next(iter(o.state[w].values())),
        lambda o, w: o.state_dict()["state"][0]["momentum_buffer"],
    ],
)
@pytest.mark.parametrize(
    "change",
    [
        lambda o, w: o.state[w].update(momentum_buffer=gradlite.full((2,), 5.0)),
        lambda o, w: o.state.update({w: {"momentum_buffer": gradlite.full((2,), 5.0)}}),
        lambda o, w: setattr(o, "state", type(o.state)({w: {"momentum_buffer": w.data}})),
        lambda o, w: (o.state.clear(), w.grad.mul_(3), o.step()),
    ],
)
def test_another_state_of_an_optimizer_counts(read: Any, change: Any) -> None:
    weight, optimizer = with_state(momentum=0.9)
    weight.data.fill_(7.0)
    assert_change_counts(
        lambda x: x * read(optimizer, weight), lambda: change(optimizer, weight), calls=8
    )


def test_a_state_that_an_optimizer_begins_while_the_step_is_recorded() -> None:
    """And begins again, after somebody has cleared it."""
    weight = nn.Parameter(gradlite.ones(2))
    optimizer = optim.SGD([weight], lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        (weight * x).sum().backward()
        optimizer.step()
        return optimizer.state[weight]["momentum_buffer"] * 1

    captured = gradlite.capture(step, warmup=0)
    found = []
    for i in range(16):
        if i == 8:
            optimizer.state.clear()
        found.append(captured(gradlite.ones(2))[0].item())
    assert found[8:] == found[:8] and len(set(found[:8])) == 8
    assert captured.replays >= 8


@pytest.mark.parametrize("name", CASES)
def test_a_change_counts(name: str) -> None:
    assert_change_counts(*CASES[name](), calls=8)
