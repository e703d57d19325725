"""PyTorch's compiler as programs call it: what it is given runs as it is.

``torch.compile`` changes how fast a program is and not what it computes, so a program that calls it
runs without it too. What gradlite compiles is a whole training step, which has to be marked.

>>> import gradlite
>>> model = gradlite.nn.Linear(2, 2)
>>> gradlite.compile(model, backend="eager") is model
True
"""

from __future__ import annotations

import warnings
from typing import Any

__all__ = [
    "allow_in_graph",
    "compile",
    "cudagraph_mark_step_begin",
    "disable",
    "is_compiling",
    "is_dynamo_compiling",
    "is_exporting",
    "reset",
]

MODES = ("default", "lite", "reduce-overhead", "max-autotune-no-cudagraphs", "max-autotune")
# Of these "eager" and "aot_eager" promise no compiled code: nobody is told that there is none.
AS_THEY_ARE = ("eager", "aot_eager")
BACKENDS = (*AS_THEY_ARE, "inductor", "cudagraphs", "onnxrt", "openxla", "tvm")


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | None = None,
    mode: str | None = None,
    options: dict[str, Any] | None = None,
    name: str | None = None,
    disable: bool = False,
    recompile_limit: int | None = None,
    isolate_recompiles: bool = False,
    shapes_spec: Any = None,
    _stacklevel: int = 2,
) -> Any:
    """The model or function itself, which runs as it is; without one, a decorator that does this.

    It is warned of where compiled code is asked for: `gradlite.capture` of a training step is what
    makes one faster. Hence states have no prefix ``_orig_mod.``, which those that PyTorch saves of
    compiled models have.

    Args:
        model: a module or another callable.
        backend: a name that PyTorch knows; ``"eager"`` and ``"aot_eager"`` mean what is done here.
        mode, options: how PyTorch would compile; at most one of them.
        disable: compile nothing, which is what is done here.
        fullgraph, dynamic, name, recompile_limit, isolate_recompiles, shapes_spec: of no effect.

    Raises:
        AssertionError: ``model`` cannot be called.
        RuntimeError: no such backend or mode, or a mode and options; a backend that is a function,
            which would be given a graph that there is none of.

    >>> import gradlite
    >>> @gradlite.compile(disable=True)
    ... def double(x):
    ...     return x + x
    >>> double(gradlite.ones(2))
    tensor([2., 2.])
    """
    _check(backend, mode, options)
    if not disable and backend not in AS_THEY_ARE:
        warnings.warn(
            "compile() gives back what it is given, which runs as it is: gradlite.capture(step) "
            "records a whole training step, backward and optimizer included, and replays it as "
            "compiled code",
            stacklevel=_stacklevel,
        )
    return _same if model is None else _same(model)


def _same(model: Any) -> Any:
    if not callable(model):
        raise AssertionError(f"A callable function is expected, but {type(model)} is provided.")
    return model


def _check(backend: Any, mode: str | None, options: dict[str, Any] | None) -> None:
    if mode is not None and options is not None:
        raise RuntimeError(
            "Either mode or options can be specified, but both can't be specified at the same time."
        )
    if mode is not None and mode not in MODES:
        raise RuntimeError(f"Unrecognized mode={mode}, should be one of: {', '.join(MODES)}")
    if callable(backend):
        raise RuntimeError(
            f"backend={backend!r} would be given a graph to compile, and there is none: models run "
            'as they are (backend="eager")'
        )
    if backend is not None and backend not in BACKENDS:
        raise RuntimeError(
            f"Invalid backend: {backend!r}, it should be one of: {', '.join(BACKENDS)}"
        )


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """A function that is not to be compiled, as it is; without one, a decorator.

    >>> disable(len) is len
    True
    """
    return _same if fn is None else _same(fn)


def allow_in_graph(fn: Any) -> Any:
    """A function, or several, as they are: there is no graph that they could not be part of.

    Raises:
        AssertionError: something else than a function.
    """
    return [allow_in_graph(f) for f in fn] if isinstance(fn, (list, tuple)) else _same(fn)


def is_compiling() -> bool:
    """False: models run as they are."""
    return False


def is_dynamo_compiling() -> bool:
    """False: models run as they are."""
    return False


def is_exporting() -> bool:
    """False: there is no export."""
    return False


def reset() -> None:
    """Forget compiled code, of which there is none; `CapturedStep.reset` forgets a recording."""


def cudagraph_mark_step_begin() -> None:
    """Tell that a step begins, which nothing here needs to know."""
