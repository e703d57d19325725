"""L-BFGS: a quasi-Newton method with limited memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends.cpu import loud, quiet
from gradlite.device import array_module, device_of
from gradlite.grad_mode import enable_grad
from gradlite.ops import guard
from gradlite.optim.checks import learning_rate
from gradlite.optim.elementwise import number
from gradlite.optim.line_search import Point, strong_wolfe
from gradlite.optim.optimizer import Optimizer, Params
from gradlite.tensor import Tensor, unwrap, wrap


class LBFGS(Optimizer):
    """Limited-memory BFGS, for smooth functions without noise.

    A step makes up to ``max_iter`` iterations and calls the closure, which must clear the
    gradients, compute the loss, call ``backward`` and return the loss, for each of them.

    Args:
        params: parameters; groups with options of their own are not supported.
        lr: learning rate.
        max_iter: iterations per step.
        max_eval: calls of the closure per step; ``max_iter * 5 // 4`` if None.
        tolerance_grad: end when no element of the gradient is larger.
        tolerance_change: end when value or parameters change less.
        history_size: how many steps to remember; each costs twice the parameters' memory.
        line_search_fn: None, or ``"strong_wolfe"``.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd edition, algorithm 7.4.

    >>> import gradlite
    >>> x = gradlite.tensor([-1.0, 2.0], requires_grad=True)
    >>> optimizer = gradlite.optim.LBFGS([x], line_search_fn="strong_wolfe")
    >>> def closure():
    ...     optimizer.zero_grad()
    ...     loss = (1 - x[0]) ** 2 + 100 * (x[1] - x[0] ** 2) ** 2
    ...     loss.backward()
    ...     return loss
    >>> for _ in range(5):
    ...     loss = optimizer.step(closure)
    >>> x
    tensor([1.0000, 1.0000], requires_grad=True)
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1,
        max_iter: int = 20,
        max_eval: int | None = None,
        tolerance_grad: float = 1e-7,
        tolerance_change: float = 1e-9,
        history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:
        learning_rate(lr)
        defaults = {
            "lr": lr,
            "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad,
            "tolerance_change": tolerance_change,
            "history_size": history_size,
            "line_search_fn": line_search_fn,
        }
        super().__init__(params, defaults)
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    @property
    def _params(self) -> list[Tensor]:
        return self.param_groups[0]["params"]  # type: ignore[no-any-return]

    def _flat_grad(self, xp: Any) -> Any:
        return xp.concatenate(
            [
                (xp.zeros_like(p.array) if p._grad is None else p._grad.array).ravel()
                for p in self._params
            ]
        )

    def _flat(self, xp: Any) -> Any:
        return xp.concatenate([p.array.ravel() for p in self._params])

    def _write(self, flat: Any) -> None:
        start = 0
        for p in self._params:
            stop = start + p.array.size
            p.array[...] = flat[start:stop].reshape(p.array.shape)
            p._bump()
            start = stop

    def step(self, closure: Any) -> Any:  # type: ignore[override]
        """Make up to ``max_iter`` iterations.

        Args:
            closure: clears the gradients, computes the loss, calls backward, returns the loss.

        Returns:
            The loss before the step. When the closure raises, the parameters and the state are
            what they were before.
        """
        closure = guard.on_the_current_device(enable_grad()(closure))
        loss = closure()
        xp = array_module(device_of(self._params[0].array))
        with guard.on(self._params):
            flat = self._flat(xp)
            token = quiet()
            try:
                self._iterate(closure, xp, flat, number(loss))
            except BaseException:
                self._write(flat)
                raise
            finally:
                loud(token)
        return loss

    def _iterate(self, closure: Any, xp: Any, x: Any, loss: float) -> None:
        group = self.param_groups[0]
        lr = number(group["lr"])
        max_iter, max_eval = group["max_iter"], group["max_eval"]
        tolerance_grad, tolerance_change = group["tolerance_grad"], group["tolerance_change"]
        history_size, search = group["history_size"], group["line_search_fn"]
        # All state is attached to the first parameter, so that loading casts it.
        kept = self.state[self._params[0]]
        state: dict[str, Any] = {
            key: [unwrap(v) for v in value] if isinstance(value, list) else unwrap(value)
            for key, value in kept.items()
        }
        func_evals, total_iter = state.get("func_evals", 0) + 1, state.get("n_iter", 0)
        grad = self._flat_grad(xp)
        kept.update(func_evals=func_evals, n_iter=total_iter)
        if xp.absolute(grad).max() <= tolerance_grad:
            return
        names = ("d", "t", "old_dirs", "old_stps", "ro", "H_diag", "prev_flat_grad", "al")
        before: list[Any] = [state.get(name) for name in names]
        direction, t, ys, steps, ro, diagonal, prev_grad, alphas = before
        prev_loss = state.get("prev_loss")

        def evaluate(t: Any) -> tuple[float, Any, Any]:
            self._write(x + t * direction)
            value = number(closure())
            new = self._flat_grad(xp)
            return value, new, new.dot(direction)

        evaluations, n_iter = 1, 0
        while n_iter < max_iter:
            n_iter += 1
            total_iter += 1
            if total_iter == 1:
                direction = -grad
                ys, steps, ro, diagonal = [], [], [], 1
            else:
                y, s = grad - prev_grad, direction * t
                curvature = y.dot(s)
                if curvature > 1e-10:
                    if len(ys) == history_size:
                        for history in (ys, steps, ro):
                            history.pop(0)
                    ys.append(y)
                    steps.append(s)
                    ro.append(1.0 / curvature)
                    diagonal = curvature / y.dot(y)
                if alphas is None:
                    alphas = [None] * history_size
                q = -grad
                for i in reversed(range(len(ys))):
                    alphas[i] = steps[i].dot(q) * ro[i]
                    q -= alphas[i] * ys[i]
                direction = q * diagonal
                for i in range(len(ys)):
                    beta = ys[i].dot(direction) * ro[i]
                    direction += (alphas[i] - beta) * steps[i]
            prev_grad, prev_loss = grad.copy(), loss
            t = min(1.0, 1.0 / xp.absolute(grad).sum()) * lr if total_iter == 1 else lr
            slope = grad.dot(direction)
            if slope > -tolerance_change:
                break
            made = 0
            if search is not None:
                if search != "strong_wolfe":
                    raise RuntimeError("only 'strong_wolfe' is supported")
                loss, grad, t, made = strong_wolfe(
                    evaluate,
                    t,
                    Point(0, loss, grad, slope),
                    xp.absolute(direction).max(),
                    max_iterations=max_eval - evaluations,
                )
                x = x + t * direction
                self._write(x)
            else:
                x = self._flat(xp) + t * direction  # a closure may itself have changed them
                self._write(x)
                if n_iter != max_iter:
                    loss = number(closure())
                    grad = self._flat_grad(xp)
                    made = 1
            evaluations += made
            func_evals += made
            if (
                n_iter == max_iter
                or evaluations >= max_eval
                or xp.absolute(grad).max() <= tolerance_grad
                or xp.absolute(direction * t).max() <= tolerance_change
                or abs(loss - prev_loss) < tolerance_change
            ):
                break
        new_state = {} if alphas is None else {"al": alphas}
        new_state |= {
            "d": direction,
            "t": t,
            "old_dirs": ys,
            "old_stps": steps,
            "ro": ro,
            "H_diag": diagonal,
            "prev_flat_grad": prev_grad,
            "prev_loss": prev_loss,
        }
        kept.update(func_evals=func_evals, n_iter=total_iter)
        kept.update({key: _wrapped(value) for key, value in new_state.items()})


def _wrapped(value: Any) -> Any:
    if isinstance(value, list):
        return [_wrapped(v) for v in value]
    if isinstance(value, np.generic):  # a product of NumPy's vectors, which may also be a float
        value = np.asarray(value)
    return value if value is None or isinstance(value, (int, float)) else wrap(value)
