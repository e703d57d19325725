"""Scaled dot-product attention with masks, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import same

SHAPES = [(4, 5), (1, 5), (4, 1), (2, 1, 1, 5), (1, 3, 4, 5), (3, 4, 5), (2, 3, 4, 5)]


def arrays(*shapes: tuple[int, ...]) -> list[Any]:
    generator = np.random.default_rng(3)
    return [generator.standard_normal(shape) for shape in shapes]


def attend(T: Any, mask: Any = None, **options: Any) -> Any:
    q, k, v, weight = (
        T.tensor(a, requires_grad=True) for a in arrays((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7),
                                                        (2, 3, 4, 7))
    )  # fmt: skip
    leaves = [q, k, v]
    if mask is not None:
        mask = T.tensor(mask)
        options["attn_mask"] = mask
    out = T.nn.functional.scaled_dot_product_attention(q, k, v, **options)
    (out * weight).sum().backward()
    return out.detach(), [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_masks_of_every_shape(shape: tuple[int, ...], kind: str) -> None:
    generator = np.random.default_rng(len(shape))
    mask = generator.random(shape) < 0.7
    if kind == "added":
        mask = np.where(mask, generator.standard_normal(shape), -np.inf)
    same(lambda T: attend(T, mask), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["bool", "added"])
def test_a_query_that_sees_no_key_gives_zeros(kind: str) -> None:
    mask = np.ones((4, 5), bool)
    mask[1] = False
    if kind == "added":
        mask = np.where(mask, 0.0, -np.inf)
    found = same(lambda T: attend(T, mask), rtol=1e-9, atol=1e-12)
    assert (found[0].values[:, :, 1] == 0).all() and np.isfinite(found[1][0].values).all()


def test_causal_with_more_keys_than_queries() -> None:
    same(lambda T: attend(T, is_causal=True, scale=0.3), rtol=1e-9, atol=1e-12)


def test_a_mask_that_requires_grad() -> None:
    mask = arrays((3, 1, 5))[0]

    def program(T: Any) -> Any:
        q, k, v = (T.tensor(a) for a in arrays((2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7)))
        bias = T.tensor(mask, requires_grad=True)
        out = T.nn.functional.scaled_dot_product_attention(q, k, v, bias)
        (out * out).sum().backward()
        return out.detach(), bias.grad

    same(program, rtol=1e-9, atol=1e-12)


def test_a_mask_of_integers_is_refused() -> None:
    mask = np.ones((4, 5), np.int64)
    same(lambda T: attend(T, mask), raises=RuntimeError, match="bool or float")


@pytest.mark.parametrize("causal", [False, True])
def test_queries_and_keys_without_elements(causal: bool) -> None:
    def program(library: Any) -> Any:
        nothing = library.ones(1, 2, 3, 0)
        value = library.arange(12.0).reshape(1, 1, 3, 4).repeat(1, 2, 1, 1)
        attend = library.nn.functional.scaled_dot_product_attention
        return attend(nothing, nothing, value, is_causal=causal)

    same(program)


def refused(q: Any, k: Any, v: Any, mask: Any = None, kind: str = "float32") -> None:
    same(
        lambda T: T.nn.functional.scaled_dot_product_attention(
            *(T.ones(*shape, requires_grad=True) for shape in (q, k, v)),
            attn_mask=None if mask is None else T.ones(*mask, dtype=getattr(T, kind)),
        ),
        raises=RuntimeError,
        message="exact",
    )


@pytest.mark.parametrize("place", range(3))
def test_sizes_that_do_not_fit(place: int) -> None:
    for shape in ((2, 3, 4, 3), (3, 2, 4, 3), (3,), (2, 2, 4, 2), (2, 2, 4, 6), (4, 2)):
        if place == 2 and shape[-1] in (2, 6):
            continue  # values may be of any size
        shapes: list[Any] = [(2, 2, 4, 3), (2, 2, 4, 3), (2, 2, 4, 3)]
        shapes[place] = shape
        refused(*shapes)
        refused(*shapes, (4, 4))


def test_masks_that_do_not_fit() -> None:
    for shape in ((3, 5), (8, 5), (4, 4), (3, 4, 5), (3, 1, 4, 5), (2, 2, 3, 5), (0, 5), (4, 0),
                  (6, 2, 2, 4, 5)):  # fmt: skip
        for kind in ("bool", "float32"):
            refused((2, 2, 4, 3), (2, 2, 5, 3), (2, 2, 5, 3), shape, kind)
