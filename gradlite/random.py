"""Random numbers: one counter-based stream that every device can compute.

A stream is the function Philox4x64-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
as easy as 1, 2, 3", SC 2011) of a key and a counter. The key is ``(seed, 0)``; **block** ``b`` of
the stream is the four 64-bit words that Philox gives for the counter ``(b + 1, 0, 0, 0)``, which
are words ``4 b`` to ``4 b + 3`` of ``numpy.random.Philox(key=seed).random_raw()``. The state of a
generator is therefore two integers, ``{seed, offset}``, ``offset`` being the number of blocks
used so far, and a kernel that is handed both repeats any draw without asking the host.

Every draw begins at a fresh block, takes a number of blocks that depends on its shape and dtype
alone (there is no rejection), and maps words to values as follows. ``lane32(i)`` is the ``i``-th
32-bit half of the draw's words, low half first, ``lane16(i)`` the ``i``-th 16-bit quarter, lowest
first; ``word(i)`` is the ``i``-th word.

=====================  ==========  ==========================================================
draw                   per block   value ``i``
=====================  ==========  ==========================================================
``random`` float16     16          ``(lane16(i) >> 5) * 2**-11``
``random`` bfloat16    16          ``(lane16(i) >> 8) * 2**-8``
``random`` float32     8           ``(lane32(i) >> 8) * 2**-24``
``random`` float64     4           ``(word(i) >> 11) * 2**-53``
``normal`` float32     8           Box-Muller on ``a = lane32(2 k)`` and ``b = lane32(2 k + 1)``
                                   with ``k = i // 2``, in float64:
                                   ``r = sqrt(-2 log((a + 1) * 2**-32))``,
                                   ``t = b * (2 pi * 2**-32)``; ``r cos t`` for even ``i`` and
                                   ``r sin t`` for odd ``i``, rounded to float32
``normal`` float16     8           the float32 value, rounded to float16; so for bfloat16
``normal`` float64     4           the same with ``a = word(2 k) >> 11`` and
                                   ``b = word(2 k + 1) >> 11``, and ``2**-53`` for ``2**-32``
``integers``           4           ``low + (word(i) * (high - low) >> 64)``, 128-bit product
``bernoulli_mask``     8           ``lane32(i) < floor(p * 2**32 + 0.5)``
``permutation``        4           the indices that sort ``word(0) .. word(n - 1)``, ties by index
``multinomial``        4           the place of a float64 uniform ``u(i)`` in the cumulated
                                   weights; without replacement, the first indices that sort
                                   ``-log(1 - u(j)) / w(j)``, one ``u(j)`` per weight ``w(j)``
=====================  ==========  ==========================================================

On the CPU NumPy makes draws of few numbers, and compiled kernels, where there is a compiler, those
of many. Uniform numbers, integers, masks and permutations are the same bits on every machine. A
float32 normal is computed in float64 and rounded once, so that the last-place differences between
mathematical libraries show in about one value of 50 million.
"""

from __future__ import annotations

import contextlib
import math
import operator
import os
import sys
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np

from gradlite import dtypes
from gradlite.device import array_module, as_device
from gradlite.device import device as Device

Array = np.ndarray[Any, Any]
Shape = int | tuple[int, ...]

DEFAULT_SEED = 67280421310721
_WORD = 1 << 64
# Numbers beside arrays are arrays of no dimension: NumPy takes them in half the time of others.
_LOW32, _SHIFT32 = np.array(0xFFFFFFFF, np.uint64), np.array(32, np.uint64)
_SHIFT_DOUBLE = np.array(11, np.uint64)
_ONE, _MINUS_TWO = np.array(1.0), np.array(-2.0)
# By the bits of a pair's integers: what makes fractions of them, and angles.
_FRACTION = {bits: np.array(2.0**-bits) for bits in (32, 53)}
_TURN = {bits: np.array(2.0 * math.pi * 2.0**-bits) for bits in (32, 53)}
_LITTLE_ENDIAN = sys.byteorder == "little"
# Float64 scratch of Box-Muller stays in the second-level cache at this many pairs.
_CHUNK = 1 << 14
# Of the circle, for Box-Muller; and from how many pairs on these save more than they cost.
_ARCS, _MANY = 4096, 512
_WORTH_COMPILED = 4096  # words for which it pays to load what orders them
# Values per block, by the type of the value; both spellings of a dtype are keys, because the
# look-up stands on the path of every draw.
_UNIFORM_PER_BLOCK: dict[Any, tuple[np.dtype[Any], int]] = {
    key: (np.dtype(kind), per_block)
    for kind, per_block in ((np.float16, 16), (np.float32, 8), (np.float64, 4))
    for key in (kind, np.dtype(kind))
}


@dtypes.when_loaded
def _enter_bfloat16(kind: np.dtype[Any]) -> None:
    _UNIFORM_PER_BLOCK[kind] = _UNIFORM_PER_BLOCK[kind.type] = (kind, 16)


def _float_kind(dtype: Any) -> tuple[np.dtype[Any], int]:
    """The NumPy dtype and the uniform values per block of a floating dtype in any spelling."""
    kind = np.dtype(getattr(dtype, "numpy", dtype))
    if kind not in _UNIFORM_PER_BLOCK:
        raise RuntimeError(f"random numbers of dtype {dtype} are not supported: use a float dtype")
    return _UNIFORM_PER_BLOCK[kind]


def _as_seed(seed: Any) -> int:
    """The key of a seed: PyTorch's rule, a 64-bit integer whose negative values wrap."""
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise RuntimeError(f"manual_seed expected a long, but got {type(seed).__name__}")
    value = operator.index(seed)
    if not -(1 << 63) <= value < _WORD:
        raise ValueError("Overflow when unpacking long long")
    return value % _WORD


def _size(shape: Shape) -> int:
    count = shape if isinstance(shape, int) else math.prod(shape)
    if count < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension: {shape}")
    return count


def _lanes(words: Array, kind: Any) -> Array:
    """The 32- or 16-bit lanes of 64-bit words, lowest first."""
    if not _LITTLE_ENDIAN:
        words = words.astype("<u8").view(np.dtype(kind).newbyteorder("<"))
    lanes: Array = words.astype(kind) if not _LITTLE_ENDIAN else words.view(kind)
    return lanes


class Generator:
    """A stream of random numbers, whose whole state is ``{seed, offset}``.

    Args:
        device: where the numbers are wanted. The stream is the same on every device.

    The draws (``random``, ``normal``, ``integers``, ``permutation``, ``bernoulli_mask``) return
    NumPy arrays; the module's docstring states each value as a function of seed and offset. They
    may be called from several threads, each draw taking its own blocks.

    >>> g = Generator().manual_seed(7)
    >>> g.random((3,), np.float32)
    array([0.16372651, 0.8720734 , 0.97226334], dtype=float32)
    >>> g.get_offset()
    1
    """

    # Puts the state in a tensor for get_state; the tensor module, which stands above this one,
    # sets it.
    wrap_state: ClassVar[Callable[[Array], Any]] = staticmethod(lambda array: array)
    # Makes a draw's values by compiled code: `compiled(kernel, array, seed, offset, *numbers)`,
    # False where there is none; the module of draws, which knows of kernels, sets it.
    compiled: ClassVar[Callable[..., bool]] = staticmethod(lambda *_: False)

    __slots__ = ("_device", "_lock", "_numpy", "_offset", "_philox", "_position", "_seed")

    def __init__(self, device: str | int | Device = "cpu") -> None:
        self._device = as_device(device)
        array_module(self._device)
        self._seed = DEFAULT_SEED
        self._offset = 0
        self._start()

    def _start(self) -> None:
        """Make the lock; drop NumPy's generators, which neither pickle nor survive a fork."""
        self._lock = threading.RLock()  # a seek may make the generators
        self._position = -1
        for name in ("_philox", "_numpy"):
            with contextlib.suppress(AttributeError):
                delattr(self, name)

    def __getattr__(self, name: str) -> Any:
        # Comes here once, for an empty slot: importing numpy.random takes long, so
        # NumPy's generators are made at the first draw.
        if name not in ("_philox", "_numpy"):
            raise AttributeError(f"'Generator' object has no attribute {name!r}")
        with self._lock:
            try:
                return object.__getattribute__(self, name)
            except AttributeError:
                self._philox = np.random.Philox(key=self._seed)
                self._numpy = np.random.Generator(self._philox)
                self._position = -1
            return object.__getattribute__(self, name)

    # -- seed and state ----------------------------------------------------------------------

    @property
    def device(self) -> Device:
        """The device the generator was made for."""
        return self._device

    def manual_seed(self, seed: int) -> Generator:
        """Set the seed, start the stream anew and return the generator.

        Args:
            seed: an integer from ``-2**63`` to ``2**64 - 1``; a negative one means
                ``2**64 + seed``.

        Raises:
            RuntimeError: ``seed`` is not an integer.
            ValueError: ``seed`` does not fit.
        """
        self._set(_as_seed(seed), 0)
        return self

    def initial_seed(self) -> int:
        """The seed the stream was started with."""
        return self._seed

    def seed(self) -> int:
        """Seed the stream from the operating system's entropy and return the seed."""
        # 53 bits, so that the seed survives a trip through JSON or a float.
        self._set(int.from_bytes(os.urandom(8), "little") >> 11, 0)
        return self._seed

    def get_offset(self) -> int:
        """The number of blocks used so far."""
        return self._offset

    def set_offset(self, offset: int) -> None:
        """Continue at block ``offset`` of the stream."""
        self._set(self._seed, operator.index(offset) % _WORD)

    def _set(self, seed: int, offset: int) -> None:
        with self._lock:
            self._seed = seed
            self._offset = offset
            self._position = -1  # the next draw seeks

    def _seek(self) -> None:
        """Put NumPy's bit generator where the state says."""
        self._philox.state = {
            "bit_generator": "Philox",
            "state": {
                "counter": np.array([self._offset, 0, 0, 0], np.uint64),
                "key": np.array([self._seed, 0], np.uint64),
            },
            "buffer": np.zeros(4, np.uint64),
            "buffer_pos": 4,
            "has_uint32": 0,
            "uinteger": 0,
        }
        self._position = self._offset

    def state_array(self) -> Array:
        """The state as 16 bytes: seed, then offset, each 64 bits, little-endian."""
        with self._lock:
            return np.array([self._seed, self._offset], "<u8").view(np.uint8)

    def set_state_array(self, state: Array) -> None:
        """Restore a state that :meth:`state_array` gave.

        Raises:
            TypeError: not an array of bytes.
            RuntimeError: an array of another size.
        """
        if not isinstance(state, np.ndarray) or state.dtype != np.uint8:
            raise TypeError("RNG state must be a gradlite.ByteTensor")
        if state.size != 16:
            raise RuntimeError(
                "Expected a CPUGeneratorImplState of size 16 but found the input RNG state size "
                f"to be {state.size}"
            )
        seed, offset = np.ascontiguousarray(state).reshape(-1).view("<u8").tolist()
        self._set(seed, offset)

    def get_state(self) -> Any:
        """The state, as a uint8 tensor of 16 elements."""
        return type(self).wrap_state(self.state_array())

    def set_state(self, new_state: Any) -> None:
        """Restore a state that :meth:`get_state` gave (on this machine or another)."""
        array = getattr(new_state, "array", new_state)
        if not isinstance(array, np.ndarray):
            if not hasattr(array, "get"):
                raise TypeError(
                    f"expected a gradlite.ByteTensor, but got {type(new_state).__name__}"
                )
            array = array.get()  # CuPy's way to the host
        self.set_state_array(array)

    def clone_state(self) -> Generator:
        """A new generator at the same place of the same stream."""
        clone = type(self)(self._device)
        clone.set_state_array(self.state_array())
        return clone

    def __getstate__(self) -> tuple[Any, ...]:
        with self._lock:
            return (self._device, self._seed, self._offset)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._device, self._seed, self._offset = state
        self._start()

    def reserve(self, blocks: int) -> tuple[int, int]:
        """Take ``blocks`` blocks without computing them; return ``(seed, first block)``.

        This is what a kernel needs to make the numbers itself.

        >>> Generator().manual_seed(7).reserve(3)
        (7, 0)
        """
        with self._lock:
            first = self._offset
            self._offset = (first + blocks) % _WORD
            return self._seed, first

    # -- draws -------------------------------------------------------------------------------

    def _draw(self, blocks: int, source: Callable[..., Array], *args: Any) -> Array:
        """``source(*args)``, a call that takes ``blocks`` blocks from NumPy's bit generator."""
        with self._lock:
            if self._position != self._offset:
                self._seek()
            # Moved before the call, so that one that fails half-way leaves the two unequal and
            # the next draw seeks.
            self._offset = (self._offset + blocks) % _WORD
            values = source(*args)
            self._position = self._offset
        return values

    def _compiled(
        self, kernel: str, shape: Shape, kind: Any, per_block: int, *numbers: int
    ) -> Array | None:
        """A draw of so many values per block by compiled code; None where there is none."""
        values = np.empty(shape, kind)
        with self._lock:
            offset = self._offset
            if not type(self).compiled(kernel, values, self._seed, offset, *numbers):
                return None
            self._offset = (offset - (-values.size // per_block)) % _WORD
        return values

    def words(self, count: int) -> Array:
        """The next ``count`` 64-bit words, as uint64; whole blocks are used up."""
        values = self._compiled("random_words", count, np.uint64, 4)
        return self._blocks((count + 3) >> 2)[:count] if values is None else values

    def _blocks(self, blocks: int) -> Array:
        """The words of so many blocks."""
        return self._draw(blocks, self._philox.random_raw, 4 * blocks)

    def random(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Uniform numbers in [0, 1): multiples of 2**-11, 2**-8, 2**-24 or
        2**-53 in float16, bfloat16, float32 or float64.

        >>> Generator().manual_seed(7).random((2,), np.float64)
        array([0.87207345, 0.29536538])
        """
        kind, per_block = _UNIFORM_PER_BLOCK.get(dtype) or _float_kind(dtype)
        count = _size(shape)
        blocks = -(-count // per_block)
        if per_block == 16:
            words = self._blocks(blocks)
            bits = 11 if kind == np.float16 else 8
            values: Array = np.right_shift(_lanes(words, np.uint16), 16 - bits).astype(kind)
            values *= kind.type(2.0**-bits)
        else:
            made = self._compiled("random_uniform", shape, kind, per_block)
            if made is not None:
                return made
            # NumPy's own mapping for both types is the one promised above.
            values = self._draw(blocks, self._numpy.random, per_block * blocks, kind)
        return values[:count].reshape(shape)

    def normal(self, shape: Shape, dtype: Any = np.float32) -> Array:
        """Numbers from the normal distribution with mean 0 and variance 1.

        By the method of Box and Muller ("A note on the generation of random normal deviates",
        1958); the largest magnitude is 6.66, or 8.57 in float64.

        >>> Generator().manual_seed(7).normal((2,))
        array([ 1.3202364, -1.3697047], dtype=float32)
        """
        kind, _ = _UNIFORM_PER_BLOCK.get(dtype) or _float_kind(dtype)
        count = _size(shape)
        if kind == np.float64:  # by NumPy alone: any difference between two logarithms would show
            pairs, bits = self._blocks((count + 3) >> 2).reshape(-1, 2), 53
            pairs >>= _SHIFT_DOUBLE
        else:
            made = self._compiled("random_normal", shape, np.float32, 8)
            if made is not None:
                return made if kind == np.float32 else made.astype(kind)
            pairs, bits = _lanes(self._blocks((count + 7) >> 3), np.uint32).reshape(-1, 2), 32
        if len(pairs) <= _CHUNK:
            normals = _box_muller(pairs, bits)
        else:
            normals = np.empty(pairs.shape, np.float64 if bits == 53 else np.float32)
            for start in range(0, len(pairs), _CHUNK):
                chunk = slice(start, start + _CHUNK)
                normals[chunk] = _box_muller(pairs[chunk], bits)
        values: Array = normals.reshape(-1)[:count].reshape(shape)
        return values.astype(kind) if kind in dtypes.HALVES else values

    def integers(self, low: int, high: int, shape: Shape, dtype: Any = np.int64) -> Array:
        """Integers from ``low`` to ``high - 1``, each as likely as the other to one in 2**64.

        By multiplying a 64-bit word with the width of the range and keeping the upper half
        (Lemire, "Fast random integer generation in an interval", 2019, without its rejection).

        Raises:
            RuntimeError: an empty range, or one wider than 2**64.

        >>> Generator().manual_seed(7).integers(0, 10, (5,))
        array([8, 2, 4, 4, 0])
        """
        low, high = operator.index(low), operator.index(high)
        width = high - low
        if width <= 0:
            raise RuntimeError(
                f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
            )
        if width > _WORD:
            raise RuntimeError(f"from={low} to={high} is wider than 64 bits")
        count = _size(shape)
        kind = np.dtype(getattr(dtype, "numpy", dtype))
        made = self._compiled("random_integers", shape, np.int64, 4, low, width)
        if made is not None:
            return made.astype(kind, copy=False)
        values = self._blocks((count + 3) >> 2)[:count]
        if width != _WORD:
            values = _multiply_high(values, width)
        if low:
            values += np.array(low % _WORD, np.uint64)
        if kind != np.uint64:
            values = values.view(np.int64)
        return values.astype(kind, copy=False).reshape(shape)

    def bernoulli_mask(self, shape: Shape, p: float) -> Array:
        """A bool array, each element True with probability ``p`` (to one in 2**32).

        Raises:
            RuntimeError: ``p`` is not in [0, 1].

        >>> Generator().manual_seed(7).bernoulli_mask((4,), 0.5)
        array([ True, False, False,  True])
        """
        if not 0.0 <= p <= 1.0:
            raise RuntimeError(f"bernoulli_ expects p to be in [0, 1], but got p={p}")
        count = _size(shape)
        threshold = int(p * 4294967296.0 + 0.5)
        made = self._compiled("random_mask", shape, np.bool_, 8, threshold)
        if made is not None:
            return made
        words = self._blocks((count + 7) >> 3)
        if threshold >= 1 << 32:
            return np.ones(shape, np.bool_)
        lanes = _lanes(words, np.uint32)[:count]
        mask: Array = np.less(lanes, np.uint32(threshold))
        return mask.reshape(shape)

    def permutation(self, n: int) -> Array:
        """The integers from 0 to ``n - 1`` in random order, as int64.

        >>> Generator().manual_seed(7).permutation(5)
        array([4, 1, 3, 2, 0])
        """
        words = self.words(_size(operator.index(n)))
        if n >= _WORTH_COMPILED:
            from gradlite.backends import orders  # late: it takes a while

            order = orders.argsort(words)
            if order is not None:
                return order
        return _stable_argsort(words)


@lru_cache(1)
def _circle() -> tuple[Array, Array]:
    """Cosines and sines of the first angles of ``_ARCS`` equal arcs."""
    turns = np.arange(_ARCS, dtype=np.longdouble) / _ARCS
    angles = turns * (8 * np.arctan(np.longdouble(1)))
    return np.cos(angles).astype(np.float64), np.sin(angles).astype(np.float64)


def _box_muller(pairs: Array, bits: int) -> Array:
    """The two normals of each pair of integers of so many bits, of 32 in float32.

    Many angles of 32 bits are taken apart into an arc of `_circle` and a rest, whose cosine and
    sine are short polynomials: NumPy's own functions of float64 take four times as long.
    """
    normals = pairs.astype(np.float64)
    radius = normals[:, 0] + _ONE
    radius *= _FRACTION[bits]
    np.log(radius, radius)
    radius *= _MINUS_TWO
    np.sqrt(radius, radius)
    if bits > 32 or len(pairs) < _MANY:
        angle = normals[:, 1] * _TURN[bits]
        np.multiply(radius, np.cos(angle), normals[:, 0])
        np.multiply(radius, np.sin(angle, angle), normals[:, 1])
        return normals if bits > 32 else normals.astype(np.float32)
    turns, within = pairs[:, 1], np.uint32(33 - _ARCS.bit_length())
    arcs = (turns >> within).astype(np.intp)
    cosines, sines = (table.take(arcs) for table in _circle())
    rest = (turns & np.uint32((1 << within) - 1)) * _TURN[bits]
    square = rest * rest
    sine = rest - rest * (square * (1 / 6 - square * (1 / 120)))
    less = square * (0.5 - square * (1 / 24))  # 1 minus the cosine
    np.multiply(radius, cosines - (cosines * less + sines * sine), normals[:, 0])
    np.multiply(radius, sines - (sines * less - cosines * sine), normals[:, 1])
    return normals.astype(np.float32)


def _multiply_high(words: Array, width: int) -> Array:
    """The upper 64 bits of the 128-bit products ``words * width``."""
    upper: Array = words >> _SHIFT32
    lower: Array = words & _LOW32
    width_lower = np.array(width & 0xFFFFFFFF, np.uint64)
    middle: Array = upper * width_lower
    lower_product = lower * width_lower
    lower_product >>= _SHIFT32
    if width < 1 << 32:
        middle += lower_product
        middle >>= _SHIFT32
        return middle
    width_upper = np.array(width >> 32, np.uint64)
    # Each partial sum stays below 2**64: (2**32 - 1)**2 + 2 (2**32 - 1) = 2**64 - 1.
    cross = lower * width_upper
    cross += middle & _LOW32
    cross += lower_product
    middle >>= _SHIFT32
    cross >>= _SHIFT32
    upper *= width_upper
    upper += middle
    upper += cross
    return upper


def _stable_argsort(keys: Array) -> Array:
    """``argsort(keys, kind="stable")``, by sorting the values where that gives the same."""
    count = keys.size
    if count < 1024:
        return np.argsort(keys, kind="stable")
    # Sorting values is several times faster than sorting indices. The index takes the place of
    # the lowest bits, which matter only to keys whose upper bits agree: the check finds those.
    bits = np.uint64((count - 1).bit_length())
    packed: Array = (keys >> bits) << bits
    packed |= np.arange(count, dtype=np.uint64)
    packed.sort()
    packed &= (np.uint64(1) << bits) - np.uint64(1)
    order = packed.view(np.int64)
    ordered = keys[order]
    if (ordered[1:] > ordered[:-1]).all():
        return order
    return np.argsort(keys, kind="stable")


default_generator = Generator()
default_generator.seed()

if hasattr(os, "register_at_fork"):
    # A thread of the parent may hold the lock, which nobody in the child would release.
    os.register_at_fork(after_in_child=default_generator._start)
