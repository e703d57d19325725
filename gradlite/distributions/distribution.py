"""The base of the distributions: shapes, checks of arguments, and what all of them can be asked."""

from __future__ import annotations

import warnings
import weakref
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from gradlite import changes
from gradlite.description import Size
from gradlite.distributions import constraints
from gradlite.distributions.utils import Unsaid, lazy_property
from gradlite.grad_mode import no_grad
from gradlite.ops import shortcuts
from gradlite.tensor import Tensor, wrap

__all__ = ["Distribution"]


class Distribution:
    """A probability distribution, or a batch of them.

    Args:
        batch_shape: the shape of the batch.
        event_shape: the shape of one value.
        validate_args: whether parameters and values are checked; by default they are, see
            `set_default_validate_args`.

    A sample of shape ``sample_shape`` has the shape ``sample_shape + batch_shape + event_shape``.

    Attributes of a subclass:
        arg_constraints: where its parameters lie.
        support: where its values lie.
        has_rsample: whether samples carry gradients to the parameters.
        has_enumerate_support: whether it has finitely many values, which can be listed.
    """

    has_rsample: Any = False
    has_enumerate_support = False
    arg_constraints: Any = Unsaid()
    support: Any = Unsaid()
    # Of attributes that `expand` expands: how many dimensions at their end belong to the event.
    _expands: ClassVar[dict[str, int]] = {}
    _validate_args: bool = __debug__

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether arguments are checked where nothing else is asked for.

        Raises:
            ValueError: neither True nor False.
        """
        if value not in (True, False):
            raise ValueError
        Distribution._validate_args = value
        changes.count[0] += 1  # which captured steps notice

    def __init__(
        self,
        batch_shape: Any = (),
        event_shape: Any = (),
        validate_args: bool | None = None,
    ) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        try:
            wanted = self.arg_constraints
        except NotImplementedError:
            wanted = {}
            warnings.warn(
                f"{self.__class__} does not define `arg_constraints`. Please set "
                "`arg_constraints = {}` or initialize the distribution with "
                "`validate_args=False` to turn off validation.",
                stacklevel=2,
            )
        for name, constraint in wanted.items():
            if constraints.is_dependent(constraint):
                continue
            if name not in self.__dict__ and isinstance(
                getattr(type(self), name, None), lazy_property
            ):
                continue  # another parameter says what this one is
            self._require(_ParameterMessage, name, constraint, getattr(self, name))

    def _require(self, message: type[Message], name: str, constraint: Any, value: Any) -> None:
        with no_grad():
            valid = constraint.check(value).all()
        said = message(self, name, constraint, value)
        shortcuts.verify(valid.array, ValueError, said, value.array)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Any:
        """The same distribution with its batch expanded to another shape, without a copy."""
        owner = next(c for c in type(self).__mro__ if "_expands" in c.__dict__)
        if owner is Distribution:
            raise NotImplementedError
        new = self._get_checked_instance(owner, _instance)
        batch_shape = Size(batch_shape)
        for name, event_dims in self._expands.items():
            if name in self.__dict__:
                value = self.__dict__[name]
                event = tuple(value.shape)[value.dim() - event_dims :]
                setattr(new, name, value.expand((*batch_shape, *event)))
        Distribution.__init__(new, batch_shape, self._event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def batch_shape(self) -> Size:
        """The shape of the batch of distributions."""
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        """The shape of one value of one distribution."""
        return self._event_shape

    @property
    def mean(self) -> Any:
        """The mean."""
        raise NotImplementedError

    @property
    def mode(self) -> Any:
        """The most likely value."""
        raise NotImplementedError(f"{self.__class__} does not implement mode")

    @property
    def variance(self) -> Any:
        """The variance."""
        raise NotImplementedError

    @property
    def stddev(self) -> Any:
        """The standard deviation."""
        return self.variance.sqrt()

    def sample(self, sample_shape: Any = ()) -> Any:
        """Samples that carry no gradient."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Any = ()) -> Any:
        """Samples that are differentiable functions of the parameters."""
        raise NotImplementedError

    def sample_n(self, n: int) -> Any:
        """``sample((n,))``."""
        warnings.warn(
            "`sample_n(n)` will be deprecated. Use `sample((n,))` instead.",
            FutureWarning,
            stacklevel=2,
        )
        return self.sample((n,))

    def log_prob(self, value: Any) -> Any:
        """The logarithm of the density, or of the probability, of values."""
        raise NotImplementedError

    def cdf(self, value: Any) -> Any:
        """The probability of what is no larger than the values."""
        raise NotImplementedError

    def icdf(self, value: Any) -> Any:
        """The values whose `cdf` this is."""
        raise NotImplementedError

    def enumerate_support(self, expand: bool = True) -> Any:
        """All values, along a new first dimension; the batch's dimensions are 1 without expand."""
        raise NotImplementedError

    def entropy(self) -> Any:
        """The entropy in nats, of the batch's shape."""
        raise NotImplementedError

    def perplexity(self) -> Any:
        """The exponential of the entropy."""
        return self.entropy().exp()

    def _extended_shape(self, sample_shape: Any = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _validate_sample(self, value: Any) -> None:
        """Check the argument of `log_prob`, `cdf` and the like.

        Raises:
            ValueError: no tensor, one whose shape does not fit, or a value outside of the support.
        """
        if not isinstance(value, Tensor):
            raise ValueError("The value argument to log_prob must be a Tensor")
        shape, event = value.shape, self._event_shape
        if shape[len(shape) - len(event) :] != event:
            raise ValueError(
                f"The right-most size of value must match event_shape: {shape} vs {event}."
            )
        expected = self._batch_shape + event
        for i, j in zip(reversed(shape), reversed(expected)):
            if i != 1 and j != 1 and i != j:
                raise ValueError(
                    "Value is not broadcastable with batch_shape+event_shape: "
                    f"{shape} vs {expected}."
                )
        try:
            support = self.support
        except NotImplementedError:
            warnings.warn(
                f"{self.__class__} does not define `support` to enable sample validation. Please "
                "initialize the distribution with `validate_args=False` to turn off validation.",
                stacklevel=2,
            )
            return
        self._require(_ValueMessage, "value", support, value)

    def _get_checked_instance(self, cls: type, _instance: Any = None) -> Any:
        if _instance is not None:
            return _instance
        if type(self).__init__ != cls.__init__:  # type: ignore[misc]
            raise NotImplementedError(
                f"Subclass {self.__class__.__name__} of {cls.__name__} that defines a custom "
                "__init__ method must also define a custom .expand() method."
            )
        return object.__new__(type(self))

    def __repr__(self) -> str:
        names = [k for k in self.arg_constraints if k in self.__dict__]
        return f"{self.__class__.__name__}({', '.join(map(self._shown, names))})"

    def _shown(self, name: str) -> str:
        value = self.__dict__[name]
        return f"{name}: {value if value.numel() == 1 else value.size()}"


class Message(ABC):
    """What is wrong with a value, put into words when it is wrong.

    A recorded step keeps its messages, so this one keeps neither the distribution nor the value,
    and with them the graph of the parameters.
    """

    def __init__(self, distribution: Distribution, name: str, constraint: Any, value: Any) -> None:
        self._distribution, self._value = weakref.ref(distribution), weakref.ref(value)
        self._class, self._name = type(distribution).__name__, name
        self._constraint = constraint

    # One recording of a step is compared with the next.
    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self._key() == other._key()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self._class, self._name, type(self._constraint)

    @abstractmethod
    def __call__(self, array: Any) -> str:
        """The message."""

    def _wrapped(self, array: Any) -> Tensor:
        value = self._value()
        return wrap(array) if value is None or value.array is not array else value

    def _parts(self, array: Any) -> tuple[str, str, str]:
        distribution = self._distribution()
        return (
            f"(Tensor of shape {tuple(array.shape)})",
            f"{self._class}(...)" if distribution is None else repr(distribution),
            f"but found invalid values:\n{self._wrapped(array)}",
        )


class _ParameterMessage(Message):
    """What is wrong with a parameter."""

    def __call__(self, array: Any) -> str:
        shape, distribution, values = self._parts(array)
        return (
            f"Expected parameter {self._name} {shape} of distribution {distribution} to satisfy "
            f"the constraint {self._constraint!r}, {values}"
        )


class _ValueMessage(Message):
    """What is wrong with a value that a distribution is asked about."""

    def __call__(self, array: Any) -> str:
        shape, distribution, values = self._parts(array)
        return (
            f"Expected {self._name} argument {shape} to be within the support "
            f"({self._constraint!r}) of the distribution {distribution}, {values}"
        )
