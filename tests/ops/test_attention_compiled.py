"""Attention by the compiled functions of attention.hpp, against formulas in double precision."""

from __future__ import annotations

import itertools
import threading
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import launches, libraries
from gradlite.nn import functional as F
from gradlite.ops import attention_compiled
from tests.oracle import same
from tests.switched import launched

needs_code = pytest.mark.skipif(
    libraries.called("attend", "float32") is None, reason="there is no C++ compiler"
)


def by_formulas(arrays: Any, grad: Any, causal: bool, scale: float, mask: Any = None) -> list[Any]:
    """The result and the gradients, in double precision; 0 where a query sees no key."""
    q, k, v, grad = (a.astype(np.float64) for a in (*arrays, grad))
    s = q @ k.swapaxes(-1, -2) * scale
    if causal:
        s = np.where(np.tril(np.ones(s.shape[-2:], bool)), s, -np.inf)
    if mask is not None:
        s = np.where(mask, s, -np.inf) if mask.dtype == bool else s + mask
    top = s.max(-1, keepdims=True)
    p = np.exp(s - np.where(np.isfinite(top), top, 0))
    p /= np.maximum(p.sum(-1, keepdims=True), 1e-300)
    out = p @ v
    slopes = p * (grad @ v.swapaxes(-1, -2) - (grad * out).sum(-1, keepdims=True)) * scale
    return [out, slopes @ k, slopes.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ grad]


def compiled(
    arrays: Any, grad: Any, causal: bool, scale: float, wanted: Any = (1, 1, 1), mask: Any = None
) -> Any:
    """The result and the wanted gradients; NaN where nothing is written."""
    q, k, v = arrays
    lead, queries, keys = q.shape[:-2], q.shape[-2], k.shape[-2]
    room = attention_compiled.room(queries, keys, causal)
    strips = np.full(int(np.prod(lead)) * room, np.nan, "f4")
    out = np.full((*lead, queries, v.shape[-1]), np.nan, "f4")
    assert attention_compiled.attend(np, q, k, v, strips, out, causal, scale, mask)
    made = [np.full(a.shape, np.nan, "f4") if w else None for a, w in zip(arrays, wanted)]
    assert attention_compiled.gradients(np, grad, q, k, v, strips, *made, causal, scale)
    return [out, *made]


def layouts(x: Any) -> list[Any]:
    """The same values in other layouts."""
    inside = np.ascontiguousarray(x.swapaxes(-3, -2)).swapaxes(-3, -2)
    turned = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    backwards = np.ascontiguousarray(x[..., ::-1, ::-1])[..., ::-1, ::-1]
    return [x, inside, turned, backwards, np.repeat(x, 2, axis=-1)[..., ::2]]


def close(made: Any, expected: Any) -> None:
    for a, e in zip(made, expected, strict=True):
        np.testing.assert_allclose(a, e, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(e).max())))


@needs_code
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", [(1, 1), (5, 7), (16, 16), (24, 33), (64, 40)], ids=str)
def test_sizes_and_layouts(sizes: tuple[int, int], causal: bool) -> None:
    rng = np.random.default_rng(sum(sizes))
    for queries, keys in itertools.product((1, 2, 16, 17, 50), (1, 15, 48, 50, 65)):
        shapes = ((2, 3, queries, sizes[0]), (2, 3, keys, sizes[0]), (2, 3, keys, sizes[1]))
        arrays = [rng.standard_normal(s).astype("f4") for s in shapes]
        grad = rng.standard_normal((2, 3, queries, sizes[1])).astype("f4")
        expected = by_formulas(arrays, grad, causal, 0.7)
        for q, k, v, g in zip(*map(layouts, (*arrays, grad))):
            close(compiled((q, k, v), g, causal, 0.7), expected)


def masks(rng: Any, queries: int, keys: int) -> list[Any]:
    """For scores (2, 3, queries, keys): of their own, and with rows or columns that are one."""
    shape = (2, 3, queries, keys)
    bools = rng.random(shape) < 0.7
    bools[0, 1, -1] = False  # a query that sees no key
    numbers = np.where(bools, rng.standard_normal(shape), -np.inf).astype("f4")
    padding = np.arange(keys) < rng.integers(1, keys + 1, (2, 1, 1, 1))
    found = [*layouts(bools)[:4], *layouts(numbers)]
    parts = (padding, padding.astype("f4"), bools[:1, :1], bools[..., :1], numbers[0, 0])
    return found + [np.broadcast_to(part, shape) for part in parts]


@needs_code
@pytest.mark.parametrize("causal", [False, True])
def test_masks(causal: bool) -> None:
    rng = np.random.default_rng(11)
    for queries, keys in itertools.product((1, 2, 16, 17, 50), (1, 15, 16, 50, 65)):
        shapes = ((2, 3, queries, 8), (2, 3, keys, 8), (2, 3, keys, 8))
        arrays = [rng.standard_normal(s).astype("f4") for s in shapes]
        grad = rng.standard_normal((2, 3, queries, 8)).astype("f4")
        for mask in masks(rng, queries, keys):
            expected = by_formulas(arrays, grad, causal, 0.7, mask)
            close(compiled(arrays, grad, causal, 0.7, mask=mask), expected)


@needs_code
@pytest.mark.parametrize("kind", ["bool", "float"])
@pytest.mark.parametrize(
    "shape", [(40, 48), (1, 48), (40, 1), (3, 1, 1, 48), (3, 4, 40, 48), (4, 1, 48)], ids=str
)
def test_masks_are_pytorchs(kind: str, shape: tuple[int, ...]) -> None:
    """With their gradients; what a query sees nothing of has none."""
    pytest.importorskip("torch")
    rng = np.random.default_rng(12)
    arrays = [rng.standard_normal((3, 4, n, 16)).astype("f4") for n in (40, 48, 48)]
    allowed = rng.random(shape) < 0.8
    mask = np.asarray(allowed if kind == "bool" else np.where(allowed, 0.5, -3.0).astype("f4"))

    def program(T: Any) -> Any:
        tensors = [T.tensor(a, requires_grad=True) for a in arrays]
        y = T.nn.functional.scaled_dot_product_attention(*tensors, attn_mask=T.tensor(mask))
        (y * y).sum().backward()
        return y.detach(), *(t.grad for t in tensors)

    with launches.record() as names:
        program(gradlite)
    assert names == ["attention", "attention_gradients"]
    same(program, rtol=1e-4, atol=1e-4)


@needs_code
def test_masks_that_are_not_finite() -> None:
    """A number that is none makes its query's result none, as in PyTorch; infinite ones too."""
    q, k, v = (gradlite.ones(1, 4, 64, 16) for _ in range(3))
    mask = gradlite.zeros(64, 64)
    mask[3, 5], mask[7, 1], mask[9] = np.nan, np.inf, -np.inf
    with launches.record() as names:
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    assert names == ["attention"]
    expected = gradlite.ones(1, 4, 64, 16)
    expected[:, :, 3], expected[:, :, 7], expected[:, :, 9] = np.nan, np.nan, 0.0
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)


@needs_code
@pytest.mark.parametrize("lead", [(), (3,), (2, 1, 3)], ids=str)
def test_stacks_and_large_scores(lead: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((*lead, 20, 8)).astype("f4") * f for f in (12, 3, 1)]
    grad = rng.standard_normal((*lead, 20, 8)).astype("f4")
    for causal, scale in itertools.product((False, True), (3.0, -3.0)):
        made, expected = (f(arrays, grad, causal, scale) for f in (compiled, by_formulas))
        for a, e in zip(made, expected, strict=True):  # scores up to 1000 in single precision
            np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-3 * max(1.0, np.abs(e).max()))


@needs_code
def test_what_is_not_finite() -> None:
    """As in PyTorch: a query that is NaN has NaN for a result, and one that fits no key has 0."""
    q, k, v = (gradlite.ones(1, 4, 64, 16) for _ in range(3))
    q[0, 0, 7, 1], q[0, 1, 0, 3], q[0, 2, 9, 3] = np.nan, -np.inf, np.inf
    with launches.record() as names:
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert names == ["attention"]
    expected = gradlite.ones(1, 4, 64, 16)
    expected[0, 0, 7], expected[0, 1, 0], expected[0, 2, 9] = np.nan, 0.0, np.nan
    np.testing.assert_allclose(y.numpy(), expected.numpy(), rtol=1e-6)


@needs_code
def test_gradients_that_nobody_wants() -> None:
    rng = np.random.default_rng(2)
    arrays = [rng.standard_normal((2, 40, 24)).astype("f4") for _ in range(3)]
    grad = rng.standard_normal((2, 40, 24)).astype("f4")
    every = compiled(arrays, grad, True, 0.2)
    for wanted in itertools.product((0, 1), repeat=3):
        for a, e, w in zip(compiled(arrays, grad, True, 0.2, wanted)[1:], every[1:], wanted):
            assert np.array_equal(a, e) if w else a is None


@needs_code
def test_arrays_that_it_does_not_take() -> None:
    x, strips = np.ones((2, 20, 8), "f4"), np.empty(attention_compiled.room(20, 20, True) * 2, "f4")
    raw = np.zeros(x.nbytes + 1, np.uint8)
    askew = raw[1:].view("f4").reshape(x.shape)
    others = x.astype("f8"), x.astype(">f4"), x[:1], x[None], x[:, :10], x[..., :4], askew, None
    out = np.zeros_like(x)
    turned = np.zeros((2, 8, 20), "f4").swapaxes(1, 2)
    good = (x, x, x, strips, out)

    def refused(arguments: tuple[Any, ...]) -> bool:
        return not attention_compiled.attend(np, *arguments, True, 1.0)

    for other in others:
        rows = other is None or other.shape != (2, 10, 8)
        assert refused((x, other, x, strips, out))
        assert not rows or refused((x, x, other, strips, out))
        assert refused((x, x, x, strips, other))
    assert refused((x, x, x, strips, turned)) and refused((x, x, x, strips[1:], out))
    assert not out.any() and not refused(good) and out.all()
    good = (x, x, x, x, strips, np.zeros_like(x), np.zeros_like(x), np.zeros_like(x))
    for place in (0, 2, 3, 5, 6, 7):
        for other in (*others[:-1], turned if place > 4 else others[0]):
            arguments = [*good[:place], other, *good[place + 1 :]]
            assert not attention_compiled.gradients(np, *arguments, True, 1.0)
    assert attention_compiled.gradients(np, *good, True, 1.0)
    mask = np.ones((2, 20, 20), bool)
    good = (x, x, x, strips, out)
    for wrong in (mask[:1], mask[:, :, 1:], mask[0], mask.astype("f8"), mask.astype("i1"), x):
        assert not attention_compiled.attend(np, *good, True, 1.0, wrong)
    assert attention_compiled.attend(np, *good, True, 1.0, mask)


class Attention(gradlite.nn.Module):
    mask: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = gradlite.nn.Linear(64, 192), gradlite.nn.Linear(64, 64)

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = (part.view(b, t, 4, 16).transpose(1, 2) for part in self.qkv(x).split(64, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, self.mask, is_causal=self.mask is None)
        return self.out(y.transpose(1, 2).reshape(b, t, c))


def gradients(model: Any, x: Any) -> list[Any]:
    model.zero_grad()
    model(x).square().mean().backward()
    return [p.grad.numpy().copy() for p in model.parameters()]


MASKS: dict[str, Any] = {
    "causal": lambda: None,
    "bools": lambda: gradlite.rand(40, 40) < 0.8,
    "padding": lambda: gradlite.arange(40) < gradlite.randint(9, 40, (8, 1, 1, 1)),
    "numbers": lambda: gradlite.randn(8, 1, 40, 40),
}
every_mask = pytest.mark.parametrize("mask", MASKS)


@needs_code
@every_mask
def test_a_replay_of_array_calls_is_eager_to_the_bit(mask: str) -> None:
    gradlite.manual_seed(0)
    model, x = Attention(), gradlite.randn(8, 40, 64)
    model.mask = MASKS[mask]()
    with launches.record() as names:
        expected = gradients(model, x)
    assert names.count("attention") == names.count("attention_gradients") == 1

    def recorded(x: Any) -> Any:
        model.zero_grad()
        model(x).square().mean().backward()
        return [p.grad for p in model.parameters()]

    step = gradlite.capture(recorded, native=False)
    for _ in range(4):
        made = step(x)
    with launches.record() as again:
        made = [g.numpy() for g in step(x)]
    assert again == names
    for a, b in zip(made, expected):
        np.testing.assert_array_equal(a, b)


@needs_code
@every_mask
def test_compiled_plans_call_it(mask: str) -> None:
    gradlite.manual_seed(0)
    model, x = Attention(), gradlite.randn(8, 40, 64)
    model.mask = MASKS[mask]()
    expected = gradients(model, x)

    def recorded(x: Any) -> Any:
        model.zero_grad()
        model(x).square().mean().backward()
        return [p.grad for p in model.parameters()]

    step = gradlite.capture(recorded)
    for _ in range(4):
        step(x)
    with launches.record() as names:
        made = [g.numpy() for g in step(x)]
    calls = step.explain()
    assert names == [] and " attend(" in calls and " gradients(" in calls and "*" not in calls
    for a, b in zip(made, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-7)


@needs_code
def test_second_derivatives_come_from_the_rule() -> None:
    rng = np.random.default_rng(3)
    arrays = [rng.standard_normal((2, 4, 40, 16)) for _ in range(3)]
    found = []
    for dtype in ("float32", "float64"):
        q, k, v = (gradlite.tensor(a.astype(dtype), requires_grad=True) for a in arrays)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        first = gradlite.autograd.grad((y * y).sum(), (q, k, v), create_graph=True)
        second = gradlite.autograd.grad(sum((g * g).sum() for g in first), (q, k, v))
        found.append([t.detach().numpy() for t in (*first, *second)])
    for a, e in zip(*found):
        np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-4 * float(np.abs(e).max()))


@needs_code
def test_calls_from_several_threads_and_on_several() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((40, 64, 32)).astype("f4")
    before, wrong = gradlite.get_num_threads(), list[int]()

    def work(number: int) -> None:
        for _ in range(5):
            rows = 64 - 9 * number  # other sizes, so that shared memory would be seen
            made = compiled([x[:, :rows]] * 3, x[:, :rows], True, 0.2)
            if not all(map(np.array_equal, made, expected[rows])):
                wrong.append(number)

    try:
        gradlite.set_num_threads(1)
        sizes = [64 - 9 * number for number in range(4)]
        expected = {r: compiled([x[:, :r]] * 3, x[:, :r], True, 0.2) for r in sizes}
        for count in (1, 2):
            gradlite.set_num_threads(count)
            threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        gradlite.set_num_threads(before)
    assert wrong == []


def test_the_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_NATIVE", "1")  # whatever these tests run with
    there = libraries.found.__wrapped__("attend", "float32") is not None
    code = "x = gradlite.ones(4, 64, 64);"
    code += "gradlite.nn.functional.scaled_dot_product_attention(x, x, x)"
    for value in ("0", "1"):
        compiled = value == "1" and there
        assert launched(code, value) == str(["attention"] if compiled else [])


@needs_code
def test_gradients_of_parts_of_one_row_need_no_copy() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((8, 40, 192)).astype("f4")
    seen: list[Any] = []
    made = []
    for dtype in ("float32", "float64"):
        row = gradlite.tensor(x.astype(dtype), requires_grad=True)
        parts = (row * 1).split(64, dim=2)
        q, k, v = (part.view(8, 40, 4, 16).transpose(1, 2) for part in parts)
        if dtype == "float32":
            q.register_hook(lambda grad: seen.append(grad.array))
            parts[0].grad_fn.register_prehook(lambda grads: seen.extend(g.array for g in grads))
            parts[0].grad_fn.register_hook(lambda grads, _: seen.append(grads[0].array))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        (y * y).sum().backward()
        made.append(row.grad.numpy())
    whole = seen[-1]
    assert whole.shape == x.shape and whole.flags.c_contiguous
    assert all(np.shares_memory(whole, part) for part in seen[:-1])
    np.testing.assert_allclose(*made, rtol=1e-4, atol=1e-5)


def test_parts_that_are_not_side_by_side_are_joined() -> None:
    x = gradlite.zeros(4, 6, requires_grad=True)
    whole = gradlite.arange(24.0).reshape(4, 6)
    rows, columns = whole.split(2, dim=0), whole.split(3, dim=1)
    for dim, parts, grads in (
        (0, x.split(2, dim=0), (rows[1], rows[0])),
        (0, x.split(2, dim=0), (rows[0], rows[0])),
        (0, x.split(2, dim=0), rows),
        (1, x.split(3, dim=1), columns[::-1]),
        (1, x.split(3, dim=1), (columns[0], columns[1].clone())),
        (1, x.split(3, dim=1), columns),
        (1, x.split(3, dim=1), [c[:, :1].expand(4, 3) for c in columns]),
        (1, x.split(3, dim=1), (columns[0].flip(1), columns[1].flip(1))),
    ):
        (made,) = gradlite.autograd.grad(parts, x, grads)
        np.testing.assert_array_equal(made.numpy(), np.concatenate([g.numpy() for g in grads], dim))
