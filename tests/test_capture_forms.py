"""Gradients of many forms, scaled by numbers that the step changes: none is of the last call.

The scalars make every gradient another one at every call, so that one which has come past the
recording shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.nn import functional as F

CALLS = 8
FORMS = [
    "(a * (w * 2.0).sum(1)).mean()",
    "(a * w.sum(0)).sum()",
    "(b.expand(2, 3) * a).sum() + (w * 1.0).mean(0).sum() * a",
    "gradlite.stack([w[0] * 1.0, w[1] * 2.0]).sum(0).mul(a).mean()",
    "gradlite.cat(w.split(1, 0), 0).sum() * a",
    "gradlite.stack(w.unbind(0)).pow(2).sum() * a",
    "(w.t() @ w).diagonal().sum() * a",
    "w.flip(0).cumsum(1).mean() * a",
    "w.unfold(1, 2, 1).sum() * a",
    "gradlite.einsum('ij,j->i', w, v).mean() * a",
    "w.repeat(2, 1).sum(0).mul(a).sum()",
    "w.gather(1, gradlite.tensor([[0], [2]])).mul(a).mean()",
    "w.roll(1, 1).narrow(1, 0, 2).mean(0).mul(a).sum()",
    "F.pad(w, (1, 1)).sum() * a",
    "w.max(1).values.mul(a).mean()",
    "w.amax().mul(a) + w.min() * b",
    "w.std() * a + w.var(1).sum() * b",
    "w.prod() * a",
    "w.norm() * a + v.norm(1) * b",
    "w.sort(1).values[:, 0].mul(a).sum()",
    "gradlite.where(x > 0, w, b).mean() * a",
    "(w * a).softmax(1).log().mean() + b",
    "w.clone().mul_(a).add_(b).mean()",
    "w.index_select(0, gradlite.tensor([1, 1, 0])).sum(0).mul(a).mean()",
    "w.masked_fill(x > 0, 0.0).sum(1).mul(a).mean()",
    "gradlite.lerp(w, x, a / 10).mean() * b",
    "gradlite.addcmul(w, x, w, value=0.5).mean() * a",
    "gradlite.outer(v, v).triu().sum() * a",
    "w.squeeze().unsqueeze(0).permute(2, 0, 1).sum(0).mul(a).mean()",
    "w.view(-1)[::2].mul(a).sum()",
    "w.chunk(3, 1)[1].mul(a).sum()",
    "F.linear(x, w, None).mul(a).mean()",
    "F.layer_norm(w, (3,), v, None).mul(a).mean()",
    "F.mse_loss(w * 1.0, x) * a",
    "F.cross_entropy(w * 1.0, gradlite.tensor([0, 2])) * a",
    "F.cross_entropy(w, gradlite.tensor([0, 2]), weight=v.detach()) * a",
    "(w - w.mean(1, keepdim=True)).pow(2).mean() * a",
    "gradlite.cdist(w, x).mean() * a",
    "w.logsumexp(0).mul(a).mean()",
    "b * a * 3",
    "(b + 0.0).expand(4).sum() * a",
    "(b * a).reshape(1).repeat(3).mean()",
    "gradlite.stack([b, b * 2, a]).mean()",
    "gradlite.full((3,), 2.0).mul(b).mul(a).sum()",
    "w.kthvalue(2, 1).values.mul(a).mean()",
    "w.topk(2).values.mul(a).mean()",
    "w.median(1).values.mul(a).mean()",
    "F.interpolate(w[None], scale_factor=2.0).mul(a).mean()",
    "F.avg_pool1d(w[None], 2).mul(a).mean() + F.max_pool1d(w[None], 2).mean() * b",
    "F.normalize(w).mul(a).mean() + F.cosine_similarity(w, x).mean() * b",
    "F.gelu(w.sum(0)).mul(a).mean() + F.prelu(w, b.reshape(1)).mean()",
    "w.T.reshape(2, 3).sum(1).mul(a).mean()",
    "w.new_zeros(2).index_add(0, gradlite.tensor([0, 1, 1]), v * 1.0).mul(a).sum()",
    "gradlite.zeros(2, 3).scatter(1, gradlite.tensor([[0], [1]]), w[:, :1]).mul(a).sum()",
    "gradlite.meshgrid(v, v, indexing='ij')[0].mul(a).mean()",
    "gradlite.diff(v).mul(a).sum() + gradlite.trapezoid(v) * b",
    "gradlite.kron(v, v).mul(a).mean() + gradlite.tensordot(w, w, 2) * b",
    "gradlite.atleast_2d(v).expand(2, 3).mul(a).mean()",
    "w.movedim(0, 1).flatten().unflatten(0, (3, 2)).mean(0).mul(a).sum()",
    "gradlite.bmm(w[None], w.t()[None]).sum(0).diag().mul(a).sum()",
    "gradlite.baddbmm(b.expand(1, 2, 2), w[None], w.t()[None]).mul(a).mean()",
    "F.embedding(gradlite.tensor([0, 1, 1]), w).sum(0).mul(a).mean()",
    "F.scaled_dot_product_attention(w[None], w[None], x[None]).sum(1).mul(a).mean()",
    "F.huber_loss(w, x) * a + F.kl_div(w.log_softmax(1), x.softmax(1), reduction='sum') * b",
    "w.sum(1, keepdim=True).expand(2, 3).mean(1).mul(a).mean()",
    "w.sum((0, 1)).expand(2, 2).mul(a).mean()",
    "w.mean(0).unsqueeze(0).expand(4, 3).clone().mul(a).sum()",
    "(w.sum(1)[:, None] + v[None]).mul(a).sum(0).neg().mean()",
]


class Numbers:
    """Parameters, and two scalars that the step changes."""

    def __init__(self, form: str) -> None:
        self.a = gradlite.tensor(1.5)
        self.b = nn.Parameter(gradlite.tensor(0.7))
        self.w = nn.Parameter(gradlite.linspace(-1, 1, 6).reshape(2, 3))
        self.v = nn.Parameter(gradlite.linspace(0.5, 2, 3))
        self.form = eval(f"lambda x, a, w, b, v: {form}", {"gradlite": gradlite, "F": F})

    def step(self, x: Any) -> Any:
        for p in (self.w, self.b, self.v):
            p.grad = None
        loss = self.form(x, self.a, self.w, self.b, self.v).sum()
        loss.backward()
        with gradlite.no_grad():
            self.a.mul_(1.1)
            self.b.sub_(0.01)
        return loss

    def seen(self) -> list[Any]:
        grads = [p.grad for p in (self.w, self.b, self.v)]
        return [self.a.item(), self.b.item(), *[None if g is None else g.tolist() for g in grads]]


@pytest.mark.parametrize("form", FORMS)
def test_gradients_follow_the_scalars(form: str) -> None:
    one, other = Numbers(form), Numbers(form)
    captured = gradlite.capture(other.step, native=False)
    for i in range(CALLS):
        x = gradlite.tensor(np.random.default_rng(i).standard_normal((2, 3)).astype(np.float32))
        assert captured(x).item() == one.step(x).item()
        assert other.seen() == one.seen()
    assert captured.replays == CALLS - 3
