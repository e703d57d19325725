"""Modules as functions of their parameters: `functional_call` and `stack_module_state`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from gradlite.ops.joining import stack
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.nn.module import Module

__all__ = ["functional_call", "stack_module_state"]

State = dict[str, Tensor]


def functional_call(
    module: Module,
    parameter_and_buffer_dicts: State | Sequence[State],
    args: Any = None,
    kwargs: dict[str, Any] | None = None,
    *,
    tie_weights: bool = True,
    strict: bool = False,
) -> Any:
    """Call a module with other parameters and buffers than its own.

    Args:
        parameter_and_buffer_dicts: Tensors by dotted name, or several such dictionaries; what is
            not named stays the module's own. A buffer that the module edits or assigns anew is
            changed in the dictionary, not in the module.
        args: the positional arguments; a single one need not be a tuple.
        tie_weights: a Tensor given for one of several names of a shared parameter is used for
            all of them.
        strict: refuse names that the module does not have, and missing ones.

    Raises:
        ValueError: a name in two dictionaries, or two values for a shared parameter.
        RuntimeError: names are missing or unknown and ``strict`` is on.
        AttributeError: there is no module of that name.
        TypeError: a value is neither a Tensor nor None.

    >>> import gradlite
    >>> linear = gradlite.nn.Linear(2, 1, bias=False)
    >>> weight = {"weight": gradlite.tensor([[1.0, 2.0]])}
    >>> gradlite.func.functional_call(linear, weight, gradlite.ones(2))
    tensor([3.])
    """
    given = _merged(parameter_and_buffer_dicts)
    if args is None:
        args = ()
    elif not isinstance(args, tuple):
        args = (args,)
    aliases = _aliases(module)
    values = _untied(given, aliases) if tie_weights else dict(given)
    if strict:
        _check_names(module, values, aliases)
    places = {name: _place(module, name, value) for name, value in values.items()}
    originals: dict[str, Any] = {}
    try:
        for name, (owner, attribute) in places.items():
            originals[name] = owner.__dict__.get(attribute, places)  # places: was not there
            owner.__dict__[attribute] = values[name]
        return module(*args, **(kwargs or {}))
    finally:
        for name in reversed(list(originals)):
            owner, attribute = places[name]
            if name in given:
                given[name] = owner.__dict__.get(attribute, given[name])
            if originals[name] is places:
                owner.__dict__.pop(attribute, None)
            else:
                owner.__dict__[attribute] = originals[name]


def _merged(dicts: Any) -> State:
    if isinstance(dicts, dict):
        return dicts
    if not isinstance(dicts, (list, tuple)):
        raise ValueError(
            "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts, but got "
            f"{type(dicts)}"
        )
    if not all(isinstance(d, dict) for d in dicts):
        raise ValueError("Expected all elements of parameter_and_buffer_dicts to be dictionaries")
    names = [name for d in dicts for name in d]
    repeated = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if repeated:
        raise ValueError(
            f"{repeated} appeared in multiple dictionaries; behavior of functional call is "
            "ambiguous"
        )
    return {name: value for d in dicts for name, value in d.items()}


def _named_state(module: Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under every name it has."""
    yield from module.named_parameters(remove_duplicate=False)
    for prefix, part in module.named_modules(remove_duplicate=False):
        for name, buffer in part._buffers.items():
            if buffer is not None:
                yield (f"{prefix}.{name}" if prefix else name), buffer


def _aliases(module: Module) -> list[set[str]]:
    """The sets of names that mean the same Tensor."""
    names: dict[int, set[str]] = {}
    for name, tensor in _named_state(module):
        names.setdefault(id(tensor), set()).add(name)
    return list(names.values())


def _untied(given: State, aliases: list[set[str]]) -> State:
    values = dict(given)
    for names in aliases:
        present = [name for name in names if name in given]
        if len({id(given[name]) for name in present}) > 1:
            raise ValueError(
                f"functional_call got multiple values for keys {sorted(names)}, which are tied. "
                "Consider using tie_weights=False"
            )
        if present:
            values.update(dict.fromkeys(names, given[present[0]]))
    return values


def _check_names(module: Module, values: State, aliases: list[set[str]]) -> None:
    known = set().union(*aliases) if aliases else set()
    problems = []
    for title, names in (("Unexpected", set(values) - known), ("Missing", known - set(values))):
        if names:
            problems.append(f"{title} key(s): {', '.join(map(repr, sorted(names)))}.")
    if problems:
        raise RuntimeError(
            "Error(s) in reparametrizing for {}:\n\t{}".format(
                module._get_name(), "\n\t".join(problems)
            )
        )


def _place(module: Module, name: str, value: Any) -> tuple[Module, str]:
    """The module and the attribute that a dotted name means."""
    path, _, attribute = name.rpartition(".")
    if value is not None and not isinstance(value, Tensor):
        raise TypeError(f"{value} is not an instance of gradlite.Tensor")
    owner = module.get_submodule(path)
    known = attribute in owner._parameter_names or attribute in owner._buffer_names
    if not known and hasattr(owner, attribute):
        current = getattr(owner, attribute)
        if not isinstance(current, Tensor):
            raise TypeError(
                f"attribute `{attribute}`: {current} is not an instance of gradlite.Tensor"
            )
    elif not known and not path and "." in name:
        raise AttributeError(f"{owner._get_name()} has no attribute `{attribute}`")
    return owner, attribute


def stack_module_state(models: Sequence[Module]) -> tuple[State, State]:
    """The parameters and the buffers of several modules of one class, stacked by name.

    With `vmap` over `functional_call` this evaluates an ensemble. The stacked parameters are
    leaves, which require grad when the models' do.

    Raises:
        RuntimeError: no models, models of several classes or modes, or parameters of which only
            some require grad.
    """
    if len(models) == 0:
        raise RuntimeError("stack_module_state: Expected at least one model, got 0.")
    if len({model.training for model in models}) > 1:
        raise RuntimeError(
            "stack_module_state: Expected all models to have the same training/eval mode."
        )
    if len({type(model) for model in models}) > 1:
        raise RuntimeError("stack_module_state: Expected all models to be of the same class.")
    parameters = [dict(model.named_parameters()) for model in models]
    buffers = [dict(model.named_buffers()) for model in models]
    return (
        {name: _stacked([p[name] for p in parameters], name) for name in parameters[0]},
        {name: _stacked([b[name] for b in buffers], name) for name in buffers[0]},
    )


def _stacked(tensors: list[Any], name: str) -> Tensor:
    if len({t.requires_grad for t in tensors}) > 1:
        raise RuntimeError(f"Expected {name} from each model to have the same .requires_grad")
    leaf: Tensor = stack([t.detach() for t in tensors])
    return leaf.requires_grad_(tensors[0].requires_grad)  # type: ignore[no-any-return]
