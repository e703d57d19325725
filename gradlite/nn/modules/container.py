"""Containers of modules: Sequential, ModuleList, ModuleDict."""

from __future__ import annotations

import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from gradlite import changes
from gradlite.nn import fusion
from gradlite.nn.module import Module

__all__ = ["ModuleDict", "ModuleList", "Sequential"]

SequentialT = TypeVar("SequentialT", bound="Sequential")


class _Numbered(Module):
    """What Sequential and ModuleList share: children named 0, 1, 2, ... in their order."""

    def _place(self, index: Any) -> int:
        """A valid index from 0 on, of an index that may count from the end."""
        index, length = operator.index(index), len(self)
        if not -length <= index < length:
            raise IndexError(f"index {index} is out of range")
        return int(index % length)

    def _name(self, index: Any) -> str:
        return list(self._module_names)[self._place(index)]

    def _children(self) -> list[Any]:
        values = self.__dict__
        return [values[name] for name in self._module_names]

    def _renumber(self, children: list[Any]) -> None:
        changes.count[0] += 1
        for name in self._module_names:
            del self.__dict__[name]
        self._module_names.clear()
        for number, child in enumerate(children):
            self._module_names[str(number)] = True
            self.__dict__[str(number)] = child

    def _delete(self, index: Any) -> None:
        children = self._children()
        if not isinstance(index, slice):
            index = self._place(index)
        del children[index]
        self._renumber(children)

    def __len__(self) -> int:
        return len(self._module_names)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._children())


class Sequential(_Numbered):
    """Call modules one after the other, each on what the one before returned.

    Args:
        args: the modules, or one OrderedDict from names to modules.

    >>> from gradlite import nn
    >>> model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    >>> model
    Sequential(
      (0): Linear(in_features=3, out_features=4, bias=True)
      (1): ReLU()
    )
    >>> model[1:]
    Sequential(
      (1): ReLU()
    )
    """

    def __init__(self, *args: Any) -> None:
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            for name, module in args[0].items():
                self.add_module(name, module)
        else:
            for number, module in enumerate(args):
                self.add_module(str(number), module)

    def forward(self, input: Any) -> Any:
        return fusion.run(self._children(), input)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            names = list(self._module_names)[index]
            return type(self)(OrderedDict((name, self.__dict__[name]) for name in names))
        return self.__dict__[self._name(index)]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        self._delete(index)

    def __add__(self, other: Any) -> Sequential:
        self._check_addable(other)
        return Sequential(*self, *other)

    def __iadd__(self: SequentialT, other: Any) -> SequentialT:
        self._check_addable(other)
        return self.extend(other)

    def _check_addable(self, other: Any) -> None:
        if not isinstance(other, Sequential):
            raise ValueError(
                "add operator supports only objects of Sequential class, but "
                f"{type(other)} is given."
            )

    def _check_factor(self, other: Any) -> None:
        if not isinstance(other, int):
            raise TypeError(f"unsupported operand type(s) for *: {type(self)} and {type(other)}")
        if other <= 0:
            raise ValueError(f"Non-positive multiplication factor {other} for {type(self)}")

    def __mul__(self, other: int) -> Sequential:
        self._check_factor(other)
        return Sequential(*(self._children() * other))

    def __rmul__(self, other: int) -> Sequential:
        return self * other

    def __imul__(self: SequentialT, other: int) -> SequentialT:
        self._check_factor(other)
        return self.extend(self._children() * (other - 1))

    def append(self: SequentialT, module: Module) -> SequentialT:
        """Put a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def insert(self: SequentialT, index: int, module: Module) -> SequentialT:
        """Put a module before the one of an index."""
        if not isinstance(module, Module):
            raise AssertionError(f"module should be of type: {Module}")
        length = len(self)
        if not -length <= index <= length:
            raise IndexError(f"Index out of range: {index}")
        children = self._children()
        children.insert(index, module)
        self._renumber(children)
        return self

    def extend(self: SequentialT, sequential: Iterable[Module]) -> SequentialT:
        """Put several modules at the end."""
        for module in list(sequential):
            self.append(module)
        return self

    def pop(self, key: int | slice) -> Any:
        """Remove a module and return it."""
        value = self[key]
        del self[key]
        return value


class ModuleList(_Numbered):
    """A list of modules that registers them; it has no `forward`.

    >>> from gradlite import nn
    >>> nn.ModuleList([nn.ReLU() for _ in range(3)])
    ModuleList(
      (0-2): 3 x ReLU()
    )
    """

    def __init__(self, modules: Iterable[Module] | None = None) -> None:
        super().__init__()
        if modules is not None:
            self.extend(modules)

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...

    @overload
    def __getitem__(self, index: int) -> Module: ...

    def __getitem__(self, index: int | slice) -> Module | ModuleList:
        if isinstance(index, slice):
            return type(self)(self._children()[index])
        return self.__dict__[self._name(index)]  # type: ignore[no-any-return]

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: int | slice) -> None:
        self._delete(index)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> ModuleList:
        combined = ModuleList()
        for module in [*self] + list(other):
            combined.append(module)
        return combined

    def insert(self, index: int, module: Module) -> None:
        """Put a module before the one of an index."""
        children = self._children()
        children.insert(index, module)
        self._renumber(children)

    def append(self, module: Module) -> ModuleList:
        """Put a module at the end."""
        self.add_module(str(len(self)), module)
        return self

    def pop(self, key: int | slice) -> Any:
        """Remove a module and return it."""
        value = self[key]
        del self[key]
        return value

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        """Put several modules at the end."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                "ModuleList.extend should be called with an iterable, but got "
                + type(modules).__name__
            )
        for module in list(modules):
            self.append(module)
        return self

    def __repr__(self) -> str:
        """Like any module's, with runs of equal children on one line."""
        runs: list[tuple[int, int, str]] = []
        for number, child in enumerate(self):
            text = repr(child)
            if runs and runs[-1][2] == text:
                runs[-1] = (runs[-1][0], number, text)
            else:
                runs.append((number, number, text))
        if not runs:
            return f"{self._get_name()}()"
        lines = [
            f"({first}): {text}"
            if first == last
            else f"({first}-{last}): {last - first + 1} x {text}"
            for first, last, text in runs
        ]
        body = "".join("\n  " + line.replace("\n", "\n  ") for line in lines)
        return f"{self._get_name()}({body}\n)"


class ModuleDict(Module):
    """A dictionary of modules that registers them; it has no `forward`.

    >>> from gradlite import nn
    >>> heads = nn.ModuleDict({"mean": nn.Linear(4, 1)})
    >>> heads["mean"]
    Linear(in_features=4, out_features=1, bias=True)
    """

    def __init__(self, modules: Any = None) -> None:
        super().__init__()
        if modules is not None:
            self.update(modules)

    def __getitem__(self, key: str) -> Module:
        return self._modules[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._module_names)

    def __iter__(self) -> Iterator[str]:
        return iter(self._module_names)

    def __contains__(self, key: str) -> bool:
        return key in self._module_names

    def clear(self) -> None:
        """Remove all modules."""
        self._modules.clear()

    def pop(self, key: str) -> Module:
        """Remove the module of a key and return it."""
        return self._modules.pop(key)  # type: ignore[no-any-return]

    def keys(self) -> Any:
        """The keys."""
        return self._modules.keys()

    def items(self) -> Any:
        """The pairs of key and module."""
        return self._modules.items()

    def values(self) -> Any:
        """The modules."""
        return self._modules.values()

    def update(self, modules: Any) -> None:
        """Add the modules of a mapping or of an iterable of pairs, in their order."""
        if not isinstance(modules, Iterable):
            raise TypeError(
                "ModuleDict.update should be called with an iterable of key/value pairs, but got "
                + type(modules).__name__
            )
        if isinstance(modules, (Mapping, ModuleDict)):
            for key, module in modules.items():
                self[key] = module
            return
        for place, pair in enumerate(modules):
            if not isinstance(pair, Iterable):
                raise TypeError(
                    f"ModuleDict update sequence element #{place} should be Iterable; is"
                    + type(pair).__name__
                )
            entry = list(pair)
            if len(entry) != 2:
                raise ValueError(
                    f"ModuleDict update sequence element #{place} has length {len(entry)}; "
                    "2 is required"
                )
            self[entry[0]] = entry[1]
