"""gradcheck and gradgradcheck: rules compared with finite differences."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.autograd.backward import grad
from gradlite.autograd.strict import unit_vectors, zeros
from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES
from gradlite.random import Generator
from gradlite.tensor import Tensor, wrap

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

Jacobian = np.ndarray[Any, Any]
Function = Callable[..., Any]
Inputs = Any


class GradcheckError(RuntimeError):
    """A rule and the finite differences disagree."""


def gradcheck(
    func: Function,
    inputs: Inputs,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """Compare the gradients of a function with central differences.

    Every element of every input that requires grad is moved by ``eps`` up and down, and the
    Jacobian found that way must satisfy ``|analytical - numerical| <= atol + rtol *
    |numerical|``. The inputs' values are written over during the check and put back bit for bit.

    Args:
        func: takes the inputs, returns a Tensor or a tuple of Tensors.
        inputs: a Tensor or a tuple; those that require grad should be float64.
        raise_exception: raise when the check fails, rather than return False.
        nondet_tol: by how much two backward passes over the same values may differ.
        check_undefined_grad: also require a zero gradient when the outputs' gradients are zero
            one by one, the others being undefined.
        fast_mode: compare one random projection ``u^T J v`` per Jacobian, not each element.
        check_batched_grad, check_batched_forward_grad, masked: accepted, without effect.

    Returns:
        True when all Jacobians agree.

    Raises:
        GradcheckError: they do not (a RuntimeError).
        ValueError: no input requires grad.
        NotImplementedError: ``check_forward_ad``, as there is no forward mode.

    >>> import gradlite
    >>> x = gradlite.tensor([0.5, 2.0], dtype=gradlite.float64, requires_grad=True)
    >>> gradlite.autograd.gradcheck(lambda x: x.exp() * x, (x,))
    True
    """
    if not (check_backward_ad or check_forward_ad):
        raise AssertionError(
            "Expected at least one of check_forward_ad or check_backward_ad to be True"
        )
    if check_forward_ad:
        raise NotImplementedError(
            "check_forward_ad=True is not supported: gradlite has no forward mode"
        )
    checked = _tupled(inputs)
    check = _Check(func, checked, eps, atol, rtol, nondet_tol, check_grad_dtypes)
    try:
        check.run(fast_mode, check_undefined_grad)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


def gradgradcheck(
    func: Function,
    inputs: Inputs,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """`gradcheck` of the gradients of a function: compares its second derivatives.

    What is checked is the function from the inputs and ``grad_outputs`` to the gradients of the
    inputs. Without ``grad_outputs``, numbers between -1 and 1 are taken, always the same ones.

    >>> import gradlite
    >>> x = gradlite.tensor([0.5, 2.0], dtype=gradlite.float64, requires_grad=True)
    >>> gradlite.autograd.gradgradcheck(lambda x: x**3, (x,))
    True
    """
    if not (check_fwd_over_rev or check_rev_over_rev):
        raise AssertionError(
            "Expected at least one of check_fwd_over_rev or check_rev_over_rev to be True"
        )
    given = _tupled(inputs)
    if grad_outputs is None:
        generator = Generator().manual_seed(0)
        weights = tuple(
            _random_like(output, generator, gen_non_contig_grad_outputs)
            for output in _differentiable(_tupled(func(*given)))
        )
    else:
        weights = _tupled(grad_outputs)
    count = len(weights)

    def gradients(*arguments: Any) -> tuple[Tensor, ...]:
        points, vectors = arguments[: len(arguments) - count], arguments[-count:]
        outputs = _differentiable(_tupled(func(*points)))
        targets = [p for p in points if isinstance(p, Tensor) and p.requires_grad]
        found = grad(outputs, targets, vectors, create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        gradients,
        given + weights,
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_forward_ad=check_fwd_over_rev,
        check_backward_ad=check_rev_over_rev,
        fast_mode=fast_mode,
    )


def _tupled(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _differentiable(outputs: Sequence[Any]) -> tuple[Tensor, ...]:
    return tuple(o for o in outputs if o.requires_grad)


@guard.on_its_device
def _random_like(output: Tensor, generator: Generator, strided: bool) -> Tensor:
    """Numbers between -1 and 1 that require grad, with gaps between them on request."""
    shape = output.array.shape
    if strided and shape:
        numbers = generator.random((*shape[:-1], 2 * shape[-1]), np.float64)[..., ::2]
    else:
        numbers = generator.random(shape, np.float64)
    xp = NAMESPACES[output.array.__class__].xp
    array = xp.asarray(numbers * 2 - 1)
    if array.dtype != output.array.dtype:
        array = array.astype(output.array.dtype)
    return wrap(array).requires_grad_()  # type: ignore[no-any-return]


class _Check:
    """One run of `gradcheck`: a function at a point, with the tolerances."""

    def __init__(
        self,
        func: Function,
        inputs: tuple[Any, ...],
        eps: float,
        atol: float,
        rtol: float,
        nondet_tol: float,
        check_grad_dtypes: bool,
    ) -> None:
        self.func, self.inputs, self.eps = func, inputs, eps
        self.atol, self.rtol, self.nondet_tol = atol, rtol, nondet_tol
        self.check_grad_dtypes = check_grad_dtypes
        self.targets = self._checked_targets()

    def _checked_targets(self) -> list[Tensor]:
        """The inputs to differentiate by."""
        targets = []
        for place, value in enumerate(self.inputs):
            if not isinstance(value, Tensor) or not value.requires_grad:
                continue
            if value.dtype != dtypes.float64:
                warnings.warn(
                    f"Input #{place} requires gradient and is not a double precision floating "
                    "point or complex. This check will likely fail if all the inputs are not of "
                    "double precision floating point or complex. ",
                    UserWarning,
                    stacklevel=4,
                )
            array = value.array
            if array.size and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape)):
                raise RuntimeError(
                    f"The {place}th input has a dimension with stride 0. gradcheck only supports "
                    "inputs that are non-overlapping to be able to compute the numerical gradients "
                    "correctly. You should call .contiguous on the input before passing it to "
                    "gradcheck."
                )
            targets.append(value)
        if not targets:
            raise ValueError(
                "gradcheck expects at least one input tensor to require gradient, but none of "
                "them have requires_grad=True."
            )
        return targets

    def run(self, fast_mode: bool, check_undefined_grad: bool) -> None:
        """Raise GradcheckError unless all Jacobians agree."""
        everything = _tupled(self.func(*self.inputs))
        outputs = _differentiable(everything)
        if not outputs:
            self._check_independent(everything)
            return
        if fast_mode:
            self._compare_projections(outputs)
        else:
            self._compare(outputs)
        self._check_zero(outputs)
        if check_undefined_grad and len(outputs) > 1:
            for output in outputs:
                self._check_zero((output,))

    # --------------------------------------------------------------- finite differences
    def _values(self, independent: bool = False) -> list[np.ndarray[Any, Any]]:
        """The outputs at the current values of the inputs, as arrays of their own."""
        outputs = _tupled(self.func(*self.inputs))
        kept = outputs if independent else _differentiable(outputs)
        return [np.array(o.numpy(force=True)) for o in kept]

    def _difference(
        self, move: Callable[[float], None], independent: bool = False
    ) -> list[np.ndarray[Any, Any]]:
        """How fast the outputs change along a move of the inputs."""
        move(-self.eps)
        before = self._values(independent)
        move(self.eps)
        after = self._values(independent)
        for one, other in zip(before, after):
            if one.shape != other.shape:
                raise AssertionError(
                    "Expected `func` to return outputs with the same shape when inputs are "
                    f"perturbed by {self.eps}, but got: shapes {one.shape} and {other.shape}."
                )
            if one.dtype != other.dtype:
                raise AssertionError(
                    "Expected `func` to return outputs with the same dtype when inputs are "
                    f"perturbed by {self.eps}, but got: dtypes {dtypes.from_numpy_dtype(one.dtype)}"
                    f" and {dtypes.from_numpy_dtype(other.dtype)}."
                )
        return [(b - a) / (2 * self.eps) for a, b in zip(before, after)]

    def _numerical(self, target: Tensor, independent: bool = False) -> list[Jacobian]:
        """One Jacobian per output: rows for the target's elements, columns for the output's."""
        array = target.array
        rows: list[list[np.ndarray[Any, Any]]] = []
        # Written through the array: the version counter is not to see it.
        for index in np.ndindex(array.shape):
            with guard.on(array):
                value = array[index].copy()

            def move(step: float, index: Any = index, value: Any = value) -> None:
                with guard.on(array):
                    array[index] = value + step

            try:
                changes = self._difference(move, independent)
            finally:
                with guard.on(array):
                    array[index] = value
            rows.append([change.reshape(-1) for change in changes])
        if not rows:
            return [np.zeros((0, v.size), v.dtype) for v in self._values(independent)]
        return [np.stack(columns) for columns in zip(*rows)]

    def _check_independent(self, outputs: Sequence[Tensor]) -> None:
        """Outputs that require no grad must not change with the inputs."""
        for target in self.targets:
            for jacobian in self._numerical(target, independent=True):
                if np.any(np.abs(jacobian) > self.atol):
                    raise GradcheckError("Numerical gradient for function expected to be zero")

    # ----------------------------------------------------------------------- the rules
    def _pulled_back(self, output: Tensor, vector: Tensor) -> list[np.ndarray[Any, Any] | None]:
        """The gradients of the targets for one gradient of an output."""
        found = grad(output, self.targets, vector, retain_graph=True, allow_unused=True)
        arrays: list[np.ndarray[Any, Any] | None] = []
        for target, gradient in zip(self.targets, found):
            if gradient is None:
                arrays.append(None)
                continue
            if self.check_grad_dtypes and gradient.dtype != target.dtype:
                raise GradcheckError("Gradient has dtype mismatch")
            if gradient.shape != target.shape:
                raise GradcheckError("Analytical gradient has incorrect size")
            arrays.append(np.array(gradient.numpy(force=True)))
        return arrays

    def _analytical(self, output: Tensor) -> list[Jacobian]:
        """One Jacobian per target, from a backward pass per element of the output."""
        size = output.array.size
        jacobians = [np.zeros((t.numel(), size), t.dtype.numpy) for t in self.targets]
        for column, one_hot in enumerate(unit_vectors(output)):
            for jacobian, gradient in zip(jacobians, self._pulled_back(output, one_hot)):
                if gradient is not None:
                    jacobian[:, column] = gradient.reshape(-1)
        return jacobians

    def _check_repeatable(self, first: Sequence[Any], second: Sequence[Any]) -> None:
        for one, other in zip(first, second):
            if one is None or other is None:
                same = one is other
            else:
                same = np.allclose(one, other, rtol=0.0, atol=self.nondet_tol, equal_nan=True)
            if not same:
                raise GradcheckError(
                    "Backward is not reentrant, i.e., running backward with same input and "
                    "grad_output multiple times gives different values, although analytical "
                    "gradient matches numerical gradient.The tolerance for nondeterminism was "
                    f"{self.nondet_tol}.\n\nNOTE: If your op relies on non-deterministic "
                    "operations, this failure might be expected: call gradcheck/gradgradcheck "
                    "with `nondet_tol=<tol>` as a keyword argument."
                )

    # --------------------------------------------------------------------- comparisons
    def _close(self, analytical: Any, numerical: Any, atol: float | None = None) -> bool:
        atol = self.atol if atol is None else atol
        return bool(np.allclose(analytical, numerical, rtol=self.rtol, atol=atol))

    def _compare(self, outputs: Sequence[Tensor]) -> None:
        """Each element of each Jacobian."""
        numerical = [self._numerical(target) for target in self.targets]
        for place, output in enumerate(outputs):
            analytical = self._analytical(output)
            self._check_repeatable(analytical, self._analytical(output))
            for nr, jacobian in enumerate(analytical):
                if not self._close(jacobian, numerical[nr][place]):
                    raise GradcheckError(_mismatch(place, nr, numerical[nr][place], jacobian))

    def _compare_projections(self, outputs: Sequence[Tensor]) -> None:
        """One number ``u^T J v`` per Jacobian, for random unit vectors ``u`` and ``v``."""
        generator = Generator().manual_seed(0)
        ups = [_unit(t.array.shape, generator) for t in self.targets]
        vectors = [_unit(o.array.shape, generator) for o in outputs]
        analytical = []
        for output, v in zip(outputs, vectors):
            vector = _as_array(v.astype(output.array.dtype), output)
            found = self._pulled_back(output, wrap(vector))
            self._check_repeatable(found, self._pulled_back(output, wrap(vector)))
            analytical.append(found)
        for nr, (target, u) in enumerate(zip(self.targets, ups)):
            array = target.array
            direction = _as_array(u, target)
            with guard.on(array):
                kept = array.copy()

            def move(
                size: float, array: Any = array, kept: Any = kept, direction: Any = direction
            ) -> None:
                with guard.on(array):
                    array[...] = kept + size * direction

            try:
                changes = self._difference(move)
            finally:
                with guard.on(array):
                    array[...] = kept
            for place, (change, v) in enumerate(zip(changes, vectors)):
                gradient = analytical[place][nr]
                a = 0.0 if gradient is None else float((gradient * u).sum())
                n = float((change * v).sum())
                # The tolerance of one element, summed with the weights of the projection.
                atol = self.atol * float(np.abs(u).sum() * np.abs(v).sum())
                if not self._close(a, n, atol):
                    raise GradcheckError(self._slow_story(outputs, place, nr, a, n))

    def _slow_story(
        self, outputs: Sequence[Tensor], place: int, nr: int, a: float, n: float
    ) -> str:
        """What to say after a projection disagreed: the Jacobians themselves."""
        numerical = self._numerical(self.targets[nr])[place]
        analytical = self._analytical(outputs[place])[nr]
        difference = np.abs(numerical - analytical).max(initial=0.0)
        story = (
            f"{_mismatch(place, nr, n, a)}\nThe above quantities relating the numerical and "
            "analytical jacobians are computed \nin fast mode. Below, we recompute numerical and "
            f"analytical jacobians in slow mode:\n\nNumerical:\n {_printed(numerical)}\n"
            f"Analytical:\n{_printed(analytical)}\n\nThe max per-element difference (slow mode) "
            f"is: {difference}.\n"
        )
        if self._close(analytical, numerical):
            story += (
                "\nThe elements agree, though their projection does not: the tolerances of slow "
                "mode accept it."
            )
        return story

    def _check_zero(self, outputs: Sequence[Tensor]) -> None:
        """Zero gradients of outputs must give zero gradients of inputs."""
        starts = [zeros(o) for o in outputs]
        found = grad(outputs, self.targets, starts, retain_graph=True, allow_unused=True)
        for gradient, target in zip(found, self.targets):
            if gradient is None:
                continue
            with guard.on(gradient):
                if not bool((gradient.array == 0).all()):
                    raise GradcheckError("backward not multiplied by grad_output")
            if gradient.dtype != target.dtype:
                raise GradcheckError("grad is incorrect type")
            if gradient.device != target.device:
                raise GradcheckError("grad is incorrect device")
            if gradient.shape != target.shape:
                raise GradcheckError("grad is incorrect size")


@guard.on_its_device
def _as_array(values: np.ndarray[Any, Any], like: Tensor) -> Any:
    """Values as an array of the library and the device of a Tensor."""
    return NAMESPACES[like.array.__class__].xp.asarray(values)


def _unit(shape: tuple[int, ...], generator: Generator) -> np.ndarray[Any, Any]:
    """A random vector of length 1."""
    vector = generator.normal(shape, np.float64)
    length = np.sqrt((vector * vector).sum())
    return vector / length if length else vector


def _printed(value: Any) -> str:
    return repr(wrap(np.asarray(value))) if isinstance(value, np.ndarray) else repr(value)


def _mismatch(place: int, nr: int, numerical: Any, analytical: Any) -> str:
    return (
        f"Jacobian mismatch for output {place} with respect to input {nr},\n"
        f"numerical:{_printed(numerical)}\nanalytical:{_printed(analytical)}\n"
    )
