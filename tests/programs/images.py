"""Programs that look at images and make them."""

from __future__ import annotations

import copy
import math
from typing import Any

from tests.programs import Program, filled, integers, minimising, normal, parameters, program


@program
def residual_network(torch: Any) -> Program:
    """A ResNet in small, with momentum and its accuracy beside the loss."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outputs)
            self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outputs)
            self.shortcut = nn.Sequential()
            if stride != 1 or inputs != outputs:
                self.shortcut = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x: Any) -> Any:
            out = F.relu(self.bn1(self.conv1(x)), inplace=True)
            out = self.bn2(self.conv2(out))
            out += self.shortcut(x)
            return F.relu(out)

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), Block(8, 8, 1), Block(8, 16, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    filled(torch, model, scale=0.2)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4, nesterov=True
    )

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        out = model(x)
        loss = F.cross_entropy(out, y)
        loss.backward()
        optimizer.step()
        return loss, (out.argmax(1) == y).float().mean()

    inputs = normal(torch, 8, 3, 12, 12), integers(torch, 10, 8)
    return Program(step, inputs, parameters(model))


@program
def adversarial_networks(torch: Any) -> Program:
    """A DCGAN: the generator's step sees the discriminator that was updated in the same step."""
    nn = torch.nn
    generator = nn.Sequential(
        nn.ConvTranspose2d(8, 16, 4, 1, 0, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
        nn.ConvTranspose2d(16, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    discriminator = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True), nn.MaxPool2d(2),
        nn.BatchNorm2d(8), nn.Conv2d(8, 1, 2, 1, 0, bias=False), nn.Sigmoid(),
    )  # fmt: skip
    filled(torch, generator, scale=0.1)
    filled(torch, discriminator, 3, scale=0.1)
    betas = 0.5, 0.999
    for_generator = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=betas)
    for_discriminator = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=betas)
    criterion = nn.BCELoss()

    def step(real: Any, noise: Any) -> Any:
        discriminator.zero_grad()
        label = torch.full((16,), 1.0)
        of_real = criterion(discriminator(real).view(-1), label)
        of_real.backward()
        fake = generator(noise)
        label.fill_(0.0)
        of_fake = criterion(discriminator(fake.detach()).view(-1), label)
        of_fake.backward()
        for_discriminator.step()
        generator.zero_grad()
        label.fill_(1.0)
        fooled = criterion(discriminator(fake).view(-1), label)
        fooled.backward()
        for_generator.step()
        return of_real + of_fake, fooled

    inputs = torch.tanh(normal(torch, 16, 1, 8, 8)), normal(torch, 16, 8, 1, 1, seed=4)
    return Program(step, inputs, parameters(generator, discriminator))


@program
def segmentation(torch: Any) -> Program:
    """A U-Net in small with the dice loss."""
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.down1 = nn.Sequential(
                nn.Conv2d(1, 6, 3, padding=1, bias=False),
                nn.InstanceNorm2d(6, affine=True),
                nn.ELU(),
            )
            self.down2 = nn.Sequential(nn.Conv2d(6, 12, 3, padding=1), nn.ReLU())
            self.up = nn.ConvTranspose2d(12, 6, 2, stride=2)
            self.join = nn.Conv2d(12, 6, 3, padding=1, padding_mode="reflect")
            self.out = nn.Conv2d(6, 1, 1)

        def forward(self, x: Any) -> Any:
            fine = self.down1(x)
            coarse = self.down2(F.max_pool2d(fine, 2))
            joined = F.relu(self.join(torch.cat([self.up(coarse), fine], dim=1)))
            return self.out(
                F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=False)
            )

    model = filled(torch, Net(), scale=0.3)

    def loss(x: Any, mask: Any) -> Any:
        p = torch.sigmoid(model(x))
        both = (p * mask).sum(dim=(1, 2, 3))
        dice = 1 - (2 * both + 1) / (p.sum((1, 2, 3)) + mask.sum((1, 2, 3)) + 1)
        return dice.mean() + F.binary_cross_entropy(p, mask)

    mask = (normal(torch, 3, 1, 16, 16, seed=5) > 0).float()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    step = minimising(optimizer, loss)
    return Program(step, (normal(torch, 3, 1, 8, 8), mask), parameters(model))


@program
def diffusion(torch: Any) -> Program:
    """A denoising model with embedded times, clipping and an average of its parameters."""
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.time = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 16))
            self.first = nn.Conv2d(1, 16, 3, padding=1)
            self.norm = nn.GroupNorm(4, 16)
            self.middle = nn.Conv2d(16, 16, 3, padding=1, groups=4)
            self.last = nn.Conv2d(16, 1, 3, padding=1)

        def forward(self, x: Any, t: Any) -> Any:
            rates = torch.exp(-math.log(10000) * torch.arange(0, 4, dtype=torch.float32) / 4)
            angles = t[:, None].float() * rates[None]
            time = self.time(torch.cat([torch.cos(angles), torch.sin(angles)], -1))
            h = self.first(x) + time[:, :, None, None]
            h = F.silu(self.norm(h))
            return self.last(F.silu(self.middle(h)) + h)

    model = filled(torch, Net(), scale=0.2)
    average = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    kept = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 50), 0)

    def step(x: Any, t: Any, noise: Any) -> Any:
        share = kept[t].view(-1, 1, 1, 1)
        noisy = share.sqrt() * x + (1 - share).sqrt() * noise
        loss = F.mse_loss(model(noisy, t), noise)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            for own, p in zip(average.parameters(), model.parameters()):
                own.lerp_(p, 0.1)
        return loss

    inputs = (
        normal(torch, 4, 1, 8, 8), integers(torch, 50, 4), normal(torch, 4, 1, 8, 8, seed=9),
    )  # fmt: skip
    return Program(step, inputs, parameters(model, average))


@program
def inverted_bottlenecks(torch: Any) -> Program:
    """A MobileNet in small: depthwise convolutions."""
    nn, F = torch.nn, torch.nn.functional

    def block(inputs: int, outputs: int, stride: int) -> Any:
        wide = 4 * inputs
        return nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False), nn.BatchNorm2d(wide), nn.ReLU6(),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(), nn.Conv2d(wide, outputs, 1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip

    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), block(8, 8, 1), block(8, 16, 2), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(16, 10),
    )  # fmt: skip
    filled(torch, model, scale=0.3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    step = minimising(optimizer, lambda x, y: F.cross_entropy(model(x), y))
    inputs = normal(torch, 8, 1, 16, 16), integers(torch, 10, 8)
    return Program(step, inputs, parameters(model))


@program
def variational_autoencoder(torch: Any) -> Program:
    """The reparametrisation trick with given noise."""
    nn, F = torch.nn, torch.nn.functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.fc21, self.fc22 = nn.Linear(32, 20), nn.Linear(20, 4), nn.Linear(20, 4)
            self.fc3, self.fc4 = nn.Linear(4, 20), nn.Linear(20, 32)

        def forward(self, x: Any, noise: Any) -> Any:
            h = F.relu(self.fc1(x))
            mean, log_variance = self.fc21(h), self.fc22(h)
            z = mean + noise * torch.exp(0.5 * log_variance)
            return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, log_variance

    model = filled(torch, Net())

    def loss(x: Any, noise: Any) -> Any:
        made, mean, log_variance = model(x, noise)
        apart = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        return F.binary_cross_entropy(made, x, reduction="sum") + apart

    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    inputs = torch.sigmoid(normal(torch, 16, 32)), normal(torch, 16, 4, seed=3)
    return Program(minimising(optimizer, loss), inputs, parameters(model))
