"""Class numbers as targets: which are left out, and which are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from tests.oracle import same


@pytest.mark.parametrize("classes", [3, 200])
def test_a_negative_class_is_refused(classes: int) -> None:
    target = gradlite.tensor([0, -1])
    for function in (F.cross_entropy, F.nll_loss):
        with pytest.raises(IndexError, match=r"Target -1 is out of bounds\."):
            function(gradlite.zeros(2, classes), target)


@pytest.mark.parametrize("dtype", ["int64", "uint8"])
def test_a_class_too_high_is_refused(dtype: str) -> None:
    target = gradlite.tensor(np.array([0, 3], dtype))
    for function in (F.cross_entropy, F.nll_loss):
        with pytest.raises(IndexError, match=r"Target 3 is out of bounds\."):
            function(gradlite.zeros(2, 3), target)


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("dtype", ["int32", "int16", "int8", "bool", "float32"])
def test_class_numbers_of_another_dtype_are_refused(loss: str, dtype: str) -> None:
    def program(lib: Any) -> Any:
        target = lib.zeros(2, dtype=getattr(lib, dtype))
        return getattr(lib.nn.functional, loss)(lib.zeros(2, 3), target)

    same(program, raises=RuntimeError, match="Long or Byte", message="exact")


REFUSED: dict[str, Any] = {
    "weights of too few classes": lambda T, f: f(T.zeros(2, 3), T.zeros(2).long(), T.ones(2)),
    "weights of two dimensions": lambda T, f: f(T.zeros(2, 3), T.zeros(2).long(), T.ones(3, 1)),
    "half weights": lambda T, f: f(T.zeros(2, 3), T.zeros(2).long(), T.ones(3).half()),
    "double weights": lambda T, f: f(T.zeros(2, 3), T.zeros(2).long(), T.ones(3).double()),
    "weights of integers": lambda T, f: f(T.zeros(2, 3), T.zeros(2).long(), T.ones(3).long()),
    "more than one class": lambda T, f: f(T.zeros(2, 3), T.zeros(2, 1).long()),
    "another batch": lambda T, f: f(T.zeros(2, 3), T.zeros(3).long()),
    "other pixels": lambda T, f: f(T.zeros(2, 3, 4), T.zeros(2, 5).long()),
}


@pytest.mark.parametrize("loss", ["cross_entropy", "nll_loss"])
@pytest.mark.parametrize("what", REFUSED)
def test_targets_and_weights_that_do_not_fit_are_refused(loss: str, what: str) -> None:
    same(
        lambda lib: REFUSED[what](lib, getattr(lib.nn.functional, loss)),
        raises=(RuntimeError, ValueError),
        message="exact",
    )


OF_PROBABILITIES: dict[str, Any] = {
    "integers": lambda T, f: f(T.zeros(2, 3), T.zeros(2, 3).long()),
    "weights of too few classes": lambda T, f: f(T.zeros(2, 3), T.ones(2, 3), T.ones(2)),
    "one weight": lambda T, f: f(T.zeros(2, 3), T.ones(2, 3), T.ones(1)),
    "ignore_index": lambda T, f: f(T.zeros(2, 3), T.ones(2, 3), ignore_index=1),
    "logits of integers": lambda T, f: f(T.zeros(2, 3).long(), T.zeros(2).long()),
}


@pytest.mark.parametrize("what", OF_PROBABILITIES)
def test_probabilities_that_do_not_fit_are_refused(what: str) -> None:
    same(
        lambda lib: OF_PROBABILITIES[what](lib, lib.nn.functional.cross_entropy),
        raises=(RuntimeError, NotImplementedError),
        message="exact",
    )


def test_one_sample_without_a_batch_takes_a_target_of_one_element() -> None:
    same(lambda lib: lib.nn.functional.cross_entropy(lib.arange(3.0), lib.tensor([1])))


@pytest.mark.parametrize("targets", [[0, 2, 1], [0, 2, -7], [2, 2, 2]])
@pytest.mark.parametrize("ignore_index", [-7, 2, 3, 5])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_is_ignored(targets: list[int], ignore_index: int, reduction: str) -> None:
    """A class, a number that is none, and one that no row has: as in PyTorch."""
    torch = pytest.importorskip("torch")
    if -7 in targets and ignore_index != -7:
        targets = [0, 2, 0]
    x = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    results = []
    for T in (gradlite, torch):
        logits = T.tensor(x, requires_grad=True)
        loss = T.nn.functional.cross_entropy(
            logits, T.tensor(targets), ignore_index=ignore_index, reduction=reduction
        )
        loss.backward()
        results.append((loss.detach().numpy(), logits.grad.numpy()))
    for ours, theirs in zip(*results):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(3, 4), (512, 65)])  # rules, and compiled kernels
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, None])  # None: nll_loss
def test_a_mean_of_nothing_has_no_gradient(
    shape: tuple[int, int], weighted: bool, smoothing: float | None
) -> None:
    """All targets are ignored: the loss is NaN, as in PyTorch, and training is not spoilt."""
    torch = pytest.importorskip("torch")
    for T in (gradlite, torch):
        x = T.ones(*shape, requires_grad=True)
        target, weight = T.full(shape[:1], -100), T.ones(shape[1]) if weighted else None
        losses = T.nn.functional
        if smoothing is None:
            loss = losses.nll_loss(x, target, weight)
        else:
            loss = losses.cross_entropy(x, target, weight, label_smoothing=smoothing)
        loss.backward()
        assert np.isnan(loss.item())
        np.testing.assert_array_equal(x.grad.numpy(), np.zeros(shape, np.float32))


OLDER_REDUCTIONS: list[dict[str, bool]] = [
    {"size_average": False},
    {"size_average": True},
    {"reduce": False},
    {"reduce": True},
    {"size_average": False, "reduce": True},
    {"size_average": False, "reduce": False},
]
WITH_OLDER_REDUCTIONS: dict[str, Any] = {
    "l1_loss": lambda T, x: (x, T.zeros(3, 2)),
    "mse_loss": lambda T, x: (x, T.zeros(3, 2)),
    "smooth_l1_loss": lambda T, x: (x, T.zeros(3, 2)),
    "binary_cross_entropy": lambda T, x: (x, T.ones(3, 2)),
    "binary_cross_entropy_with_logits": lambda T, x: (x, T.ones(3, 2)),
    "kl_div": lambda T, x: (x.log(), T.full((3, 2), 0.5)),
    "nll_loss": lambda T, x: (x.log(), T.tensor([0, 1, 1])),
    "cross_entropy": lambda T, x: (x, T.tensor([0, 1, 1])),
    "soft_margin_loss": lambda T, x: (x, T.ones(3, 2)),
    "hinge_embedding_loss": lambda T, x: (x, T.ones(3, 2)),
    "multi_margin_loss": lambda T, x: (x, T.tensor([0, 1, 1])),
    "multilabel_soft_margin_loss": lambda T, x: (x, T.ones(3, 2)),
    "poisson_nll_loss": lambda T, x: (x, T.ones(3, 2)),
}


@pytest.mark.parametrize("name", WITH_OLDER_REDUCTIONS)
def test_older_reductions(name: str) -> None:
    def program(T: Any) -> Any:
        found = []
        for older in OLDER_REDUCTIONS:
            x = T.tensor([[0.1, 0.6], [0.3, 0.9], [0.5, 0.2]], requires_grad=True)
            loss = getattr(T.nn.functional, name)(*WITH_OLDER_REDUCTIONS[name](T, x), **older)
            loss.sum().backward()
            found.append((loss.detach(), x.grad))
        return found

    same(program, warns="size_average and reduce args will be deprecated", message="exact")


WEIGHTS_THAT_DO_NOT_FIT: dict[str, Any] = {
    "nll_loss": lambda F, L: F.nll_loss(L.ones(4, 3), _classes(L), L.ones(4)),
    "nll_loss of two dimensions": lambda F, L: F.nll_loss(L.ones(4, 3), _classes(L), L.ones(1, 3)),
    "cross_entropy": lambda F, L: F.cross_entropy(L.ones(4, 3), _classes(L), L.ones(4)),
    "of images": lambda F, L: F.cross_entropy(L.ones(4, 3, 1), _classes(L)[:, None], L.ones(2)),
    "smoothed": lambda F, L: F.cross_entropy(
        L.ones(4, 3), _classes(L), L.ones(5), label_smoothing=0.1
    ),
    "probabilities": lambda F, L: F.cross_entropy(L.ones(4, 3), L.ones(4, 3), L.ones(4)),
    "probabilities, broadcast": lambda F, L: F.cross_entropy(
        L.ones(4, 3), L.ones(4, 3), L.ones(1, 3)
    ),
}


def _classes(library: Any) -> Any:
    return library.tensor([0, 2, 1, 1])


@pytest.mark.parametrize("what", WEIGHTS_THAT_DO_NOT_FIT)
def test_weights_that_are_not_one_for_each_class(what: str) -> None:
    same(
        lambda library: WEIGHTS_THAT_DO_NOT_FIT[what](library.nn.functional, library),
        raises=RuntimeError,
        message="exact",
    )


@pytest.mark.parametrize("function", ["nll_loss", "cross_entropy"])
@pytest.mark.parametrize(
    ("logits", "target"),
    [((3,), (2,)), ((4, 3), (4, 2)), ((4, 3), (4, 1)), ((4, 3), (4, 3)), ((2, 3), ()), ((), ())],
)
def test_targets_of_other_shapes(function: str, logits: Any, target: Any) -> None:
    same(
        lambda library: getattr(library.nn.functional, function)(
            library.ones(logits), library.zeros(target, dtype=library.int64)
        ),
        raises=(RuntimeError, ValueError, IndexError),
        message="exact",
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_one_class_in_a_list_for_one_row(reduction: str) -> None:
    same(
        lambda library: library.nn.functional.nll_loss(
            library.tensor([1.0, 2.0, 4.0]), library.tensor([2]), reduction=reduction
        )
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_no_classes_at_all(smoothing: float) -> None:
    same(
        lambda library: library.nn.functional.cross_entropy(
            library.ones(2, 0), library.ones(2, 0), label_smoothing=smoothing
        )
    )


@pytest.mark.parametrize("function", ["mse_loss", "l1_loss", "huber_loss"])
def test_weights_of_another_shape_than_the_input(function: str) -> None:
    same(
        lambda library: getattr(library.nn.functional, function)(
            library.ones(2), library.zeros(2), weight=library.ones(2, 2)
        ),
        raises=ValueError,
        message="exact",
    )
