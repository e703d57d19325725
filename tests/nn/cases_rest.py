"""Cases of layers with less common options, entered into the table of `tests.nn.cases`."""

from __future__ import annotations

import numpy as np

from tests.nn.cases import layer, of
from tests.nn.inputs import classes, x

# ------------------------------------------------------------------------- look-up tables
layer(
    "Embedding with a norm",
    of("Embedding", 7, 3, None, 0.5, 1.0),
    classes(7, 4, 5),
)
layer("Embedding by frequency", of("Embedding", 7, 3, 2, None, 2.0, True), classes(7, 4, 5))
OFFSETS = np.array([0, 2, 2, 5])
layer("EmbeddingBag", of("EmbeddingBag", 7, 3), classes(7, 4, 5))
layer("EmbeddingBag of a row", of("EmbeddingBag", 7, 3, padding_idx=2), classes(7, 9), OFFSETS)
layer(
    "EmbeddingBag with weights",
    of("EmbeddingBag", 7, 3, 0.5, mode="sum", include_last_offset=True),
    classes(7, 5),
    OFFSETS,
    x(5),
)
layer("EmbeddingBag maximum", of("EmbeddingBag", 7, 3, mode="max"), classes(7, 9), OFFSETS)

# -------------------------------------------------------------------------- projected LSTM
layer("LSTM projected", of("LSTM", 3, 5, proj_size=2), x(4, 2, 3))
layer(
    "LSTM projected both ways",
    of("LSTM", 3, 4, 2, bias=False, batch_first=True, bidirectional=True, proj_size=3),
    x(2, 4, 3),
)
layer(
    "LSTM projected from a state",
    of("LSTM", 3, 4, proj_size=1),
    x(4, 2, 3),
    (x(1, 2, 1), x(1, 2, 4)),
)
