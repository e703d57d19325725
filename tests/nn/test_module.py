"""Module: registration, attributes, traversal, modes, conversion, printing, copies."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.nn.programs import family, fill, tensor
from tests.oracle import outcome_of, same


def names(pairs: Any) -> list[str]:
    return [name for name, _ in pairs]


def test_members_are_listed_in_order_and_once() -> None:
    def program(library: Any) -> Any:
        module = family(library)()
        return {
            "parameters": names(module.named_parameters()),
            "own parameters": names(module.named_parameters(recurse=False)),
            "prefixed": names(module.named_parameters("model")),
            "duplicates": names(module.named_parameters(remove_duplicate=False)),
            "buffers": names(module.named_buffers()),
            "own buffers": names(module.named_buffers(recurse=False)),
            "modules": names(module.named_modules()),
            "all modules": names(module.named_modules(remove_duplicate=False)),
            "number of modules": len([*module.modules()]),
            "of all modules": len([*module.modules(remove_duplicate=False)]),
            "prefixed modules": names(module.named_modules(prefix="m")),
            "children": names(module.named_children()),
            "counts": [
                len(list(module.parameters())),
                len(list(module.buffers())),
                len(list(module.modules())),
                len(list(module.children())),
            ],
            "tables": [
                list(module._parameters),
                list(module._buffers),
                list(module._modules),
                "tied" in module._parameters,
                module._parameters["absent"],
            ],
            "state": list(module.state_dict()),
            "repr": repr(module),
        }

    same(program)


BEFORE_INIT = {
    "parameter": lambda library, self: setattr(self, "w", library.nn.Parameter(library.ones(1))),
    "module": lambda library, self: setattr(self, "w", library.nn.Linear(1, 1)),
    "buffer": lambda library, self: setattr(self, "w", library.nn.Buffer(library.ones(1))),
    "register_buffer": lambda library, self: self.register_buffer("w", library.ones(1)),
    "register_parameter": lambda library, self: self.register_parameter("w", None),
}


@pytest.mark.parametrize("what", BEFORE_INIT)
def test_registration_before_init(what: str) -> None:
    def program(library: Any) -> Any:
        class Early(library.nn.Module):
            def __init__(self) -> None:
                BEFORE_INIT[what](library, self)

        Early()

    same(program, raises=AttributeError, match="before Module.__init__", message="exact")


def test_a_plain_attribute_may_come_before_init() -> None:
    class Early(nn.Module):
        def __init__(self) -> None:
            self.size = 3
            super().__init__()

    assert Early().size == 3


WRONG_VALUES = {
    "int": lambda library: 3,
    "str": lambda library: "s",
    "list": lambda library: [1],
    "array": lambda library: np.ones(2),
    "float32": lambda library: library.ones(2),
    "float64": lambda library: library.ones(2).double(),
    "int64": lambda library: library.arange(2),
    "bool": lambda library: library.ones(2) > 0,
    "module": lambda library: library.nn.Linear(1, 1),
    "function": lambda library: len,
}


@pytest.mark.parametrize("value", WRONG_VALUES)
@pytest.mark.parametrize("name", ["parameter", "buffer", "child"])
def test_wrong_values_for_registered_names(value: str, name: str) -> None:
    if name == "buffer" and value in ("float32", "float64", "int64", "bool", "module"):
        pytest.skip("a buffer takes tensors and gives way to modules")
    if name == "child" and value == "module":
        pytest.skip("a child gives way to modules")

    def program(library: Any) -> Any:
        module = library.nn.Module()
        module.parameter = library.nn.Parameter(library.ones(1))
        module.register_buffer("buffer", library.ones(1))
        module.child = library.nn.Identity()
        setattr(module, name, WRONG_VALUES[value](library))

    same(program, raises=TypeError, match="cannot assign", message="exact")


REGISTRATIONS = {
    "register_parameter": lambda library: library.nn.Parameter(library.ones(1)),
    "register_buffer": lambda library: library.ones(1),
    "add_module": lambda library: library.nn.Identity(),
    "register_module": lambda library: library.nn.Identity(),
}


@pytest.mark.parametrize("method", REGISTRATIONS)
@pytest.mark.parametrize(
    "name", [3, "a.b", "", "forward", "training", "weight", "running", "child"]
)
def test_names_that_cannot_be_registered(method: str, name: Any) -> None:
    if (method, name) in [
        ("register_parameter", "weight"),
        ("register_buffer", "running"),
        ("add_module", "child"),
        ("register_module", "child"),
    ]:
        pytest.skip("replaces what is registered")

    def program(library: Any) -> Any:
        module = library.nn.Module()
        module.weight = library.nn.Parameter(library.ones(1))
        module.register_buffer("running", library.ones(1))
        module.child = library.nn.Identity()
        getattr(module, method)(name, REGISTRATIONS[method](library))

    same(program, raises=(KeyError, TypeError), message="exact")


@pytest.mark.parametrize("method", REGISTRATIONS)
def test_values_that_cannot_be_registered(method: str) -> None:
    same(
        lambda library: getattr(library.nn.Module(), method)("name", 3),
        raises=TypeError,
        message="exact",
    )


def test_a_computed_tensor_is_no_parameter() -> None:
    def program(library: Any) -> Any:
        parameter = library.nn.Parameter(library.ones(2))
        library.nn.Module().register_parameter("w", parameter)
        with library.no_grad():
            parameter.mul_(2)
        return library.nn.Parameter(parameter * 2).is_leaf

    same(program)


def test_assignment_moves_names_between_tables() -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        module = nn.Module()
        history = []

        def look() -> None:
            history.append(
                [list(t) for t in (module._parameters, module._buffers, module._modules)]
            )

        module.x = 3
        module.x = nn.Parameter(library.ones(1))
        look()
        module.x = None
        look()
        module.x = nn.Parameter(library.zeros(1))
        look()
        module.register_buffer("b", library.ones(1))
        module.b = nn.Identity()
        look()
        module.b = nn.Parameter(library.ones(1))
        look()
        module.c = nn.Buffer(library.ones(1), persistent=False)
        module.d = nn.Buffer(library.ones(1))
        look()
        module.c = library.ones(2)
        module.d = None
        look()
        history.append(list(module.state_dict()))
        module.d = nn.Identity()
        module.d = nn.Buffer(library.ones(1)) if False else None
        del module.x
        del module.c
        look()
        history.append(hasattr(module, "x"))
        return history

    same(program)


def test_reading_and_deleting_what_is_not_there() -> None:
    def program(library: Any) -> Any:
        linear = library.nn.Linear(1, 1)
        return [
            outcome_of(lambda: linear.missing),
            outcome_of(lambda: delattr(linear, "missing")),
        ]

    same(program, message="exact")


def test_attributes_are_read_as_fast_as_plain_ones() -> None:
    linear = nn.Linear(2, 2)
    assert linear.__dict__["weight"] is linear.weight
    assert "__getattr__" not in nn.Module.__dict__


def test_the_tables_write_through() -> None:
    linear = nn.Linear(2, 2)
    other = nn.Parameter(gradlite.zeros(2, 2))
    linear._parameters["weight"] = other
    assert linear.weight is other
    assert linear._parameters.pop("bias") is not None
    assert not hasattr(linear, "bias")
    linear._parameters["bias"] = None
    assert linear.bias is None
    assert linear._parameters.copy() == {"weight": other, "bias": None}
    assert repr(linear._modules) == "{}"


@pytest.mark.parametrize(
    "target", ["", "inner", "first.weight", "inner.scale", "x", "inner.x", "a.b"]
)
@pytest.mark.parametrize("getter", ["get_submodule", "get_parameter", "get_buffer"])
def test_getting_by_dotted_name(getter: str, target: str) -> None:
    def program(library: Any) -> Any:
        got = outcome_of(lambda: getattr(family(library)(), getter)(target))
        return got if isinstance(got, Exception) else type(got)

    same(program, message="exact")


def test_getting_a_buffer_and_setting_a_submodule() -> None:
    def program(library: Any) -> Any:
        module = family(library)()
        module.set_submodule("inner", library.nn.ReLU())
        return [
            family(library)().get_buffer("inner.count"),
            repr(module),
            outcome_of(lambda: module.set_submodule("", library.nn.ReLU())),
            outcome_of(lambda: module.set_submodule("first.weight", library.nn.ReLU())),
            outcome_of(lambda: module.set_submodule("new", library.nn.ReLU(), strict=True)),
        ]

    same(program)


def test_apply_visits_children_first() -> None:
    def program(library: Any) -> Any:
        seen: list[str] = []
        module = family(library)()
        returned = module.apply(lambda m: seen.append(type(m).__name__))
        return seen, returned is module

    same(program)


def test_train_and_eval() -> None:
    def program(library: Any) -> Any:
        module = family(library)()
        flags = [[m.training for m in module.modules()]]
        assert module.eval() is module
        flags.append([m.training for m in module.modules()])
        module.inner.train()
        flags.append([m.training for m in module.modules()])
        return flags, outcome_of(lambda: module.train(1))

    same(program, message="exact")


def test_requires_grad_and_zero_grad() -> None:
    def program(library: Any) -> Any:
        module = fill(library, family(library)())
        module(tensor(library, 1, 3, 2)).sum().backward()
        grads = [None if p.grad is None else p.grad.clone() for p in module.parameters()]
        module.zero_grad(set_to_none=False)
        zeros = [p.grad for p in module.parameters()]
        module.zero_grad()
        nones = [p.grad for p in module.parameters()]
        module.requires_grad_(False)
        return grads, zeros, nones, [p.requires_grad for p in module.parameters()]

    same(program)


def test_zero_grad_detaches_a_grad_with_a_graph() -> None:
    def program(library: Any) -> Any:
        module = fill(library, library.nn.Linear(2, 1))
        loss = (module(tensor(library, 1, 2)) ** 2).sum()
        parameters = list(module.parameters())
        grads = library.autograd.grad(loss, parameters, create_graph=True)
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad * 1
        module.zero_grad(set_to_none=False)
        return [(p.grad.requires_grad, p.grad) for p in parameters]

    same(program)


def test_calling_and_making_a_bare_module() -> None:
    def program(library: Any) -> Any:
        module = library.nn.Module
        return [
            outcome_of(lambda: module()(3)),
            outcome_of(lambda: module(3)),
            outcome_of(lambda: module(a=3)),
        ]

    same(program, message="exact")


def test_call_hands_on_all_arguments() -> None:
    class Echo(nn.Module):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return args, kwargs

    assert Echo()(1, 2, x=3) == ((1, 2), {"x": 3})


def test_repr_of_extra_lines() -> None:
    def program(library: Any) -> Any:
        class Extra(library.nn.Module):
            def __init__(self, text: str, *children: Any) -> None:
                super().__init__()
                self.text = text
                for number, child in enumerate(children):
                    self.add_module(f"child{number}", child)

            def extra_repr(self) -> str:
                return self.text

        return [
            repr(Extra("")),
            repr(Extra("a=1")),
            repr(Extra("a=1\nb=2")),
            repr(Extra("a=1", Extra("x\ny", Extra("z")))),
            repr(Extra("", Extra(""), Extra(""))),
        ]

    same(program)


def test_dir_lists_registered_names_but_no_numbers() -> None:
    listed = dir(nn.Sequential(nn.Linear(1, 1)))
    assert "0" not in listed
    assert {"weight", "forward", "training"} <= set(dir(nn.Linear(1, 1)))


def test_deepcopy_keeps_tied_parameters_tied() -> None:
    def program(library: Any) -> Any:
        module = fill(library, family(library)())
        module.first.weight.grad = library.ones(2, 2).double()
        twin = copy.deepcopy(module)
        return [
            twin.tied is twin.first.weight,
            twin.tied is not module.tied,
            twin.again is twin.inner,
            twin.first.weight.grad,
            names(twin.named_parameters()),
            list(twin.state_dict().values()),
            type(twin.tied),
        ]

    same(program)


def test_shallow_copies_register_names_of_their_own() -> None:
    module = nn.Linear(2, 2)
    twin = copy.copy(module)
    twin.extra = nn.Parameter(gradlite.ones(1))
    assert names(module.named_parameters()) == ["weight", "bias"]
    assert names(twin.named_parameters()) == ["weight", "bias", "extra"]
    assert twin.weight is module.weight


def test_pickle() -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
    module.add_module("tied", module[0])
    twin = pickle.loads(pickle.dumps(module))
    assert repr(twin) == repr(module)
    assert twin.tied is twin[0]
    for (name, a), (_, b) in zip(
        module.state_dict().items(), twin.state_dict().items(), strict=True
    ):
        assert a.tolist() == b.tolist(), name
    assert all(isinstance(p, nn.Parameter) and p.requires_grad for p in twin.parameters())


def test_a_module_dies_by_reference_counting(no_gc: None) -> None:
    module = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    weight = weakref.ref(module[0].weight)
    module(gradlite.ones(1, 2)).sum().backward()
    del module
    assert weight() is None
    assert not gc.isenabled()


def test_subclasses_of_ordered_dict_are_not_needed() -> None:
    def program(library: Any) -> Any:
        model = library.nn.Sequential(OrderedDict(a=library.nn.ReLU(), b=library.nn.Tanh()))
        return repr(model), repr(model.b), names(model.named_children())

    same(program)


def test_wrappers_that_look_for_attributes_in_what_they_wrap() -> None:
    def program(library: Any) -> Any:
        class Wrapper(library.nn.Module):  # type: ignore[misc,name-defined]
            def __init__(self, module: Any) -> None:
                super().__init__()
                self.module = module

            def __getattr__(self, name: str) -> Any:
                try:
                    return super().__getattr__(name)
                except AttributeError:
                    return getattr(self.module, name)

        wrapper = Wrapper(library.nn.Linear(2, 3))
        return wrapper.out_features, outcome_of(lambda: wrapper.colour)

    same(program, message="exact")


@pytest.mark.parametrize("kind", ["number", "tensor", "parameter", "module", "buffer"])
def test_a_buffer_in_the_place_of_something_else(kind: str) -> None:
    """Another buffer gives way; nothing else does."""

    def program(library: Any) -> Any:
        nn, module = library.nn, library.nn.Module()
        module.place = {
            "number": 5,
            "tensor": library.ones(1),
            "parameter": nn.Parameter(library.ones(1)),
            "module": nn.ReLU(),
            "buffer": nn.Buffer(library.zeros(1)),
        }[kind]
        module.place = nn.Buffer(library.ones(2))
        return list(module.state_dict()), list(module.parameters()), module.place

    if kind == "buffer":
        same(program)
    else:
        same(program, raises=(KeyError, TypeError), message="prefix")
