"""Printed tensors against PyTorch's, character for character."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.library import ON_TORCH, T

torch = pytest.importorskip("torch")
importlib.import_module(f"{T.__name__}.nn")

INF, NAN = float("inf"), float("nan")
FLOATING = ("float16", "float32", "float64")
INTEGRAL = ("uint8", "int8", "int16", "int32", "int64")

only_gradlite = pytest.mark.skipif(ON_TORCH, reason="asks for what PyTorch keeps private")


def as_printed_by(library: Any, build: Callable[[Any], Any], options: dict[str, Any]) -> str:
    library.set_printoptions(profile="default")
    try:
        library.set_printoptions(**options)
        return repr(build(library))
    finally:
        library.set_printoptions(profile="default")


def assert_same_text(build: Callable[[Any], Any], **options: Any) -> str:
    """The text that both libraries print for ``build(library)`` under the options."""
    __tracebackhide__ = True
    expected = as_printed_by(torch, build, options).replace("torch.", f"{T.__name__}.")
    actual = as_printed_by(T, build, options)
    assert actual == expected, f"\nPyTorch:\n{expected}\nwe print:\n{actual}\n{options}"
    return actual


def of_array(array: np.ndarray) -> Callable[[Any], Any]:
    return lambda library: library.from_numpy(np.array(array))


# ------------------------------------------------------------------------------- numbers
NUMBERS: dict[str, list[float]] = {
    "integral": [1, 2, 3],
    "fractions": [1, 2.5],
    "negative": [-1.5, 2],
    "wide": [1.5, 1000],
    "ratio of 1000": [1, 1000],
    "ratio above 1000": [1, 1001],
    "fractions with a ratio above 1000": [0.5, 500.5],
    "same large magnitude": [100000, 99999],
    "1e8": [1e8],
    "above 1e8": [1e8 + 8],
    "large": [1e10, 1.5e10],
    "1e-4": [1e-4],
    "below 1e-4": [9e-5],
    "small": [1e-8, 2e-8],
    "small and zero": [0, 1e-9],
    "smallest float32": [1e-45],
    "rounding up": [9.99995, 0.99999],
    "rounding up to one more digit": [99999.99999],
    "zero": [0],
    "negative zero": [-0.0],
    "negative zero beside numbers": [-0.0, 1, 1.0],
    "nan": [NAN],
    "nan and integral": [NAN, 1],
    "nan and integral of three characters": [NAN, 10, -1],
    "inf": [INF, -INF],
    "inf and integral": [INF, -INF, 1],
    "inf and fraction": [INF, 1.5, -INF],
    "inf and small": [-INF, 1e-6],
    "inf, nan and zero": [INF, NAN, 0],
    "halves to even": [0.00005, 0.00015, 0.00025, 2.5],
}
SCI_MODES = (None, True, False)


@pytest.mark.parametrize("sci_mode", SCI_MODES)
@pytest.mark.parametrize("dtype", FLOATING)
@pytest.mark.parametrize("case", NUMBERS)
def test_notation_of_floats(case: str, dtype: str, sci_mode: bool | None) -> None:
    with np.errstate(over="ignore"):
        array = np.array(NUMBERS[case]).astype(dtype)
    assert_same_text(of_array(array), sci_mode=sci_mode)
    for number in array:
        assert_same_text(of_array(number), sci_mode=sci_mode)


@pytest.mark.parametrize("precision", [0, 1, 2, 4, 7, 12])
@pytest.mark.parametrize("sci_mode", SCI_MODES)
def test_precision(precision: int, sci_mode: bool | None) -> None:
    for numbers in ([1.0, 2.0], [1.5, 2.5], [1e-7, 1.0], [NAN, 0.125], [0.0, INF]):
        array = np.array(numbers, np.float64)
        assert_same_text(of_array(array), precision=precision, sci_mode=sci_mode)


@pytest.mark.parametrize("dtype", INTEGRAL)
def test_integers(dtype: str) -> None:
    limits = np.iinfo(dtype)
    for numbers in ([0], [1, 10, 100], [limits.min, limits.max], list(range(50))):
        assert_same_text(of_array(np.array(numbers, dtype)))
    assert_same_text(of_array(np.array(limits.max, dtype)))


def test_bools() -> None:
    for values in (True, False, [True], [False, True], [[True] * 20, [False] * 20]):
        assert_same_text(lambda library, values=values: library.tensor(values))


@pytest.mark.parametrize("default", FLOATING)
@pytest.mark.parametrize("dtype", (*FLOATING, *INTEGRAL, "bool"))
def test_dtype_is_shown_where_it_is_not_evident(dtype: str, default: str) -> None:
    libraries = [torch] if ON_TORCH else [torch, T]
    before = [library.get_default_dtype() for library in libraries]
    try:
        for library in libraries:
            library.set_default_dtype(getattr(library, default))
        for shape in ((), (2,), (0,), (0, 3)):
            assert_same_text(of_array(np.ones(shape, dtype)))
    finally:
        for library, dtype_before in zip(libraries, before, strict=True):
            library.set_default_dtype(dtype_before)


# ---------------------------------------------------------------------------------- layout
SHAPES = [
    *[(), (0,), (1,), (30,), (999,), (1000,), (1001,)],
    *[(0, 3), (3, 0), (2, 3), (3, 25), (40, 40), (6, 200), (200, 6)],
    *[(2, 0, 4), (1, 1, 1), (2, 2, 2), (1, 1, 1200), (1200, 1, 1)],
    *[(2, 1, 3, 2), (7, 7, 7, 7), (2, 8, 2, 50), (2, 1, 2, 1, 2)],
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_shapes(shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    assert_same_text(of_array(np.arange(count).reshape(shape)))
    assert_same_text(of_array((np.arange(count, dtype=np.float32) / 8 + 1).reshape(shape)))
    assert_same_text(of_array(np.arange(count).reshape(shape) % 3 == 0))


@pytest.mark.parametrize("threshold", [-1, 0, 5, 24, 2.5, INF])
@pytest.mark.parametrize("edgeitems", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "shape", [(), (1,), (0,), (0, 2), (9,), (2, 12), (5, 5), (3, 4, 5)], ids=str
)
def test_summarising(shape: tuple[int, ...], edgeitems: int, threshold: float) -> None:
    count = int(np.prod(shape))
    options = {"threshold": threshold, "edgeitems": edgeitems}
    assert_same_text(of_array(np.arange(count).reshape(shape)), **options)
    assert_same_text(of_array(np.arange(count, dtype=np.float64).reshape(shape) / 2), **options)


@pytest.mark.parametrize("edgeitems", [-2, -1])
def test_negative_edgeitems_overlap(edgeitems: int) -> None:
    assert_same_text(of_array(np.arange(10)), edgeitems=edgeitems, threshold=3)


def test_notation_depends_on_the_shown_elements_alone() -> None:
    array = np.ones(2000, np.float32)
    array[1000] = 1e-9
    assert assert_same_text(of_array(array)) == "tensor([1., 1., 1.,  ..., 1., 1., 1.])"


def test_elements_that_are_not_shown_cost_nothing() -> None:
    """10^12 elements: reading them all would take minutes."""
    text = assert_same_text(lambda library: library.tensor(1.5).expand(10**6, 10**6))
    assert text.count("1.5000") == 36


def test_memory_order_does_not_show() -> None:
    assert_same_text(lambda library: library.arange(24).reshape(2, 3, 4).permute(2, 0, 1))
    assert_same_text(lambda library: library.arange(3000).reshape(50, 60).T[::2, ::3])


@pytest.mark.parametrize("linewidth", [-5, 1, 12, 20, 20.5, 33, 79, 80, 81, 200])
def test_line_width(linewidth: float) -> None:
    for array in (np.arange(40), np.arange(40.0) / 4, np.arange(60).reshape(3, 20) % 2 == 0):
        assert_same_text(of_array(array), linewidth=linewidth)
    assert_same_text(of_array(np.arange(4000.0)), linewidth=linewidth)


def test_nan_does_not_count_for_the_number_of_columns() -> None:
    assert_same_text(of_array(np.array([NAN, 1.0, 2.0] * 20)))


@pytest.mark.parametrize("linewidth", range(20, 100))
def test_notes_move_to_the_next_line_at_the_same_width(linewidth: int) -> None:
    builds: list[Callable[[Any], Any]] = [
        lambda library: library.arange(3, dtype=library.int32),
        lambda library: library.arange(6, dtype=library.int16).reshape(2, 3),
        lambda library: library.ones(2, requires_grad=True),
        lambda library: library.ones(2, dtype=library.float64, requires_grad=True),
        lambda library: library.ones(2, dtype=library.float64, requires_grad=True) + 1,
        lambda library: library.zeros(0, 3, dtype=library.float64, requires_grad=True),
    ]
    for build in builds:
        assert_same_text(build, linewidth=linewidth)
        assert_same_text(build, linewidth=linewidth, edgeitems=0)


# ------------------------------------------------------------------------------ grad state
def test_requires_grad_and_grad_fn() -> None:
    def leaf(library: Any) -> Any:
        return library.tensor([1.0, 2.0, 3.0], requires_grad=True)

    text = assert_same_text(leaf)
    assert text == "tensor([1., 2., 3.], requires_grad=True)"
    text = assert_same_text(lambda library: library.tensor([0.1], requires_grad=True) + 0.5)
    assert text == "tensor([0.6000], grad_fn=<AddBackward0>)"
    assert_same_text(lambda library: leaf(library).sum())
    assert_same_text(lambda library: (leaf(library) * 2).detach())
    assert_same_text(lambda library: (leaf(library) * 2).expand(2, 3))


def test_without_a_graph_no_grad_state_is_shown() -> None:
    def doubled(library: Any) -> Any:
        with library.no_grad():
            return library.ones(2, requires_grad=True) * 2

    def in_inference_mode(library: Any) -> Any:
        with library.inference_mode():
            return library.ones(2)

    assert_same_text(doubled)
    assert_same_text(in_inference_mode)


def test_grad_fn_of_an_own_function() -> None:
    def build(library: Any) -> Any:
        class Twice(library.autograd.Function):
            @staticmethod
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            def backward(ctx: Any, grad_output: Any) -> Any:
                return grad_output * 2

        return Twice.apply(library.ones(2, requires_grad=True))

    assert assert_same_text(build) == "tensor([2., 2.], grad_fn=<TwiceBackward>)"


# ------------------------------------------------------------------------------ subclasses
def test_parameters() -> None:
    for shape in ((2,), (2, 3), (9,), ()):
        assert_same_text(lambda library, shape=shape: library.nn.Parameter(library.ones(shape)))
    assert_same_text(lambda library: library.nn.Parameter(library.ones(2), requires_grad=False))
    assert_same_text(lambda library: library.nn.Parameter(library.arange(20.0) / 3))
    assert_same_text(lambda library: [library.nn.Parameter(library.ones(2))])


def test_a_class_derived_elsewhere_prints_under_its_own_name() -> None:
    def build(library: Any) -> Any:
        class Measurement(library.Tensor):
            pass

        return Measurement([[1.5] * 30, [2.5] * 30])

    assert assert_same_text(build).startswith("Measurement([[1.5000, ")


@only_gradlite
def test_a_parameter_class_derived_elsewhere_is_named_twice() -> None:
    from gradlite.printing import parameter_str

    def build(library: Any) -> Any:
        class Scale(library.nn.Parameter):
            pass

        return Scale(library.tensor([1.5] * 30))

    text = parameter_str(build(T))
    assert text == repr(build(torch))
    assert text.startswith("Parameter containing:\nParameter(Scale([")


# --------------------------------------------------------------------------------- devices
class ArrayElsewhere:
    """An array in another memory: only ``get()`` brings elements to the host."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self.shape, self.ndim, self.size = array.shape, array.ndim, array.size
        self.fetched: list[int] = []

    def __getitem__(self, index: Any) -> ArrayElsewhere:
        part = ArrayElsewhere(self._array[index])
        part.fetched = self.fetched
        return part

    def get(self) -> np.ndarray:
        self.fetched.append(self.size)
        return self._array


class TensorElsewhere:
    """What printing reads of a tensor, for an array on a GPU that this machine may not have."""

    def __init__(self, array: np.ndarray, requires_grad: bool = False) -> None:
        self.array = ArrayElsewhere(array)
        self.dtype = T.from_numpy(array).dtype
        self.device = T.device("cuda:1")
        self.requires_grad = requires_grad
        self.grad_fn = None


TensorElsewhere.__module__ = "gradlite.tensor"


@only_gradlite
def test_device_is_the_first_note_and_only_shown_elements_are_fetched() -> None:
    from gradlite.printing import tensor_str

    t = TensorElsewhere(np.arange(5000.0).reshape(50, 100) // 5000 + 0.5, requires_grad=True)
    assert tensor_str(t) == (
        "tensor([[0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000],\n"
        "        [0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000],\n"
        "        [0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000],\n"
        "        ...,\n"
        "        [0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000],\n"
        "        [0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000],\n"
        "        [0.5000, 0.5000, 0.5000,  ..., 0.5000, 0.5000, 0.5000]],\n"
        "       device='cuda:1', dtype=gradlite.float64, requires_grad=True)"
    )
    assert t.array.fetched == [36]


@only_gradlite
def test_notes_come_in_the_order_of_pytorch() -> None:
    from gradlite.printing import tensor_str

    # PyTorch never shows the elements of its meta device, and then always the size.
    expected = repr(torch.empty(0, 3, dtype=torch.float64, device="meta", requires_grad=True))
    expected = expected.replace("...", "[]").replace("meta", "cuda:1")
    expected = expected.replace("torch.", "gradlite.").replace(",\n      ", ",")
    actual = tensor_str(TensorElsewhere(np.empty((0, 3)), requires_grad=True))
    assert actual.replace(",\n      ", ",") == expected


@only_gradlite
def test_a_tensor_whose_history_is_refused_still_prints() -> None:
    from gradlite.printing import tensor_str

    class Refusing(TensorElsewhere):
        @property
        def grad_fn(self) -> Any:
            raise RuntimeError("A view was created in no_grad mode")

        @grad_fn.setter
        def grad_fn(self, node: Any) -> None: ...

    Refusing.__module__ = "gradlite.tensor"
    expected = "tensor([1., 2.], device='cuda:1', grad_fn=<Invalid>)"
    assert tensor_str(Refusing(np.array([1, 2], np.float32))) == expected


@pytest.mark.cuda
def test_cuda() -> None:
    assert repr(T.ones(2, device="cuda")) == "tensor([1., 1.], device='cuda:0')"
    on_host = repr(T.arange(9000).reshape(9, 1000))
    on_device = repr(T.arange(9000, device="cuda").reshape(9, 1000))
    assert on_device == on_host.removesuffix(")") + ", device='cuda:0')"
    assert f"{T.tensor(1.5, device='cuda'):.2f}" == "1.50"


# --------------------------------------------------------------------------------- options
@only_gradlite
def test_options() -> None:
    from gradlite.printing import get_printoptions, printoptions, set_printoptions

    pytorchs = torch._tensor_str
    calls: list[dict[str, Any]] = [
        {},
        {"precision": 2},
        {"threshold": 10, "edgeitems": 5, "linewidth": 40},
        {"sci_mode": True},
        {"linewidth": 50},  # also ends sci_mode=True
        {"sci_mode": False, "precision": 0},
        {"profile": "short"},
        {"profile": "full", "precision": 7, "edgeitems": 1},
        {"profile": "FULL"},
        {"profile": "unknown"},
        {"profile": "default"},
    ]
    for call in calls:
        torch.set_printoptions(**call)
        set_printoptions(**call)
        assert get_printoptions() == pytorchs.get_printoptions(), call
        with printoptions(edgeitems=2), pytorchs.printoptions(edgeitems=2):
            assert get_printoptions() == pytorchs.get_printoptions(), call
        assert get_printoptions() == pytorchs.get_printoptions(), call


@only_gradlite
def test_printoptions_ends_with_its_block() -> None:
    from gradlite.printing import get_printoptions, printoptions, set_printoptions

    before = get_printoptions()
    with pytest.raises(ZeroDivisionError), printoptions(precision=1, sci_mode=True):
        set_printoptions(linewidth=20)
        raise ZeroDivisionError
    assert get_printoptions() == before
    with pytest.raises(TypeError, match="argument 'digits'"), printoptions(digits=1):
        pass
    assert get_printoptions() == before


def test_wrong_options_are_found_when_printing() -> None:
    for wrong in ({"edgeitems": 1.5, "threshold": 0}, {"threshold": "a"}, {"linewidth": "a"}):
        for library in (torch, T):
            with pytest.raises(TypeError):
                as_printed_by(library, lambda library: library.ones(9), wrong)


# ---------------------------------------------------------------------------------- format
@pytest.mark.parametrize("spec", ["", ".3f", "d", "10", ">20", "e", "%", "unknown"])
@pytest.mark.parametrize("data", [1.5, 3, True, [1.0], [[1, 2]]], ids=str)
def test_format(data: Any, spec: str) -> None:
    def formatted(library: Any, wrap: Callable[[Any], Any]) -> str:
        try:
            return format(wrap(library.tensor(data)), spec)
        except (TypeError, ValueError) as error:
            return repr(error)

    assert formatted(T, lambda t: t) == formatted(torch, lambda t: t)
    if isinstance(data, float):
        assert formatted(T, T.nn.Parameter) == formatted(torch, torch.nn.Parameter)


def test_f_strings() -> None:
    def lines(library: Any) -> str:
        loss = library.tensor(0.1, requires_grad=True)
        return f"{loss} {loss:.4f} {loss!s} {loss!r} {library.ones(2)} {loss:8.2e}"

    assert lines(T) == lines(torch)


# ------------------------------------------------------------------------------ everything
@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray:
    side = st.sampled_from([0, 1, 1, 2, 3, 4, 5, 7, 8, 20])
    shape = draw(st.lists(side, max_size=4).filter(lambda shape: np.prod(shape) <= 1500))
    dtype = draw(st.sampled_from([*FLOATING, *INTEGRAL, "bool"]))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if dtype == "bool":
        return np.asarray(generator.random(shape) < 0.5)
    if dtype in INTEGRAL:
        limits = np.iinfo(dtype)
        low, high = draw(st.sampled_from([(0, 9), (0, 100), (limits.min, limits.max)]))
        return np.asarray(generator.integers(low, high, shape, dtype, endpoint=True))
    lowest = draw(st.sampled_from([-300, -9, -5, -3, 0, 3]))
    spread = draw(st.sampled_from([1, 2, 4, 9, 500]))
    exponents = generator.integers(lowest, lowest + spread, shape)
    with np.errstate(over="ignore"):
        values = generator.standard_normal(shape) * 10.0**exponents
    if draw(st.booleans()):
        values = np.round(values)
    special = draw(st.lists(st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e8, 1e-4]), max_size=3))
    if special:
        share = draw(st.sampled_from([0.1, 0.5, 1.0]))
        values = np.where(generator.random(shape) < share, generator.choice(special, shape), values)
    with np.errstate(over="ignore", under="ignore"):
        return np.asarray(values, dtype)


options = st.fixed_dictionaries(
    {},
    optional={
        "precision": st.integers(0, 10),
        "threshold": st.sampled_from([-1, 0, 1, 5, 50, 1000, INF]),
        "edgeitems": st.integers(0, 5),
        "linewidth": st.integers(1, 130),
        "sci_mode": st.sampled_from(SCI_MODES),
        "profile": st.sampled_from(["default", "short", "full"]),
    },
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(arrays(), options, st.sampled_from(["no grad", "leaf", "result"]))
def test_anything(array: np.ndarray, options: dict[str, Any], grad: str) -> None:
    def build(library: Any) -> Any:
        t = library.from_numpy(array.copy())
        if array.dtype.kind != "f" or grad == "no grad":
            return t
        t.requires_grad_()
        return t if grad == "leaf" else t.clone()

    assert_same_text(build, **options)
