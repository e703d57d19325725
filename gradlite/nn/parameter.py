"""Parameter and Buffer: tensors that a module registers when they are assigned to it.

And those of lazy modules, whose shape is not known yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

from gradlite import changes
from gradlite.device import beside, device_of
from gradlite.device import device as Device
from gradlite.dtypes import dtype as DType
from gradlite.dtypes import from_numpy_dtype
from gradlite.ops.creation import empty
from gradlite.tensor import Tensor, make, wrap

__all__ = ["Buffer", "Parameter", "UninitializedBuffer", "UninitializedParameter", "is_lazy"]

Self = TypeVar("Self", bound="_Uninitialized")
SLOT: Any = Tensor.__dict__["array"]  # where the array lies, which is empty and not to be used


class Parameter(Tensor):
    """A tensor that a `Module` lists among its parameters when assigned as an attribute.

    Args:
        data: the values; the parameter shares their memory and starts a graph of its own.
        requires_grad: whether to compute gradients for it, also under `no_grad`.

    Raises:
        RuntimeError: the dtype is not a floating one and ``requires_grad`` is True.

    >>> import gradlite
    >>> Parameter(gradlite.ones(2))
    Parameter containing:
    tensor([1., 1.], requires_grad=True)
    """

    def __new__(cls, data: Tensor | None = None, requires_grad: bool = True) -> Any:
        source = Tensor() if data is None else data.detach()
        parameter = make(cls, source.array)
        parameter._counter = source._counter
        return parameter.requires_grad_(requires_grad)

    def __init__(self, data: Tensor | None = None, requires_grad: bool = True) -> None:
        """Everything is done in ``__new__``; the signature is for readers and editors."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with beside(self.array):
                twin = make(type(self), self.array.copy(order="K"))
            memo[id(self)] = twin.requires_grad_(self.requires_grad)
        return memo[id(self)]

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class _BufferMeta(type):
    # A buffer stays a plain Tensor, so that results of ops on it are no buffers.
    def __instancecheck__(cls, instance: Any) -> bool:
        return is_buffer(instance)


class Buffer(Tensor, metaclass=_BufferMeta):
    """A tensor that a `Module` lists among its buffers when assigned as an attribute.

    The result is a plain `Tensor` marked as a buffer.

    Args:
        data: the values; the buffer shares their memory.
        persistent: whether it is part of the module's `state_dict`.
    """

    persistent: bool

    def __new__(cls, data: Tensor | None = None, *, persistent: bool = True) -> Any:
        source = Tensor() if data is None else data
        buffer = source.detach().requires_grad_(source.requires_grad)
        buffer.persistent = persistent
        buffer._is_buffer = True
        return buffer


def is_buffer(value: Any) -> bool:
    """Whether a value was made by `Buffer`."""
    return isinstance(value, Tensor) and "_is_buffer" in value.__dict__


# ---------------------------------------- parameters of lazy modules, without a shape yet
class _Uninitialized:
    """What both share: they know their dtype and device, and refuse everything else."""

    __slots__ = ()
    cls_to_become: type[Tensor]
    _requires_grad: bool

    def _unusable(self) -> ValueError:
        return ValueError(
            "Attempted to use an uninitialized parameter. This error happens when you are using a "
            "`LazyModule` or explicitly manipulating `gradlite.nn.parameter."
            f"{type(self).__name__}` objects. When using LazyModules Call `forward` with a dummy "
            "batch to initialize the parameters before calling gradlite functions"
        )

    @property
    def array(self) -> NoReturn:
        raise self._unusable()

    @array.setter
    def array(self, value: Any) -> None:
        SLOT.__set__(self, value)

    @property
    def shape(self) -> NoReturn:
        """Not there yet."""
        raise RuntimeError(
            "Can't access the shape of an uninitialized parameter or buffer. This error usually "
            "happens in `load_state_dict` when trying to load an uninitialized parameter into an "
            "initialized one. Call `forward` to initialize the parameters before accessing their "
            "attributes."
        )

    @property
    def dtype(self) -> DType:
        """The data type that the elements will have."""
        return from_numpy_dtype(SLOT.__get__(self).dtype)

    @property
    def device(self) -> Device:
        """The device where it will be."""
        return device_of(SLOT.__get__(self))

    @property
    def data(self) -> Tensor:
        """No elements yet: what is written here is gone with the first input, as in PyTorch."""
        return wrap(SLOT.__get__(self))

    @data.setter
    def data(self, value: Tensor) -> None:
        raise self._unusable()

    def materialize(self, shape: Any, device: Any = None, dtype: DType | None = None) -> None:
        """Become a parameter (or buffer) of a shape, of the same identity, without values yet."""
        place = self.device if device is None else device
        array = empty(shape, dtype=dtype or self.dtype, device=place).array
        changes.count[0] += 1
        self.__class__ = self.cls_to_become  # type: ignore[assignment]
        self.array = array

    def convert(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Take over the dtype and device that a function of tensors gives."""
        SLOT.__set__(self, fn(wrap(SLOT.__get__(self))).array)

    def detach(self: Self) -> Self:
        """Itself: there is nothing to share."""
        return self

    def requires_grad_(self, requires_grad: bool = True) -> NoReturn:
        """Not possible yet; the constructor takes it."""
        raise self._unusable()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            memo[id(self)] = _rebuild(*self.__reduce_ex__(2)[1])
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        state = {**self.__dict__}
        return _rebuild, (type(self), self._requires_grad, str(self.device), self.dtype, state)


def _make(cls: Any, requires_grad: bool, device: Any, dtype: DType | None) -> Any:
    tensor = make(cls, empty(0, device=device, dtype=dtype).array)
    tensor._requires_grad = requires_grad
    return tensor


def _rebuild(cls: Any, requires_grad: bool, device: str, dtype: DType, state: Any) -> Any:
    tensor = _make(cls, requires_grad, device, dtype)
    tensor.__dict__.update(state)
    return tensor


class UninitializedParameter(_Uninitialized, Parameter):
    """A parameter whose shape is not known yet; `materialize` makes a `Parameter` of it.

    >>> from gradlite import nn
    >>> layer = nn.LazyLinear(3)
    >>> layer.weight
    <UninitializedParameter>
    """

    cls_to_become = Parameter

    def __new__(
        cls, requires_grad: bool = True, device: Any = None, dtype: DType | None = None
    ) -> Any:
        return _make(cls, requires_grad, device, dtype)

    def __init__(
        self, requires_grad: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        """Everything is done in ``__new__``; the signature is for readers and editors."""


class UninitializedBuffer(_Uninitialized, Tensor):
    """A buffer whose shape is not known yet; `materialize` makes a plain buffer of it."""

    cls_to_become = Tensor

    def __new__(
        cls,
        requires_grad: bool = False,
        device: Any = None,
        dtype: DType | None = None,
        persistent: bool = True,
    ) -> Any:
        buffer = _make(cls, requires_grad, device, dtype)
        buffer.persistent = persistent
        buffer._is_buffer = True
        return buffer

    def __init__(
        self,
        requires_grad: bool = False,
        device: Any = None,
        dtype: DType | None = None,
        persistent: bool = True,
    ) -> None:
        """Everything is done in ``__new__``; the signature is for readers and editors."""


def is_lazy(value: Any) -> bool:
    """Whether a parameter or buffer has no shape yet."""
    return isinstance(value, _Uninitialized)
