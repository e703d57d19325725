"""Frozen parameters get no gradient and cost no work; eval and train never touch grad mode."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- freezing


def network(T: Any) -> Any:
    T.manual_seed(0)
    layers = [T.nn.Linear(3, 4), T.nn.Tanh(), T.nn.Linear(4, 4), T.nn.Tanh(), T.nn.Linear(4, 2)]
    model = T.nn.Sequential(*layers)
    with T.no_grad():
        for number, p in enumerate(model.parameters()):
            p.copy_(T.linspace(-1, 1, p.numel()).reshape(p.shape) * (number + 1) / 6)
    return model


def test_a_frozen_parameter_gets_no_gradient():
    def program(T):
        model = network(T)
        model[2].weight.requires_grad = False
        model(T.ones(5, 3)).sum().backward()
        return {name: p.grad for name, p in model.named_parameters()}

    same(program)


def test_a_frozen_module_returns_itself_and_has_no_gradient():
    def program(T):
        model = network(T)
        result = model[0].requires_grad_(False)
        out = model(T.ones(5, 3))
        out.sum().backward()
        return (
            result is model[0],
            out,
            [p.requires_grad for p in model.parameters()],
            [p.grad for p in model.parameters()],
        )

    same(program)


def test_no_backward_work_below_the_first_trainable_layer():
    def program(T):
        calls = []

        class Watch(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, number):
                ctx.number = number
                return x.clone()

            @staticmethod
            def backward(ctx, g):
                calls.append(ctx.number)
                return g, None

        model = network(T)
        model[0].requires_grad_(False)
        x = T.ones(5, 3)
        for number, layer in enumerate(model):
            x = Watch.apply(layer(x), number)
        x.sum().backward()
        return calls, x

    same(program)


def test_no_gradient_is_computed_for_a_frozen_weight():
    def program(T):
        wanted = []

        class Product(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, w):
                ctx.save_for_backward(x, w)
                return x * w

            @staticmethod
            def backward(ctx, g):
                wanted.append(ctx.needs_input_grad)
                x, w = ctx.saved_tensors
                return g * w, g * x

        x, w = leaf(T), T.ones(3)
        Product.apply(x, w).sum().backward()
        Product.apply(w, x).sum().backward()
        return wanted, x.grad, w.grad

    same(program)


def test_freezing_between_steps():
    def program(T):
        model = network(T)
        x = T.ones(5, 3)
        model(x).sum().backward()
        model[0].requires_grad_(False)
        for p in model.parameters():
            p.grad = None
        model(x).sum().backward()
        frozen = [p.grad is None for p in model.parameters()]
        model[0].requires_grad_(True)
        model(x).sum().backward()
        return frozen, [p.grad for p in model.parameters()]

    same(program)


def test_an_optimizer_leaves_frozen_parameters_alone():
    def program(T):
        model = network(T)
        optimizer = T.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

        def step():
            optimizer.zero_grad()
            model(T.ones(5, 3)).sum().backward()
            optimizer.step()

        step()
        model[0].requires_grad_(False)
        kept = [p.clone() for p in model[0].parameters()]
        step()
        step()
        return [bool((a == b).all()) for a, b in zip(kept, model[0].parameters())], list(
            model.parameters()
        )

    same(program, rtol=1e-5, atol=1e-6)


def test_an_optimizer_takes_a_subset_of_parameters():
    def program(T):
        model = network(T)
        optimizer = T.optim.SGD(model[4].parameters(), lr=0.1)
        model(T.ones(5, 3)).sum().backward()
        optimizer.step()
        return list(model.parameters())

    same(program, rtol=1e-5, atol=1e-6)


def test_an_optimizer_refuses_non_leaves():
    same(
        lambda T: T.optim.SGD([leaf(T) * 2], lr=0.1),
        raises=ValueError,
        match="can't optimize a non-leaf Tensor",
        message="exact",
    )


# ---------------------------------------------------------------- eval and train


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_eval_and_train_never_touch_grad_mode(training, grad):
    def program(T):
        model = T.nn.Sequential(
            T.nn.Linear(3, 3), T.nn.BatchNorm1d(3), T.nn.Dropout(0.0), T.nn.Linear(3, 1)
        )
        with T.no_grad():
            for p in model.parameters():
                p.copy_(T.linspace(-1, 1, p.numel()).reshape(p.shape))
        model.train(training)
        with T.set_grad_enabled(grad):
            mode = T.is_grad_enabled()
            out = model(T.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, -1.0], [2.0, 2.0, 1.0]]))
        return (
            mode,
            model.training,
            model[2].training,
            out,
            model[1].running_mean,
            model[1].running_var,
        )

    same(program, rtol=1e-5, atol=1e-6)


def test_dropout_drops_in_training_only():
    def program(T):
        layer = T.nn.Dropout(0.5)
        x = T.ones(1000, requires_grad=True)
        training = layer(x)
        layer.eval()
        evaluation = layer(x)
        return (
            sorted(set(training.tolist())),
            training.requires_grad,
            evaluation is x or bool((evaluation == x).all()),
        )

    same(program)
