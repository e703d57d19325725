"""What grad_fn._saved_self and its kin show, and hooks set on it, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.library import library
from tests.oracle import outcome_of, same

OPS: dict[str, tuple[Any, str]] = {
    "mul": (lambda T, a, b: a * b, "self other"),
    "div": (lambda T, a, b: a / b, "self other"),
    "square": (lambda T, a, b: a**2, "self"),
    "pow": (lambda T, a, b: a**b, "self exponent result"),
    "exp": (lambda T, a, b: a.exp(), "result"),
    "sin": (lambda T, a, b: a.sin(), "self"),
    "tanh": (lambda T, a, b: a.tanh(), "result"),
    "relu": (lambda T, a, b: a.relu(), "result"),
    "softmax": (lambda T, a, b: a.softmax(0), "result"),
    "logsumexp": (lambda T, a, b: a.logsumexp(0), "self result"),
    "mm": (lambda T, a, b: a @ b, "self mat2"),
    "mv": (lambda T, a, b: a @ b[0], "self vec"),
    "addmm": (lambda T, a, b: T.addmm(a, a, b), "mat1 mat2"),
    "addcmul": (lambda T, a, b: T.addcmul(a, a, b), "tensor1 tensor2"),
    "where": (lambda T, a, b: T.where(a > 1, a, b), "condition"),
    "gather": (lambda T, a, b: a.gather(0, T.tensor([[0, 1]])), "index"),
    "sort": (lambda T, a, b: a.sort(0)[0], "indices"),
    "masked_fill": (lambda T, a, b: a.masked_fill(b > 1, 0.0), "mask"),
    "mse_loss": (lambda T, a, b: T.nn.functional.mse_loss(a, b), "self target"),
    "maximum": (lambda T, a, b: T.maximum(a, b), "self other"),
}


def matrices(T: Any) -> Any:
    a = T.tensor([[0.5, 1.5], [2.5, 0.25]], requires_grad=True)
    return a, T.tensor([[1.0, 2.0], [0.5, 3.0]], requires_grad=True)


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("of", ["leaves", "results"])
def test_saved_values_under_pytorchs_names(op, of):
    run, names = OPS[op]

    def program(T):
        a, b = matrices(T)
        if of == "results":
            a, b = a.clone(), b.clone()
        y = run(T, a, b)
        found = [getattr(y.grad_fn, f"_saved_{name}") for name in names.split()]
        listed = [f"_saved_{name}" in dir(y.grad_fn) for name in names.split()]
        same_node = [
            v.grad_fn is None or v.grad_fn in (y.grad_fn, a.grad_fn, b.grad_fn) for v in found
        ]
        return found, listed, [v is a or v is b for v in found] if of == "leaves" else same_node

    same(program)


def test_values_that_no_gradient_reads_are_none():
    def program(T):
        a, b = matrices(T)
        y = a * b.detach()
        fn = y.grad_fn
        refused = outcome_of(lambda: fn._raw_saved_self.register_hooks(lambda x: x, lambda x: x))
        return fn._saved_self, fn._saved_other, refused

    same(program)


@pytest.mark.parametrize("attribute", ["_saved_other", "_raw_saved_self", "_saved_nothing"])
def test_names_that_an_op_does_not_have(attribute):
    def program(T):
        y = matrices(T)[0].exp()
        listed = attribute in dir(y.grad_fn)
        return listed, outcome_of(lambda: getattr(y.grad_fn, attribute))

    same(program, message="type" if attribute == "_saved_nothing" else "prefix")


def test_a_context_may_have_attributes_of_these_names():
    def program(T):
        class Doubled(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx._saved_self = 2.0
                return x * 2

            @staticmethod
            def backward(ctx, grad):
                return grad * ctx._saved_self

        a, _ = matrices(T)
        y = Doubled.apply(a)
        y.sum().backward()
        return a.grad, outcome_of(lambda: y.grad_fn._saved_other)

    same(program)


def test_freed_and_changed_values_are_not_shown():
    def program(T):
        a, b = matrices(T)
        constant = b.detach()
        y = a * constant
        constant.add_(1)
        changed = outcome_of(lambda: y.grad_fn._saved_other)
        z = a.exp()
        z.sum().backward()
        return changed, outcome_of(lambda: z.grad_fn._saved_result)

    same(program)


def test_a_shown_value_has_the_version_of_the_value_itself():
    def program(T):
        y = matrices(T)[0].exp()
        shown = y.grad_fn._saved_result
        with T.no_grad():
            y += 1
        return shown._version, shown.detach(), y.detach()

    same(program)


@pytest.mark.parametrize("name", ["self", "other"])
@pytest.mark.parametrize("create_graph", [False, True])
def test_hooks_set_on_a_saved_value(name, create_graph):
    def program(T):
        a, b = matrices(T)
        y = a * b
        seen: list[str] = []

        def pack(tensor):
            seen.append("pack")
            return tensor * 2

        def unpack(tensor):
            seen.append("unpack")
            return tensor * 3

        saved = getattr(y.grad_fn, f"_raw_saved_{name}")
        saved.register_hooks(pack, unpack)
        shown = getattr(y.grad_fn, f"_saved_{name}")
        twice = outcome_of(lambda: saved.register_hooks(pack, unpack))
        grads = T.autograd.grad(y.sum(), [a, b], create_graph=create_graph)
        return shown.detach(), seen, twice, [g.detach() for g in grads]

    same(program)


def test_hooks_set_on_what_a_function_saved():
    def program(T):
        class Product(T.autograd.Function):
            @staticmethod
            def forward(ctx, a, b):
                ctx.save_for_backward(a, b, None)
                return a * b

            @staticmethod
            def backward(ctx, grad):
                a, b, _ = ctx.saved_tensors
                return grad * b, grad * a

        a, b = matrices(T)
        y = Product.apply(a, b)
        saved = y.grad_fn._raw_saved_tensors
        saved[1].register_hooks(lambda t: t * 2, lambda t: t)
        refused = [
            outcome_of(lambda place=place: saved[place].register_hooks(lambda t: t, lambda t: t))
            for place in (1, 2)
        ]
        y.sum().backward()
        return len(saved), a.grad, b.grad, refused, outcome_of(lambda: y.grad_fn._raw_saved_tensors)

    same(program)


@pytest.mark.parametrize("hooks", [(1, 1), (lambda t: t.mul_(2), lambda t: t)])
def test_hooks_that_are_refused(hooks):
    def program(T):
        y = matrices(T)[0].exp()
        return outcome_of(lambda: y.grad_fn._raw_saved_result.register_hooks(*hooks))

    same(program)


def test_an_unpack_hook_must_give_a_tensor():
    def program(T):
        y = matrices(T)[0].exp()
        y.grad_fn._raw_saved_result.register_hooks(lambda t: t, lambda t: 1)
        return outcome_of(lambda: y.grad_fn._saved_result)

    same(program)


def test_looking_at_a_checkpoints_value_computes_it():
    def program(T):
        count: list[int] = []

        def f(x):
            count.append(len(count))
            return (x * x).exp()

        a, _ = matrices(T)
        y = T.utils.checkpoint.checkpoint(f, a, use_reentrant=False)
        shown = [y.grad_fn._saved_result.detach() for _ in range(2)]
        looked = len(count)
        y.sum().backward()
        return shown, looked, len(count), a.grad, outcome_of(lambda: y.grad_fn._saved_result)

    same(program)


def test_saved_tensors_are_not_made_by_users():
    def program(T):
        return outcome_of(T.autograd.SavedTensor)

    same(program)
    assert isinstance(
        matrices(library)[0].exp().grad_fn._raw_saved_result, library.autograd.SavedTensor
    )
