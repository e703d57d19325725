"""Whatever a step's code reads and somebody changes between the calls counts in the next one.

Every case gives a step and a change; the captured step gives what the step gives without capture
before it and after it, with replays on both sides.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import weakref
from collections import UserDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.capture_support import assert_change_counts

Case = Callable[[], tuple[Callable[..., Any], Callable[[], Any]]]
CASES: dict[str, Case] = {}
CALLS = 6


def case(make: Case) -> Case:
    CASES[make.__name__.replace("_", " ").strip()] = make
    return make


class Holder:
    """An object with an attribute, a default, a property, and methods of every kind."""

    default = 2.0

    def __init__(self) -> None:
        self.number, self.tensor, self.ways = 2.0, gradlite.ones(2), {"by": 2.0}

    def __call__(self, x: Any) -> Any:
        return x * self.number

    def __getitem__(self, x: Any) -> Any:
        return x * self.number

    def __enter__(self) -> float:
        return self.number

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def doubled(self) -> float:
        return 2 * self.number

    def scaled(self, x: Any) -> Any:
        return x * self.number


class Layer(nn.Module):
    """A module whose attributes are more than numbers and tensors."""

    factor = 2.0

    def __init__(self) -> None:
        super().__init__()
        self.ways, self.sizes, self.tensors = {"by": 2.0}, [2.0], [gradlite.ones(2)]
        self.holder = Holder()

    def forward(self, x: Any) -> Any:
        for size in self.sizes:
            x = x * size * self.factor
        return x * self.ways["by"] * self.holder.number * self.tensors[0]


@dataclasses.dataclass(slots=True)
class Slotted:
    number: float = 2.0


def setting(owner: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(owner, name, value)


def putting(container: Any, key: Any, value: Any) -> Callable[[], None]:
    return lambda: container.__setitem__(key, value)


# ------------------------------------------------------------------- attributes of modules
@case
def a_dictionary_of_a_module() -> Any:
    layer = Layer()
    return lambda x: layer(x), putting(layer.ways, "by", 3.0)


@case
def a_number_of_a_module_past_its_setter() -> Any:
    class Own(Layer):
        def forward(self, x: Any) -> Any:
            return x * self.number

    own = Own()
    own.number = 2.0
    return lambda x: own(x), putting(vars(own), "number", 3.0)


@case
def a_list_of_a_module() -> Any:
    layer = Layer()
    return layer, lambda: layer.sizes.append(3.0)


@case
def a_tensor_in_a_list_of_a_module() -> Any:
    layer = Layer()
    return lambda x: layer(x), putting(layer.tensors, 0, gradlite.full((2,), 3.0))


@case
def an_object_of_a_module() -> Any:
    layer = Layer()
    return layer.forward, setting(layer.holder, "number", 3.0)


@case
def a_number_of_a_modules_class() -> Any:
    class Own(Layer):
        factor = 2.0

    return Own(), setting(Own, "factor", 3.0)


@case
def a_variable_of_a_modules_method() -> Any:
    by = [2.0]

    class Own(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * by[0]

    return Own(), putting(by, 0, 3.0)


@case
def another_forward_of_a_class() -> Any:
    class Own(Layer):
        def forward(self, x: Any) -> Any:
            return x * 2

    return Own(), setting(Own, "forward", lambda self, x: x * 3)


@case
def a_layer_in_front_of_others() -> Any:
    layers = nn.Sequential(nn.Tanh(), nn.Sigmoid())
    return lambda x: layers(x), lambda: layers.insert(0, nn.ReLU())


@case
def a_layer_less() -> Any:
    layers = nn.Sequential(nn.Tanh(), nn.Sigmoid())
    return lambda x: layers(x), lambda: layers.pop(0)


@case
def a_buffer_of_another_dtype() -> Any:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("third", gradlite.tensor(1 / 3))

        def forward(self, x: Any) -> Any:
            return x.double() * self.third

    own = Own()
    return own, own.half


@case
def another_class_of_a_module() -> Any:
    layer = nn.Sequential(nn.Tanh())
    return lambda x: layer(x), setting(layer[0], "__class__", nn.Sigmoid)


@case
def a_number_of_a_layer_that_is_derived() -> Any:
    class Own(nn.LeakyReLU):
        pass

    own = Own(0.1)
    return own, setting(own, "negative_slope", 0.5)


# ------------------------------------------------------------------------------- functions
@case
def a_variable_of_a_forward_hook() -> Any:
    layer, by = nn.Linear(2, 2), [2.0]
    layer.register_forward_hook(lambda module, args, out: out * by[0])
    return lambda x: layer(x), putting(by, 0, 3.0)


@case
def a_variable_of_a_tensors_hook() -> Any:
    weight, by = gradlite.ones(2, requires_grad=True), [2.0]
    weight.register_hook(lambda grad: grad * by[0])

    def step(x: Any) -> Any:
        weight.grad = None
        (x * weight).sum().backward()
        return weight.grad.clone()  # type: ignore[union-attr]

    return step, putting(by, 0, 3.0)


@case
def a_variable_of_a_rule_of_ones_own() -> Any:
    weight, by = gradlite.ones(2, requires_grad=True), [2.0]

    class Scale(gradlite.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad * by[0]

    def step(x: Any) -> Any:
        weight.grad = None
        (x * Scale.apply(weight)).sum().backward()
        return weight.grad.clone()  # type: ignore[union-attr]

    return step, putting(by, 0, 3.0)


@case
def an_argument_of_a_partial_function() -> Any:
    by = [2.0]
    times = functools.partial(lambda by, x: x * by[0], by)
    return lambda x: times(x), putting(by, 0, 3.0)


@case
def an_attribute_of_a_function() -> Any:
    def times(x: Any) -> Any:
        return x * times.by  # type: ignore[attr-defined]

    times.by = 2.0  # type: ignore[attr-defined]
    return lambda x: times(x), setting(times, "by", 3.0)


@case
def a_global_of_a_function_made_of_text() -> Any:
    space = {"number": 2.0}
    exec("class Own:\n    @staticmethod\n    def times(x):\n        return x * number", space)
    own: Any = space["Own"]
    return lambda x: own.times(x), putting(space, "number", 3.0)


# ----------------------------------------------------------- objects, classes and modules
@case
def what_a_call_of_an_object_reads() -> Any:
    holder = Holder()
    return lambda x: holder(x), setting(holder, "number", 3.0)


@case
def what_an_index_of_an_object_reads() -> Any:
    holder = Holder()
    return lambda x: holder[x], setting(holder, "number", 3.0)


@case
def what_a_context_reads() -> Any:
    holder = Holder()

    def step(x: Any) -> Any:
        with holder as number:
            return x * number

    return step, setting(holder, "number", 3.0)


@case
def what_a_property_reads() -> Any:
    holder = Holder()
    return lambda x: x * holder.doubled, setting(holder, "number", 3.0)


@case
def an_object_that_is_the_step() -> Any:
    holder = Holder()
    return holder, setting(holder, "number", 3.0)


@case
def an_attribute_beside_what_a_method_reads() -> Any:
    holder = Holder()
    return lambda x: holder.scaled(x) * holder.tensor, setting(holder, "tensor", gradlite.zeros(2))


@case
def a_default_of_a_class() -> Any:
    class Own(Holder):
        default = 2.0

    own = Own()
    return lambda x: x * own.default, setting(Own, "default", 3.0)


@case
def an_attribute_in_front_of_a_default() -> Any:
    holder = Holder()
    return lambda x: x * holder.default, setting(holder, "default", 3.0)


@case
def an_attribute_that_was_not_there() -> Any:
    holder = Holder()
    return lambda x: x * getattr(holder, "further", 1.0), setting(holder, "further", 3.0)


@case
def an_attribute_whose_name_is_a_value() -> Any:
    holder, name = Holder(), "number"
    return lambda x: x * getattr(holder, f"{name}"), setting(holder, "number", 3.0)


@case
def an_attribute_among_all() -> Any:
    holder = Holder()
    return lambda x: x * vars(holder)["number"], setting(holder, "number", 3.0)


@case
def other_attributes_altogether() -> Any:
    holder, other = Holder(), Holder()
    other.number = 3.0
    return holder, setting(holder, "__dict__", vars(other))


@case
def an_attribute_in_a_slot() -> Any:
    slotted = Slotted()
    return lambda x: x * slotted.number, setting(slotted, "number", 3.0)


@case
def an_object_behind_a_weak_reference() -> Any:
    holder = Holder()
    found = weakref.ref(holder)
    return lambda x: x * found().number, setting(holder, "number", 3.0)  # type: ignore[union-attr]


@case
def a_class_of_settings() -> Any:
    class Settings:
        number = 2.0

    return lambda x: x * Settings.number, setting(Settings, "number", 3.0)


@case
def a_module_of_settings() -> Any:
    settings: Any = types.ModuleType("settings")
    settings.number = 2.0
    return lambda x: x * settings.number, setting(settings, "number", 3.0)


@case
def another_class_behind_a_variable() -> Any:
    kinds = types.SimpleNamespace(layer=nn.ReLU)
    return lambda x: kinds.layer()(x), setting(kinds, "layer", nn.Sigmoid)


@case
def an_object_in_a_dictionary_of_weak_references() -> Any:
    holder = Holder()
    found = weakref.WeakValueDictionary(holder=holder)
    return lambda x: x * found["holder"].number, setting(holder, "number", 3.0)


@case
def an_object_behind_a_key_that_is_weakly_known() -> Any:
    key = Holder()
    found: Any = weakref.WeakKeyDictionary({key: 2.0})
    return lambda x: x * found[key], putting(found, key, 3.0)


# -------------------------------------------------------------------------------- containers
@case
def a_tensor_in_a_list() -> Any:
    tensors = [gradlite.ones(2)]
    return lambda x: x * tensors[0], putting(tensors, 0, gradlite.zeros(2))


@case
def one_tensor_more_in_a_list() -> Any:
    tensors = [gradlite.ones(2)]
    return lambda x: x * sum(tensors), lambda: tensors.append(gradlite.ones(2))


@case
def a_number_beside_a_tensor() -> Any:
    values = [gradlite.ones(2), 2.0]
    return lambda x: x * values[0] * values[1], putting(values, 1, 3.0)


@case
def a_list_in_a_default() -> Any:
    tensors = [gradlite.ones(2)]

    def step(x: Any, tensors: Any = tensors) -> Any:
        return x * tensors[0]

    return step, putting(tensors, 0, gradlite.zeros(2))


@case
def a_list_far_down() -> Any:
    tensors: Any = [gradlite.ones(2)]
    nested = [[[[[[tensors]]]]]]
    return lambda x: x * nested[0][0][0][0][0][0][0], putting(tensors, 0, gradlite.zeros(2))


@case
def one_key_more() -> Any:
    numbers = {"a": 2.0}
    return lambda x: x * sum(numbers.values()), putting(numbers, "b", 2.0)


@case
def keys_in_another_order() -> Any:
    numbers = {"a": 2.0, "b": 3.0}

    def step(x: Any) -> Any:
        for number in numbers.values():
            x = x * number + 1
        return x

    return step, lambda: numbers.update(a=numbers.pop("a"))


@case
def an_object_that_is_a_key() -> Any:
    holder = Holder()
    weights = {holder: 2.0}
    return (
        lambda x: x * sum(key.number * weight for key, weight in weights.items()),
        setting(holder, "number", 3.0),
    )


@case
def a_layer_in_a_key() -> Any:
    layer = nn.LeakyReLU(0.5)
    weights = {("first", layer): 2.0}
    return (
        lambda x: sum(key(x) * weight for (_, key), weight in weights.items()),
        setting(layer, "negative_slope", 0.25),
    )


@case
def an_object_that_is_weakly_known_as_a_key() -> Any:
    holder = Holder()
    weights = weakref.WeakKeyDictionary({holder: 2.0})
    return (
        lambda x: x * sum(key.number * weight for key, weight in weights.items()),
        setting(holder, "number", 3.0),
    )


@case
def a_dictionary_in_a_list() -> Any:
    settings = [{"by": 2.0}]
    return lambda x: x * settings[0]["by"], putting(settings, 0, {"by": 3.0})


@case
def a_zero_of_another_sign() -> Any:
    by = [0.0]
    return lambda x: 1 / (x * by[0]), putting(by, 0, -0.0)


@case
def bytes_that_may_be_edited() -> Any:
    numbers = bytearray([2])
    return lambda x: x * numbers[0], putting(numbers, 0, 3)


@case
def a_container_around_a_dictionary() -> Any:
    numbers = UserDict(by=2.0)
    return lambda x: x * numbers["by"], putting(numbers, "by", 3.0)


@case
def numbers_of_numpy_in_a_tuple() -> Any:
    fixed = (np.ones(2, np.float32),)
    return lambda x: x * gradlite.tensor(fixed[0]), lambda: fixed[0].fill(3)


@case
def a_value_of_a_class_that_a_constructor_reads() -> Any:
    class Base:
        factor = 2.0

        def __init__(self, number: float) -> None:
            self.number = number * self.factor

    class Made(Base):
        shift = 0.0

        def __init__(self) -> None:
            super().__init__(1.0 + self.shift)

    return lambda x: x * Made().number, lambda: setattr(Base, "factor", 3.0)


@case
def a_value_of_a_class_of_layers_that_a_constructor_reads() -> Any:
    class Made(nn.Module):
        factor = 2.0

        def __init__(self) -> None:
            super().__init__()
            self.by = self.factor

    return lambda x: x * Made().by, lambda: setattr(Made, "factor", 3.0)


@case
def the_names_of_all_attributes() -> Any:
    holder = types.SimpleNamespace(factor=2.0)
    return (
        lambda x: x * sum(not name.startswith("_") for name in dir(holder)),
        lambda: setattr(holder, "other", 3.0),
    )


@case
def a_number_in_many_lists() -> Any:
    inner = [2.0]
    root: Any = functools.reduce(lambda found, _: [found], range(2000), inner)

    def step(x: Any) -> Any:
        found = root
        while isinstance(found, list):
            found = found[0]
        return x * found

    return step, putting(inner, 0, 3.0)


@case
def a_number_behind_many_functions() -> Any:
    numbers = [2.0]

    def around(inner: Any) -> Any:
        return lambda x: x * numbers[0] if x.ndim == 1 else inner(x)

    return functools.reduce(lambda f, _: around(f), range(1000), around(None)), putting(
        numbers, 0, 3.0
    )


@pytest.mark.parametrize("name", CASES)
def test_a_change_counts(name: str) -> None:
    assert_change_counts(*CASES[name]())


def test_what_only_other_methods_use_may_change() -> None:
    """As a trainer counts its steps around the captured one, with a method of a common name."""

    class Trainer:
        def __init__(self) -> None:
            self.weight, self.steps = nn.Parameter(gradlite.ones(2)), 0
            self.optimizer = gradlite.optim.SGD([self.weight], lr=0.1)
            self.update = gradlite.capture(self._update, native=False)

        def step(self, x: Any) -> Any:
            self.steps += 1
            return self.update(x)

        def _update(self, x: Any) -> Any:
            loss = (self.weight * x).sum()
            loss.backward()
            self.optimizer.step()
            return loss

    trainer = Trainer()
    for _ in range(CALLS + 3):
        trainer.step(gradlite.ones(2))
    assert trainer.update.replays >= CALLS


def test_what_a_module_counts_beside_the_step_may_change() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.steps, self.logged = nn.Linear(2, 2), 0, {"loss": 0.0}

        def forward(self, x: Any) -> Any:
            return self.linear(x)

    counting = Counting()
    captured = gradlite.capture(counting, native=False)
    for i in range(CALLS + 3):
        counting.steps += 1
        counting.logged["loss"] = float(i)
        captured(gradlite.ones(2))
    assert captured.replays == CALLS


def test_hooks_of_all_modules_and_of_saved_values() -> None:
    layer, weight = nn.Linear(2, 2), gradlite.ones(2, requires_grad=True)

    def step(x: Any) -> Any:
        weight.grad = None
        (weight * x).sin().sum().backward()
        return layer(x) * weight.grad

    captured = gradlite.capture(step, native=False)
    x = gradlite.tensor([1.5, -2.0])

    def same() -> None:
        for _ in range(CALLS):
            assert captured(x).tolist() == step(x).tolist()

    same()
    handle = nn.modules.module.register_module_forward_hook(lambda module, args, out: out * 2)
    same()
    handle.remove()
    with gradlite.autograd.graph.saved_tensors_hooks(lambda t: t * 2, lambda t: t):
        same()
    assert captured.replays >= 3 * (CALLS - 3)


def test_a_global_that_has_the_name_of_an_attribute_may_change() -> None:
    space: dict[str, Any] = {"gradlite": gradlite, "number": 0, "factor": 2.0, "holder": Holder()}
    exec("def step(x):\n    return holder.number * x + [factor for _ in 'a'][0]", space)
    captured = gradlite.capture(space["step"])
    for i in range(8):
        space["number"] = i  # a counter of somebody's loop
        space["factor"] = 2.0 if i < 5 else 3.0
        found = captured(gradlite.ones(2)).tolist()
        assert found == [2.0 + space["factor"]] * 2
    assert captured.recordings == 2 and captured.replays >= 2
