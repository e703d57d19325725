"""Cases of layers with less common options, entered into the table of `tests.nn.cases`."""

from __future__ import annotations

import numpy as np

from tests.nn.cases import Constant, layer, of
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

# ----------------------------------------------------------------------------------- losses
layer("MultiMarginLoss", of("MultiMarginLoss"), x(3, 4), classes(4, 3))
layer(
    "MultiMarginLoss with all",
    of("MultiMarginLoss", 2, 0.7, np.array([0.5, 1.0, 2.0, 1.5]), reduction="none"),
    x(3, 4),
    classes(4, 3),
)
LABELS = np.array([[3, 0, -1, 1], [2, -1, 0, 1]])
layer("MultiLabelMarginLoss", of("MultiLabelMarginLoss"), x(2, 4), LABELS)
TRUTHS = Constant(np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]))
layer("MultiLabelSoftMarginLoss", of("MultiLabelSoftMarginLoss"), x(2, 3), TRUTHS)
layer(
    "MultiLabelSoftMarginLoss weighted",
    of("MultiLabelSoftMarginLoss", np.array([0.5, 1.0, 2.0]), reduction="sum"),
    x(2, 3),
    TRUTHS,
)
layer(
    "CTCLoss",
    of("CTCLoss", 3, zero_infinity=True),
    x(6, 2, 4),
    np.array([[1, 2, 0], [0, 0, 2]]),
    np.array([6, 5]),
    np.array([3, 2]),
)

# ------------------------------------------------------------------------------- pooling
for n, shape in [(1, (2, 3, 7)), (2, (2, 3, 6, 5)), (3, (2, 2, 4, 4, 5))]:
    layer(f"LPPool{n}d", of(f"LPPool{n}d", 2, 2), x(*shape))
layer("LPPool2d with all", of("LPPool2d", 3.0, (2, 3), 1, True), x(2, 3, 6, 5))
PLACES = np.array([[[[0, 5], [13, 11]]]])
layer("MaxUnpool1d", of("MaxUnpool1d", 2, 3), x(1, 1, 2), np.array([[[1, 4]]]))
layer("MaxUnpool2d", of("MaxUnpool2d", 2), x(1, 1, 2, 2), PLACES)
layer(
    "MaxUnpool2d of a size",
    of("MaxUnpool2d", 2),
    x(1, 1, 2, 2),
    PLACES,
    kwargs={"output_size": [5, 5]},
)
layer("MaxUnpool3d", of("MaxUnpool3d", 2), x(1, 1, 1, 1, 2), np.array([[[[[3, 14]]]]]))
