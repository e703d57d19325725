"""Every kind of view of a matrix of 2 by 3."""

from __future__ import annotations

VIEWS = {
    "select": lambda t: t[0],
    "slice": lambda t: t[:, 1:],
    "step": lambda t: t[:, ::2],
    "column": lambda t: t[:, 1],
    "transpose": lambda t: t.transpose(0, 1),
    "t": lambda t: t.t(),
    "T": lambda t: t.T,
    "mT": lambda t: t.mT,
    "permute": lambda t: t.permute(1, 0),
    "view": lambda t: t.view(3, 2),
    "flat": lambda t: t.view(-1),
    "reshape": lambda t: t.reshape(6),
    "flatten": lambda t: t.flatten(),
    "unsqueeze": lambda t: t.unsqueeze(1),
    "squeeze": lambda t: t.unsqueeze(1).squeeze(1),
    "narrow": lambda t: t.narrow(1, 0, 2),
    "diagonal": lambda t: t.diagonal(),
    "view_as": lambda t: t.view_as(t),
    "newaxis": lambda t: t[None],
    "ellipsis": lambda t: t[..., 1],
    "of_a_view": lambda t: t[:, 1:][0],
    "of_a_view_of_a_view": lambda t: t.t()[1:][0].unsqueeze(0),
    "unflatten": lambda t: t.view(6).unflatten(0, (2, 3)),
    "movedim": lambda t: t.movedim(0, 1),
    "swapaxes": lambda t: t.swapaxes(0, 1),
    "detach": lambda t: t.detach(),
    "expand": lambda t: t[None].expand(1, 2, 3),
}
