"""Programs that read and write sequences."""

from __future__ import annotations

import math
from typing import Any

from tests.programs import Program, filled, integers, minimising, normal, parameters, program


@program
def character_model(torch: Any) -> Program:
    """A GPT written out, with tied weights, groups of parameters and clipping."""
    nn, F = torch.nn, torch.nn.functional
    length, width, heads = 10, 24, 3

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = nn.Linear(width, 3 * width, bias=False)
            self.c_proj = nn.Linear(width, width, bias=False)
            mask = torch.tril(torch.ones(length, length))
            self.register_buffer("bias", mask.view(1, 1, length, length))

        def forward(self, x: Any) -> Any:
            B, T, C = x.size()
            q, k, v = self.c_attn(x).split(width, dim=2)
            k, q, v = (t.view(B, T, heads, C // heads).transpose(1, 2) for t in (k, q, v))
            att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
            att = att.masked_fill(self.bias[:, :, :T, :T] == 0, float("-inf"))
            y = F.softmax(att, dim=-1) @ v
            return self.c_proj(y.transpose(1, 2).contiguous().view(B, T, C))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width, bias=False)
            self.attn = Attention()
            self.mlp = nn.ModuleDict(
                {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}
            )

        def forward(self, x: Any) -> Any:
            x = x + self.attn(self.ln_1(x))
            return x + self.mlp["c_proj"](F.gelu(self.mlp["c_fc"](self.ln_2(x))))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(17, width), nn.Embedding(length, width)
            self.h = nn.ModuleList([Block() for _ in range(2)])
            self.ln_f = nn.LayerNorm(width)
            self.lm_head = nn.Linear(width, 17, bias=False)
            self.wte.weight = self.lm_head.weight

        def forward(self, idx: Any, targets: Any) -> Any:
            pos = torch.arange(0, idx.size(1), dtype=torch.long, device=idx.device)
            x = self.wte(idx) + self.wpe(pos)
            for block in self.h:
                x = block(x)
            logits = self.lm_head(self.ln_f(x))
            return F.cross_entropy(
                logits.view(-1, logits.size(-1)), targets.view(-1), ignore_index=-1
            )

    model = filled(torch, GPT(), scale=0.2)
    groups = [
        {"params": [p for p in model.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, betas=(0.9, 0.95))

    def step(x: Any, y: Any) -> Any:
        loss = model(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    inputs = integers(torch, 17, 4, length), integers(torch, 17, 4, length, seed=4)
    return Program(step, inputs, parameters(model))


@program
def translation(torch: Any) -> Program:
    """An encoder in both directions, a decoder with attention, step by step."""
    nn, F = torch.nn, torch.nn.functional

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 12)
            self.gru = nn.GRU(12, 16, batch_first=True, bidirectional=True)

        def forward(self, x: Any) -> Any:
            outputs, hidden = self.gru(self.embedding(x))
            return outputs, torch.tanh(hidden[0] + hidden[1])

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(20, 12, padding_idx=0)
            self.attention, self.v = nn.Linear(48, 16), nn.Linear(16, 1, bias=False)
            self.cell, self.out = nn.GRUCell(12 + 32, 16), nn.Linear(16, 20)

        def forward(self, encoded: Any, h: Any, words: Any) -> Any:
            outputs = []
            for t in range(words.size(1)):
                again = h.unsqueeze(1).expand(-1, encoded.size(1), -1)
                energy = torch.tanh(self.attention(torch.cat([encoded, again], 2)))
                weights = F.softmax(self.v(energy), dim=1)
                context = torch.bmm(weights.transpose(1, 2), encoded).squeeze(1)
                h = self.cell(torch.cat((self.embedding(words[:, t]), context), 1), h)
                outputs.append(self.out(h))
            return torch.stack(outputs, 1)

    encoder, decoder = filled(torch, Encoder()), filled(torch, Decoder(), 3)

    def loss(x: Any, y: Any) -> Any:
        logits = decoder(*encoder(x), y)
        logp = F.log_softmax(logits[:, :-1], -1).reshape(-1, 20)
        return F.nll_loss(logp, y[:, 1:].reshape(-1), ignore_index=0)

    trained = parameters(encoder, decoder)
    step = minimising(torch.optim.RMSprop(trained, lr=3e-3, momentum=0.5), loss)
    return Program(step, (integers(torch, 20, 6, 7), integers(torch, 20, 6, 5, seed=4)), trained)


@program
def classifier_of_texts(torch: Any) -> Program:
    """nn.TransformerEncoder with padding, smoothed labels and a warm-up."""
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(30, 16)
            self.position = nn.Parameter(torch.zeros(1, 9, 16))
            layer = nn.TransformerEncoderLayer(
                16, 4, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
            )
            self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
            self.head = nn.Linear(16, 5)

        def forward(self, x: Any) -> Any:
            padding = x == 0
            h = self.embedding(x) + self.position
            h = self.encoder(h, src_key_padding_mask=padding)
            h = h.masked_fill(padding.unsqueeze(-1), 0.0).sum(1)
            return self.head(h / (~padding).sum(1, keepdim=True))

    model = filled(torch, Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1, (i + 1) / 4))
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)
    x, y = integers(torch, 30, 8, 9), integers(torch, 5, 8, seed=6)
    x[:, 6:], x[:, 0] = 0, 1
    step = minimising(optimizer, lambda x, y: criterion(model(x), y), [scheduler.step])
    return Program(step, (x, y), parameters(model))


@program
def words_as_vectors(torch: Any) -> Program:
    """word2vec with negative samples."""
    nn, F = torch.nn, torch.nn.functional
    own, others = filled(torch, nn.Embedding(40, 8)), filled(torch, nn.Embedding(40, 8), 2)
    trained = parameters(own, others)

    def loss(centre: Any, near: Any, random: Any) -> Any:
        e = own(centre)
        positive = F.logsigmoid((e * others(near)).sum(1))
        negative = F.logsigmoid(-torch.bmm(others(random), e.unsqueeze(2)).squeeze(2)).sum(1)
        return -(positive + negative).mean()

    sizes = (16,), (16,), (16, 5)
    inputs = tuple(integers(torch, 40, *size, seed=2 + n) for n, size in enumerate(sizes))
    return Program(minimising(torch.optim.SGD(trained, lr=0.5), loss), inputs, trained)


@program
def dilated_convolutions(torch: Any) -> Program:
    """A temporal convolutional network that compares distributions."""
    nn, F = torch.nn, torch.nn.functional
    layers: list[Any] = []
    for k in range(3):
        layers += [
            nn.ConstantPad1d((2 * 2**k, 0), 0.0),
            nn.Conv1d(8 if k else 3, 8, 3, dilation=2**k),
            nn.GELU(approximate="tanh"),
        ]
    model = filled(torch, nn.Sequential(*layers, nn.Conv1d(8, 2, 1)), scale=0.3)

    def loss(x: Any, y: Any) -> Any:
        out = model(x)
        apart = F.kl_div(F.log_softmax(out, 1), F.softmax(y, 1), reduction="batchmean")
        return F.l1_loss(out, y) + apart

    step = minimising(torch.optim.RAdam(model.parameters(), lr=1e-2), loss)
    inputs = normal(torch, 4, 3, 20), normal(torch, 4, 2, 20, seed=8)
    return Program(step, inputs, parameters(model))
