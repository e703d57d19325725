"""Sequential, ModuleList, ModuleDict, ParameterList, ParameterDict."""

from __future__ import annotations

import copy
from collections import OrderedDict
from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def shown(value: Any) -> Any:
    return value if isinstance(value, Exception) else repr(value)


def attempt(action: Any) -> Any:
    return shown(outcome_of(action))


def test_sequential_calls_its_modules_in_order() -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        model = fill(library, nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)))
        x = tensor(library, 1, 5, 3, requires_grad=True)
        model(x).sum().backward()
        return model(x), x.grad, nn.Sequential()(x) is x

    same(program)


SEQUENTIAL: dict[str, Any] = {
    "repr": lambda nn, m: m,
    "empty": lambda nn, m: nn.Sequential(),
    "named": lambda nn, m: nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Linear(1, 1))),
    "named slice": lambda nn, m: nn.Sequential(OrderedDict(a=nn.ReLU(), b=nn.Tanh()))[1:],
    "item": lambda nn, m: m[1],
    "last": lambda nn, m: m[-1],
    "slice": lambda nn, m: m[1:],
    "steps": lambda nn, m: m[::2],
    "too far": lambda nn, m: m[5],
    "too far back": lambda nn, m: m[-4],
    "no number": lambda nn, m: m["a"],
    "length": lambda nn, m: len(m),
    "iterate": lambda nn, m: list(m),
    "set": lambda nn, m: m.__setitem__(0, nn.ReLU()) or m,
    "set last": lambda nn, m: m.__setitem__(-1, nn.ReLU()) or m,
    "set wrong": lambda nn, m: m.__setitem__(0, 3),
    "set far": lambda nn, m: m.__setitem__(7, nn.ReLU()),
    "delete": lambda nn, m: m.__delitem__(0) or m,
    "delete slice": lambda nn, m: m.__delitem__(slice(0, 2)) or m,
    "delete far": lambda nn, m: m.__delitem__(9),
    "append": lambda nn, m: m.append(nn.ReLU()),
    "append wrong": lambda nn, m: m.append(3),
    "insert": lambda nn, m: m.insert(1, nn.ReLU()),
    "insert last": lambda nn, m: m.insert(3, nn.ReLU()),
    "insert back": lambda nn, m: m.insert(-1, nn.ReLU()),
    "insert far": lambda nn, m: m.insert(7, nn.ReLU()),
    "insert wrong": lambda nn, m: m.insert(0, 3),
    "extend": lambda nn, m: m.extend(nn.Sequential(nn.ReLU(), nn.Tanh())),
    "extend wrong": lambda nn, m: m.extend(3),
    "pop": lambda nn, m: (m.pop(1), m),
    "pop last": lambda nn, m: (m.pop(-1), m),
    "add": lambda nn, m: m + nn.Sequential(nn.ReLU()),
    "add wrong": lambda nn, m: m + 3,
    "iadd": lambda nn, m: m.__iadd__(nn.Sequential(nn.ReLU())),
    "multiply": lambda nn, m: m * 2,
    "rmultiply": lambda nn, m: 2 * m,
    "imultiply": lambda nn, m: m.__imul__(2),
    "multiply wrong": lambda nn, m: m * "a",
    "multiply by 0": lambda nn, m: m * 0,
    "module": lambda nn, m: nn.Sequential(3),
    "attribute": lambda nn, m: getattr(m, "1"),
}


# PyTorch's messages name its own files or tell of an accident.
VAGUE = ("module", "no number", "insert wrong")


@pytest.mark.parametrize("what", SEQUENTIAL)
def test_sequential(what: str) -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Flatten())
        result = attempt(lambda: SEQUENTIAL[what](nn, model))
        return result, repr(model), list(model.state_dict())

    same(program, message="type" if what in VAGUE else "exact")


MODULE_LIST: dict[str, Any] = {
    "repr": lambda nn, m: m,
    "empty": lambda nn, m: nn.ModuleList(),
    "runs": lambda nn, m: nn.ModuleList([nn.ReLU(), nn.ReLU(), nn.Tanh(), nn.ReLU()]),
    "nested": lambda nn, m: nn.ModuleList([nn.Sequential(nn.ReLU(), nn.Tanh())] * 2),
    "item": lambda nn, m: m[1],
    "slice": lambda nn, m: m[:2],
    "far": lambda nn, m: m[5],
    "set": lambda nn, m: m.__setitem__(-1, nn.ReLU()) or m,
    "delete": lambda nn, m: m.__delitem__(0) or m,
    "delete slice": lambda nn, m: m.__delitem__(slice(0, 2)) or m,
    "insert": lambda nn, m: m.insert(1, nn.ReLU()),
    "append": lambda nn, m: m.append(nn.ReLU()),
    "append wrong": lambda nn, m: m.append(3),
    "extend": lambda nn, m: m.extend([nn.ReLU(), nn.Tanh()]),
    "extend generator": lambda nn, m: m.extend(nn.ReLU() for _ in range(2)),
    "extend wrong": lambda nn, m: m.extend(3),
    "iadd": lambda nn, m: m.__iadd__([nn.ReLU()]),
    "add": lambda nn, m: m + [nn.ReLU()],
    "add wrong": lambda nn, m: m + 3,
    "pop": lambda nn, m: (m.pop(0), m),
    "make wrong": lambda nn, m: nn.ModuleList(3),
    "make of wrong": lambda nn, m: nn.ModuleList([3]),
    "call": lambda nn, m: m(3),
    "iterate": lambda nn, m: list(m),
    "length": lambda nn, m: len(m),
    "contains": lambda nn, m: (m[0] in m, nn.ReLU() in m),
}


@pytest.mark.parametrize("what", MODULE_LIST)
def test_module_list(what: str) -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        model = nn.ModuleList([nn.Linear(2, 3), nn.Linear(2, 3), nn.Tanh()])
        result = attempt(lambda: MODULE_LIST[what](nn, model))
        return result, repr(model), list(model.state_dict())

    same(program, message="exact")


MODULE_DICT: dict[str, Any] = {
    "repr": lambda nn, m: m,
    "item": lambda nn, m: m["b"],
    "missing": lambda nn, m: m["zz"],
    "set": lambda nn, m: m.__setitem__("c", nn.Tanh()) or m,
    "replace": lambda nn, m: m.__setitem__("a", nn.Tanh()) or m,
    "set wrong": lambda nn, m: m.__setitem__("c", 3),
    "delete": lambda nn, m: m.__delitem__("a") or m,
    "pop": lambda nn, m: (m.pop("a"), m),
    "clear": lambda nn, m: m.clear() or m,
    "keys": lambda nn, m: list(m.keys()),
    "items": lambda nn, m: list(m.items()),
    "values": lambda nn, m: list(m.values()),
    "contains": lambda nn, m: ("a" in m, "z" in m),
    "iterate": lambda nn, m: list(m),
    "length": lambda nn, m: len(m),
    "pairs": lambda nn, m: nn.ModuleDict([("x", nn.ReLU()), ["y", nn.Tanh()]]),
    "update": lambda nn, m: m.update({"a": nn.Tanh(), "c": nn.ReLU()}) or m,
    "update of a dict": lambda nn, m: m.update(nn.ModuleDict({"q": nn.Tanh()})) or m,
    "wrong": lambda nn, m: nn.ModuleDict(3),
    "wrong pair": lambda nn, m: nn.ModuleDict([3]),
    "long pair": lambda nn, m: nn.ModuleDict([(1, 2, 3)]),
    "wrong key": lambda nn, m: nn.ModuleDict({1: nn.ReLU()}),
    "method's name": lambda nn, m: nn.ModuleDict({"keys": nn.ReLU()}),
    "call": lambda nn, m: m(3),
}


@pytest.mark.parametrize("what", MODULE_DICT)
def test_module_dict(what: str) -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        model = nn.ModuleDict({"b": nn.Linear(2, 3), "a": nn.ReLU()})
        result = attempt(lambda: MODULE_DICT[what](nn, model))
        return result, repr(model), list(model.state_dict())

    same(program, message="exact")


PARAMETER_LIST: dict[str, Any] = {
    "repr": lambda lib, p: p,
    "types": lambda lib, p: [type(v).__name__ for v in p],
    "item": lambda lib, p: p[0],
    "last": lambda lib, p: p[-1],
    "slice": lambda lib, p: p[1:3],
    "far": lambda lib, p: p[9],
    "set": lambda lib, p: p.__setitem__(0, lib.zeros(2)) or p,
    "set wrong": lambda lib, p: p.__setitem__(0, 3),
    "append": lambda lib, p: p.append(lib.zeros(2)),
    "extend": lambda lib, p: p.extend([lib.zeros(2), lib.nn.Parameter(lib.ones(1))]),
    "extend wrong": lambda lib, p: p.extend(3),
    "extend tensor": lambda lib, p: p.extend(lib.ones(2)),
    "iadd": lambda lib, p: p.__iadd__([lib.ones(1)]),
    "make wrong": lambda lib, p: lib.nn.ParameterList(3),
    "call": lambda lib, p: p(3),
    "length": lambda lib, p: len(p),
    "empty": lambda lib, p: lib.nn.ParameterList(),
}


@pytest.mark.parametrize("what", PARAMETER_LIST)
def test_parameter_list(what: str) -> None:
    def program(library: Any) -> Any:
        given = [library.ones(2, 3), library.nn.Parameter(library.ones(2).double()), 3]
        parameters = library.nn.ParameterList([*given, library.nn.ReLU()])
        result = attempt(lambda: PARAMETER_LIST[what](library, parameters))
        return result, repr(parameters), list(parameters.state_dict())

    same(program, message="exact")


PARAMETER_DICT: dict[str, Any] = {
    "repr": lambda lib, p: p,
    "item": lambda lib, p: p["a"],
    "missing": lambda lib, p: p["zz"],
    "set": lambda lib, p: p.__setitem__("new", lib.zeros(1)) or p,
    "set wrong": lambda lib, p: p.__setitem__("a", 3),
    "delete": lambda lib, p: p.__delitem__("a") or p,
    "pop": lambda lib, p: (p.pop("a"), p),
    "popitem": lambda lib, p: (p.popitem(), p),
    "get": lambda lib, p: (p.get("a"), p.get("zz", 4)),
    "setdefault": lambda lib, p: (p.setdefault("a"), p.setdefault("q", lib.ones(1))),
    "keys": lambda lib, p: (list(p), list(p.keys()), list(reversed(p)), len(p), "a" in p),
    "items": lambda lib, p: (list(p.items()), list(p.values())),
    "pairs": lambda lib, p: lib.nn.ParameterDict([("x", lib.ones(1)), ("a", lib.ones(2))]),
    "wrong": lambda lib, p: lib.nn.ParameterDict(3),
    "long pair": lambda lib, p: lib.nn.ParameterDict([(1, 2, 3)]),
    "or": lambda lib, p: p.copy() | lib.nn.ParameterDict({"x": lib.ones(1)}),
    "ior": lambda lib, p: p.__ior__(lib.nn.ParameterDict({"x": lib.ones(1)})),
    "fromkeys": lambda lib, p: p.fromkeys(["u", "v"], lib.ones(1)),
    "clear": lambda lib, p: p.clear() or p,
    "call": lambda lib, p: p(3),
}


@pytest.mark.parametrize("what", PARAMETER_DICT)
def test_parameter_dict(what: str) -> None:
    def program(library: Any) -> Any:
        given = {"b": library.ones(2, 3), "a": library.nn.Parameter(library.ones(2).double())}
        parameters = library.nn.ParameterDict({**given, "n": 3})
        result = attempt(lambda: PARAMETER_DICT[what](library, parameters))
        return result, repr(parameters), list(parameters.state_dict())

    same(program, message="exact")


def test_a_key_that_is_no_string() -> None:
    same(
        lambda library: library.nn.ParameterDict().__setitem__(3, library.ones(1)),
        raises=TypeError,
    )


def test_a_key_that_is_taken() -> None:
    same(
        lambda library: library.nn.ParameterDict({"keys": library.ones(1)}),
        raises=KeyError,
        message="exact",
    )


def test_copies_of_containers_are_independent() -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        model = nn.Sequential(nn.ReLU(), nn.ModuleList([nn.Tanh()]), nn.ParameterList())
        twin = copy.deepcopy(model)
        twin.append(nn.ReLU())
        twin[1].append(nn.ReLU())
        twin[2].append(library.ones(1))
        return repr(model), repr(twin)

    same(program)
