"""Seeds and states of random numbers on GPUs: those of the one generator of all devices."""

from __future__ import annotations

from collections.abc import Iterable

from gradlite.backends.cuda import module as cupy_module
from gradlite.cuda.devices import DeviceLike, device_count, index_of
from gradlite.random import default_generator
from gradlite.tensor import Tensor, wrap

__all__ = [
    "get_rng_state",
    "get_rng_state_all",
    "initial_seed",
    "manual_seed",
    "manual_seed_all",
    "seed",
    "seed_all",
    "set_rng_state",
    "set_rng_state_all",
]


def manual_seed(seed: int) -> None:
    """Seed the random numbers. One generator serves all devices, so the CPU's too.

    >>> import gradlite
    >>> gradlite.cuda.manual_seed(3)
    >>> gradlite.initial_seed()
    3
    """
    default_generator.manual_seed(seed)


def manual_seed_all(seed: int) -> None:
    """Seed the random numbers of all devices, as `manual_seed`."""
    default_generator.manual_seed(seed)


def seed() -> None:
    """Seed the random numbers from the system's entropy."""
    default_generator.seed()


def seed_all() -> None:
    """Seed the random numbers of all devices from the system's entropy."""
    default_generator.seed()


def initial_seed() -> int:
    """The seed of the random numbers."""
    return default_generator.initial_seed()


def get_rng_state(device: DeviceLike = "cuda") -> Tensor:
    """The state of the random numbers, for `set_rng_state`: the same on every device.

    Returns:
        A uint8 tensor on the CPU, as `gradlite.get_rng_state` gives it.

    Raises:
        RuntimeError: CUDA cannot be used, or there is no such GPU.
    """
    index_of(device, cupy_module())
    return wrap(default_generator.state_array())


def get_rng_state_all() -> list[Tensor]:
    """The state of the random numbers once for each GPU; an empty list where CUDA is not usable.

    >>> import gradlite
    >>> len(gradlite.cuda.get_rng_state_all()) == gradlite.cuda.device_count()
    True
    """
    return [get_rng_state(index) for index in range(device_count())]


def set_rng_state(new_state: Tensor, device: DeviceLike = "cuda") -> None:
    """Put the random numbers of all devices back into a state from `get_rng_state`.

    Raises:
        RuntimeError: CUDA cannot be used, there is no such GPU, or it is no such state.
    """
    index_of(device, cupy_module())
    default_generator.set_state_array(new_state.numpy())


def set_rng_state_all(new_states: Iterable[Tensor]) -> None:
    """`set_rng_state` for each GPU; the last state is the one that counts."""
    for index, state in enumerate(new_states):
        set_rng_state(state, index)
