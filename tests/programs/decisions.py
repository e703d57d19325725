"""Programs with distributions: policies, mixtures, variational autoencoders.

The noise is an input, so that PyTorch has the same.
"""

from __future__ import annotations

from typing import Any

from tests.programs import Program, filled, integers, minimising, normal, parameters, program


@program
def soft_actor_critic(torch: Any) -> Program:
    """A squashed normal policy, two critics, targets that follow, a temperature that is learnt."""
    nn, F, D = torch.nn, torch.nn.functional, torch.distributions

    def net(inputs: int, outputs: int, seed: int) -> Any:
        layers = nn.Sequential(nn.Linear(inputs, 24), nn.ReLU(), nn.Linear(24, outputs))
        return filled(torch, layers, seed)

    actor, critics = net(5, 4, 1), [net(7, 1, 2), net(7, 1, 3)]
    targets = [net(7, 1, 2), net(7, 1, 3)]
    log_alpha = nn.Parameter(torch.zeros(1))
    of_actor = torch.optim.Adam(actor.parameters(), lr=3e-3)
    of_critics = torch.optim.Adam([p for c in critics for p in c.parameters()], lr=3e-3)
    of_alpha = torch.optim.Adam([log_alpha], lr=3e-3)

    def act(state: Any, noise: Any) -> Any:
        loc, log_scale = actor(state).chunk(2, dim=-1)
        scale = (-2 + 3.5 * (torch.tanh(log_scale) + 1)).clamp(max=1.0).exp()
        squash = D.TanhTransform(cache_size=1)
        policy = D.TransformedDistribution(D.Independent(D.Normal(loc, scale), 1), squash)
        action = squash(loc + scale * noise)
        return action, policy.log_prob(action)

    def judge(judges: Any, state: Any, action: Any) -> Any:
        both = [judge(torch.cat([state, action], 1)).squeeze(-1) for judge in judges]
        return torch.min(*both), both

    def step(state: Any, action: Any, reward: Any, following: Any, noise: Any, other: Any) -> Any:
        with torch.no_grad():
            chosen, log_prob = act(following, other)
            value = judge(targets, following, chosen)[0] - log_alpha.exp() * log_prob
            aim = reward + 0.99 * value
        off = sum(F.mse_loss(q, aim) for q in judge(critics, state, action)[1])
        of_critics.zero_grad()
        off.backward()
        of_critics.step()

        chosen, log_prob = act(state, noise)
        loss = (log_alpha.exp().detach() * log_prob - judge(critics, state, chosen)[0]).mean()
        of_actor.zero_grad()
        loss.backward()
        of_actor.step()

        drift = (-log_alpha.exp() * (log_prob.detach() - 2.0)).mean()
        of_alpha.zero_grad()
        drift.backward()
        of_alpha.step()
        for one, target in zip(critics, targets):
            for new, old in zip(one.parameters(), target.parameters()):
                old.data.copy_(0.05 * new.data + 0.95 * old.data)
        return off, loss, drift

    inputs = (
        normal(torch, 16, 5), normal(torch, 16, 2, seed=1).tanh(), normal(torch, 16, seed=2),
        normal(torch, 16, 5, seed=3), normal(torch, 16, 2, seed=4), normal(torch, 16, 2, seed=5),
    )  # fmt: skip
    return Program(step, inputs, [*parameters(actor, *critics, *targets), log_alpha])


@program
def trust_region(torch: Any) -> Program:
    """A continuous policy with a state-independent scale, held near the old one by a divergence."""
    nn, D = torch.nn, torch.distributions
    net = filled(torch, nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 3)))
    log_scale = nn.Parameter(torch.full((3,), -0.5))
    optimizer = torch.optim.Adam([*net.parameters(), log_scale], lr=1e-2)
    loc, scale = normal(torch, 40, 3, seed=6) * 0.1, torch.full((3,), 0.7)

    def loss(state: Any, action: Any, advantage: Any) -> Any:
        new = D.Independent(D.Normal(net(state), log_scale.exp()), 1)
        old = D.Independent(D.Normal(loc, scale), 1)
        ratio = (new.log_prob(action) - old.log_prob(action)).exp()
        divergence = D.kl_divergence(old, new).mean()
        return -(ratio * advantage).mean() + 0.5 * divergence - 0.01 * new.entropy().mean()

    inputs = normal(torch, 40, 6), normal(torch, 40, 3, seed=4), normal(torch, 40, seed=5)
    return Program(minimising(optimizer, loss), inputs, [*parameters(net), log_scale])


@program
def beta_policy(torch: Any) -> Program:
    """Actions of an interval, with an entropy bonus: derivatives of the gamma function."""
    nn, F, D = torch.nn, torch.nn.functional, torch.distributions
    net = filled(torch, nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 4)))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def loss(state: Any, action: Any, advantage: Any) -> Any:
        a, b = (F.softplus(net(state)) + 1).chunk(2, -1)
        policy = D.Beta(a, b)
        scores = policy.log_prob(action).sum(-1) * advantage
        return -scores.mean() - 0.1 * policy.entropy().mean()

    inputs = normal(torch, 40, 6), normal(torch, 40, 2, seed=4).sigmoid(), normal(torch, 40, seed=5)
    return Program(minimising(optimizer, loss), inputs, parameters(net))


@program
def mixture_density(torch: Any) -> Program:
    """A network whose output is a mixture of normal distributions."""
    nn, D = torch.nn, torch.distributions
    net = filled(torch, nn.Sequential(nn.Linear(3, 20), nn.Tanh(), nn.Linear(20, 12)))
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)

    def loss(x: Any, y: Any) -> Any:
        weights, loc, scale = net(x).chunk(3, -1)
        parts = D.Normal(loc, scale.exp())
        return -D.MixtureSameFamily(D.Categorical(logits=weights), parts).log_prob(y).mean()

    inputs = normal(torch, 30, 3), normal(torch, 30, seed=2)
    return Program(minimising(optimizer, loss), inputs, parameters(net))


@program
def variational_autoencoder_of_distributions(torch: Any) -> Program:
    """Posterior, prior and likelihood are distributions; the loss is their divergence and score."""
    nn, D = torch.nn, torch.distributions
    encoder = filled(torch, nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6)), 1)
    decoder = filled(torch, nn.Sequential(nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 12)), 2)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-2)

    def loss(x: Any, noise: Any) -> Any:
        loc, log_variance = encoder(x).chunk(2, -1)
        posterior = D.Normal(loc, (0.5 * log_variance).exp())
        prior = D.Normal(torch.zeros_like(loc), torch.ones_like(loc))
        likelihood = D.Independent(D.Bernoulli(logits=decoder(loc + posterior.scale * noise)), 1)
        divergence = D.kl_divergence(posterior, prior).sum(-1)
        return (divergence - likelihood.log_prob(x)).mean()

    inputs = (normal(torch, 20, 12) > 0).float(), normal(torch, 20, 3, seed=2)
    return Program(minimising(optimizer, loss), inputs, parameters(encoder, decoder))


@program
def world_model(torch: Any) -> Program:
    """One-hot latent classes with straight-through gradients, balanced between two divergences."""
    nn, F, D = torch.nn, torch.nn.functional, torch.distributions
    seen = filled(torch, nn.Linear(8, 15), 1)
    guessed, out = filled(torch, nn.Linear(8, 15), 2), filled(torch, nn.Linear(15, 8), 3)
    optimizer = torch.optim.AdamW(parameters(seen, guessed, out), lr=1e-2)

    def loss(x: Any, before: Any, drawn: Any) -> Any:
        logits, prior = seen(x).view(-1, 3, 5), guessed(before).view(-1, 3, 5)
        posterior = D.Independent(D.OneHotCategoricalStraightThrough(logits=logits), 1)
        probs = posterior.base_dist.probs
        latent = F.one_hot(drawn, 5).float() + probs - probs.detach()

        def apart(p: Any, q: Any) -> Any:
            return D.kl_divergence(
                *[D.Independent(D.OneHotCategorical(logits=v), 1) for v in (p, q)]
            ).mean()

        held = 0.8 * apart(logits.detach(), prior) + 0.2 * apart(logits, prior.detach())
        entropy = posterior.entropy().mean()
        return F.mse_loss(out(latent.flatten(1)), x) + 0.5 * held - 0.01 * entropy

    inputs = normal(torch, 20, 8), normal(torch, 20, 8, seed=3), integers(torch, 5, 20, 3)
    return Program(minimising(optimizer, loss), inputs, parameters(seen, guessed, out))
