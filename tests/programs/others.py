"""Programs with unusual graphs: several passes, derivatives of derivatives, games, graphs."""

from __future__ import annotations

import math
from typing import Any

from tests.programs import Program, filled, integers, minimising, normal, parameters, program


@program
def q_learning(torch: Any) -> Program:
    """DQN with a second network that follows the first, and clipped gradients."""
    nn = torch.nn

    def net() -> Any:
        return nn.Sequential(
            nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 2)
        )

    policy, target = filled(torch, net()), net()
    target.load_state_dict(policy.state_dict())
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2, amsgrad=True)
    criterion = nn.SmoothL1Loss()

    def step(state: Any, action: Any, reward: Any, following: Any, goes_on: Any) -> Any:
        values = policy(state).gather(1, action)
        with torch.no_grad():
            best = torch.where(goes_on, target(following).max(1).values, torch.zeros(()))
        loss = criterion(values, (best * 0.99 + reward).unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(policy.parameters(), 0.05)
        optimizer.step()
        with torch.no_grad():
            for old, new in zip(target.parameters(), policy.parameters()):
                old.mul_(0.9).add_(new, alpha=0.1)
        return loss

    inputs = (
        normal(torch, 32, 4), integers(torch, 2, 32, 1), normal(torch, 32, seed=8),
        normal(torch, 32, 4, seed=7), normal(torch, 32, seed=3) > -0.5,
    )  # fmt: skip
    return Program(step, inputs, parameters(policy, target))


@program
def policy_gradient(torch: Any) -> Program:
    """PPO's clipped objective with an entropy bonus."""
    nn = torch.nn
    actor = filled(torch, nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))
    critic = filled(torch, nn.Linear(6, 1), 3)
    trained = parameters(actor, critic)
    optimizer = torch.optim.Adam(trained, lr=1e-2, eps=1e-5)
    seen, taken = normal(torch, 40, 6), integers(torch, 3, 40)
    with torch.no_grad():
        before = torch.log_softmax(actor(seen), -1).gather(1, taken[:, None]).squeeze(1)

    def step(seen: Any, taken: Any, advantage: Any, returns: Any, before: Any) -> Any:
        logp = torch.log_softmax(actor(seen), dim=-1)
        entropy = -(logp.exp() * logp).sum(-1).mean()
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        ratio = (logp.gather(1, taken.unsqueeze(1)).squeeze(1) - before).exp()
        clipped = torch.max(-advantage * ratio, -advantage * torch.clamp(ratio, 0.8, 1.2)).mean()
        off = 0.5 * ((critic(seen).view(-1) - returns) ** 2).mean()
        loss = clipped - 0.01 * entropy + off * 0.5
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(trained, 0.5)
        optimizer.step()
        return loss, norm

    inputs = seen, taken, normal(torch, 40, seed=4), normal(torch, 40, seed=5), before
    return Program(step, inputs, trained)


@program
def differential_equation(torch: Any) -> Program:
    """A network that solves Burgers' equation: second derivatives in the loss."""
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(2, 20), nn.Tanh(), nn.Linear(20, 20), nn.Tanh(), nn.Linear(20, 1)
    )
    filled(torch, model)

    def loss(places: Any) -> Any:
        x = places.clone().requires_grad_(True)
        u = model(x)
        (slope,) = torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)
        ones = torch.ones_like(slope[:, 0])
        (bend,) = torch.autograd.grad(slope[:, 0], x, ones, create_graph=True)
        return (slope[:, 1:] + u * slope[:, :1] - 0.01 / math.pi * bend[:, :1]).pow(2).mean()

    step = minimising(torch.optim.Adam(model.parameters(), lr=1e-3), loss)
    return Program(step, (normal(torch, 30, 2),), parameters(model))


@program
def learning_to_learn(torch: Any) -> Program:
    """MAML: gradients through two steps of gradient descent."""
    nn, F = torch.nn, torch.nn.functional
    model = filled(torch, nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 1)))

    def loss(x: Any, y: Any, later: Any, wanted: Any) -> Any:
        fast = dict(model.named_parameters())
        for _ in range(2):
            inner = F.mse_loss(torch.func.functional_call(model, fast, (x,)), y)
            grads = torch.autograd.grad(inner, tuple(fast.values()), create_graph=True)
            fast = {name: p - 0.1 * g for (name, p), g in zip(fast.items(), grads)}
        return F.mse_loss(torch.func.functional_call(model, fast, (later,)), wanted)

    inputs = tuple(normal(torch, 10, 1, seed=i) for i in range(4))
    step = minimising(torch.optim.Adam(model.parameters(), lr=1e-2), loss)
    return Program(step, inputs, parameters(model))


@program
def contrast(torch: Any) -> Program:
    """Embeddings that are compared: triplets, similarities, cosines."""
    nn, F = torch.nn, torch.nn.functional
    model = filled(torch, nn.Sequential(nn.Linear(10, 16), nn.PReLU(), nn.Linear(16, 8)))
    triplet = nn.TripletMarginLoss(margin=1.0)

    def loss(anchor: Any, positive: Any, negative: Any) -> Any:
        a, p, n = model(anchor), model(positive), model(negative)
        z = F.normalize(torch.cat([a, p]), dim=1)
        alike = (z @ z.t() / 0.5).masked_fill(torch.eye(24, dtype=torch.bool), float("-inf"))
        partner = torch.cat([torch.arange(12) + 12, torch.arange(12)])
        apart = F.cosine_embedding_loss(a, n, -torch.ones(12), margin=0.2)
        return triplet(a, p, n) + F.cross_entropy(alike, partner) + apart

    inputs = tuple(normal(torch, 12, 10, seed=i) for i in range(3))
    step = minimising(torch.optim.Adagrad(model.parameters(), lr=0.05), loss)
    return Program(step, inputs, parameters(model))


@program
def flow(torch: Any) -> Program:
    """A neural differential equation by Runge and Kutta's method."""
    nn = torch.nn
    f = filled(torch, nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2)))

    def loss(y: Any, goal: Any) -> Any:
        h, path = 0.1, [y]
        for _ in range(5):
            k1 = f(y**3)
            k2 = f(y + h * k1 / 2)
            k3 = f(y + h * k2 / 2)
            k4 = f(y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            path.append(y)
        moved = torch.stack(path, dim=0)
        return torch.mean(torch.abs(moved[-1] - goal)) + moved.var(dim=0).mean()

    step = minimising(torch.optim.Adam(f.parameters(), lr=1e-2, amsgrad=True), loss)
    return Program(step, (normal(torch, 10, 2), normal(torch, 10, 2, seed=4)), parameters(f))


@program
def experts(torch: Any) -> Program:
    """A mixture of experts: the best two of each, scattered and summed."""
    nn, F = torch.nn, torch.nn.functional
    gate = filled(torch, nn.Linear(8, 4))
    several = filled(torch, nn.ModuleList([nn.Linear(8, 8) for _ in range(4)]), 3)
    trained = parameters(gate, several)

    def loss(x: Any, y: Any) -> Any:
        logits = gate(x)
        top, which = logits.topk(2, dim=-1)
        weights = torch.zeros_like(logits).scatter(1, which, F.softmax(top, -1))
        outs = torch.stack([F.relu(expert(x)) for expert in several])
        out = torch.einsum("be,ebd->bd", weights, outs)
        used = (F.softmax(logits, -1).mean(0) * (weights > 0).float().mean(0)).sum() * 4
        return F.huber_loss(out, y, delta=0.7) + 0.01 * used

    step = minimising(torch.optim.Adamax(trained, lr=1e-2), loss)
    return Program(step, (normal(torch, 20, 8), normal(torch, 20, 8, seed=5)), trained)


@program
def graph_network(torch: Any) -> Program:
    """Convolutions on a graph; the loss looks at some nodes, by their indices."""
    nn, F = torch.nn, torch.nn.functional
    first, second = filled(torch, nn.Linear(6, 12, bias=False)), filled(torch, nn.Linear(12, 3), 3)
    trained = parameters(first, second)
    source, target = integers(torch, 15, 40), integers(torch, 15, 40, seed=9)
    degree = torch.zeros(15).scatter_add_(0, target, torch.ones(40)).clamp(min=1)
    labelled = (torch.arange(15) % 2 == 0).nonzero()[:, 0]

    def gathered(h: Any) -> Any:
        return torch.zeros(15, h.shape[1]).index_add(0, target, h[source]) / degree[:, None]

    def loss(x: Any, y: Any) -> Any:
        h = F.relu(gathered(first(x)) + first(x))
        out = gathered(second(h))
        weight = torch.tensor([1.0, 2.0, 0.5])
        return F.cross_entropy(out[labelled], y[labelled], weight=weight)

    step = minimising(torch.optim.Adam(trained, lr=0.01, weight_decay=5e-4), loss)
    return Program(step, (normal(torch, 15, 6), integers(torch, 3, 15, seed=1)), trained)


@program
def accumulated_gradients(torch: Any) -> Program:
    """A batch in three parts, with a gradient of one's own and a step of signs."""
    nn, F = torch.nn, torch.nn.functional
    layers = nn.Linear(6, 8), nn.Mish(), nn.LayerNorm(8), nn.Hardswish(), nn.Linear(8, 3)
    model = filled(torch, nn.Sequential(*layers))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, dampening=0.1)

    class Bounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, limit: float) -> Any:
            ctx.save_for_backward(x)
            ctx.limit = limit
            return x.clamp(-limit, limit)

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            return grad * (x.abs() <= ctx.limit).to(grad.dtype) + 0.01 * grad, None

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        total = 0.0
        for own, wanted in zip(x.chunk(3), torch.split(y, 4)):
            loss = F.multi_margin_loss(Bounded.apply(model(own), 1.5), wanted) / 3
            loss.backward()
            total = total + loss.detach()
        optimizer.step()
        return total

    return Program(step, (normal(torch, 12, 6), integers(torch, 3, 12)), parameters(model))


@program
def optimizer_of_ones_own(torch: Any) -> Program:
    """Rotary attention trained by an Optimizer subclass with state, warm-up and in-place rules."""

    class Momentum(torch.optim.Optimizer):
        def __init__(self, params: Any, lr: float, warmup: int) -> None:
            super().__init__(params, {"lr": lr, "beta": 0.9, "warmup": warmup})

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            for group in self.param_groups:
                for p in group["params"]:
                    state = self.state[p]
                    if not state:
                        state["step"] = 0
                        state["mean"] = torch.zeros_like(p, memory_format=torch.preserve_format)
                    state["step"] += 1
                    state["mean"].mul_(group["beta"]).add_(p.grad, alpha=1 - group["beta"])
                    rate = group["lr"] * min(1.0, state["step"] / group["warmup"])
                    p.add_(state["mean"] / (state["mean"].norm() + 1e-3), alpha=-rate)

    class Attention(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(8, 24)
            angles = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.1])
            self.register_buffer("cosines", torch.cos(torch.cat([angles, angles], 1)))
            self.register_buffer("sines", torch.sin(torch.cat([angles, angles], 1)))

        def turned(self, x: Any) -> Any:
            first, second = x.chunk(2, dim=-1)
            return x * self.cosines + torch.cat([-second, first], dim=-1) * self.sines

        def forward(self, x: Any) -> Any:
            q, k, v = self.project(x).view(3, 5, 3, 2, 4).permute(2, 0, 3, 1, 4)
            scores = torch.einsum("bhid,bhjd->bhij", self.turned(q), self.turned(k)) / 2
            hidden = torch.ones(5, 5, dtype=torch.bool).triu(1)
            weights = scores.masked_fill(hidden, float("-inf")).softmax(dim=-1)
            return (weights @ v).transpose(1, 2).flatten(2)

    model = filled(torch, torch.nn.Sequential(Attention(), torch.nn.Linear(8, 3)))
    optimizer = Momentum(model.parameters(), lr=0.1, warmup=3)

    def loss(x: Any, y: Any) -> Any:
        return torch.nn.functional.cross_entropy(model(x).flatten(0, 1), y)

    inputs = normal(torch, 3, 5, 8), integers(torch, 3, 15)
    return Program(minimising(optimizer, loss), inputs, parameters(model))
