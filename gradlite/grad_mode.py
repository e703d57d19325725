"""The grad mode: whether what runs is recorded, for each thread and asyncio task."""

from __future__ import annotations

import contextvars
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

Callback = TypeVar("Callback", bound=Callable[..., Any])
# One integer per thread and per asyncio task: nothing is recorded unless it is 0.
NO_GRAD = 1
INFERENCE = 2
_mode: contextvars.ContextVar[int] = contextvars.ContextVar("gradlite_grad_mode", default=0)
current_mode = _mode.get
set_mode = _mode.set


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require grad are recorded."""
    return not current_mode() & NO_GRAD


def is_inference_mode_enabled() -> bool:
    """Whether the innermost `inference_mode` is on."""
    return bool(current_mode() & INFERENCE)


class _Mode:
    """Context manager and decorator that switches bits of the mode and restores them."""

    def __init__(self, set_bits: int, clear_bits: int) -> None:
        self._set, self._clear = set_bits, clear_bits
        self._previous: list[int] = []

    def __enter__(self) -> None:
        mode = current_mode()
        self._previous.append(mode)
        set_mode(mode & ~self._clear | self._set)

    def __exit__(self, *exc: object) -> None:
        set_mode(self._previous.pop())

    def _copy(self) -> _Mode:
        return _Mode(self._set, self._clear)

    def __call__(self, function: Callback) -> Callback:
        """Run the function, each step of a generator, or a coroutine in this mode."""
        wrapper: Any
        if inspect.isclass(function):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You "
                "should only decorate functions or methods. To preserve the current behavior of "
                "class decoration, you can directly decorate the `__init__` method and nothing "
                "else.",
                FutureWarning,
                stacklevel=2,
            )
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                inner = function(*args, **kwargs)
                step: Callable[[], Any] = functools.partial(next, inner)
                while True:
                    try:
                        with self._copy():
                            item = step()
                    except StopIteration as stop:
                        return stop.value
                    try:
                        sent = yield item
                    except GeneratorExit:
                        with self._copy():
                            inner.close()
                        raise
                    except BaseException as error:  # handed on, exactly as it came
                        step = functools.partial(inner.throw, error)
                    else:
                        step = functools.partial(inner.send, sent)

            wrapper = generator
        elif inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def async_generator(*args: Any, **kwargs: Any) -> Any:
                inner = function(*args, **kwargs)
                while True:
                    with self._copy():
                        try:
                            item = await inner.__anext__()
                        except StopAsyncIteration:
                            return
                    yield item

            wrapper = async_generator
        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._copy():
                    return await function(*args, **kwargs)

            wrapper = coroutine
        else:

            @functools.wraps(function)
            def plain(*args: Any, **kwargs: Any) -> Any:
                with self._copy():
                    return function(*args, **kwargs)

            wrapper = plain
        return wrapper


class no_grad(_Mode):
    """Record nothing: results do not require grad and keep no intermediate alive.

    A context manager and a decorator, for functions, generators and coroutines.

    >>> import gradlite
    >>> x = gradlite.ones(2, requires_grad=True)
    >>> with gradlite.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is not None:  # used as a decorator without parentheses
            self.__init__()  # type: ignore[misc]
            return self(function)
        return self

    def __init__(self, function: None = None) -> None:
        super().__init__(NO_GRAD, 0)


class enable_grad(_Mode):
    """Record again inside a `no_grad` block; a context manager and a decorator."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is not None:
            self.__init__()  # type: ignore[misc]
            return self(function)
        return self

    def __init__(self, function: None = None) -> None:
        super().__init__(0, NO_GRAD)


class set_grad_enabled(_Mode):
    """Switch recording on or off: at once as a function, for a block as a context manager."""

    def __init__(self, mode: bool) -> None:
        super().__init__(0 if mode else NO_GRAD, NO_GRAD if mode else 0)
        before = current_mode()
        self._previous.append(before)
        set_mode(before & ~self._clear | self._set)

    def __enter__(self) -> None:
        pass  # switched in __init__, so that a bare call works too

    def __call__(self, function: Callback) -> Callback:
        set_mode(self._previous.pop())
        return super().__call__(function)


class inference_mode(_Mode):
    """Like `no_grad`, and the tensors made inside can never be used by autograd."""

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        self = super().__new__(cls)
        if callable(mode):
            self.__init__()  # type: ignore[misc]
            return self(mode)
        return self

    def __init__(self, mode: bool = True) -> None:
        if mode:
            super().__init__(NO_GRAD | INFERENCE, 0)
        else:
            super().__init__(0, NO_GRAD | INFERENCE)
