"""Cases of the layers of volumes, entered into the table of `tests.nn.cases`."""

from __future__ import annotations

from tests.nn.cases import layer, of
from tests.nn.inputs import grid, x

layer("Conv3d", of("Conv3d", 2, 3, 3), x(2, 2, 4, 5, 4))
layer("Conv3d unbatched", of("Conv3d", 2, 3, 3, padding="same"), x(2, 4, 3, 4))
layer("Conv3d circular", of("Conv3d", 2, 2, 2, 2, 1, padding_mode="circular"), x(2, 2, 4, 3, 4))
layer(
    "Conv3d with all",
    of("Conv3d", 4, 6, (3, 2, 2), (2, 1, 2), (1, 2, 0), (1, 2, 1), 2, False),
    x(2, 4, 5, 4, 5),
)
layer("ConvTranspose3d", of("ConvTranspose3d", 2, 3, 2), x(2, 2, 3, 4, 2))
layer(
    "ConvTranspose3d of a size",
    of("ConvTranspose3d", 2, 2, 3, stride=2, padding=1),
    x(2, 2, 2, 3, 2),
    kwargs={"output_size": [4, 5, 4]},
)
layer("MaxPool3d", of("MaxPool3d", 2), grid(2, 3, 4, 5, 4))
layer("MaxPool3d with all", of("MaxPool3d", (3, 2, 2), 2, 1, 1, False, True), grid(2, 4, 5, 4))
layer("MaxPool3d with indices", of("MaxPool3d", 2, 1, return_indices=True), grid(2, 3, 4, 3, 4))
layer("AvgPool3d", of("AvgPool3d", 2), x(2, 3, 4, 5, 4))
layer("AvgPool3d with all", of("AvgPool3d", (3, 2, 2), 2, 1, True, False), x(2, 4, 5, 4))
layer("AvgPool3d with a divisor", of("AvgPool3d", 2, divisor_override=3), x(2, 3, 4, 5, 4))
layer("AdaptiveAvgPool3d", of("AdaptiveAvgPool3d", (2, None, 3)), x(2, 3, 5, 2, 4))
layer("AdaptiveMaxPool3d", of("AdaptiveMaxPool3d", 2, return_indices=True), grid(2, 3, 5, 4, 4))
for name in ["Reflection", "Replication", "Circular"]:
    layer(f"{name}Pad3d", of(f"{name}Pad3d", (1, 2, 2, 1, 0, 1)), x(2, 2, 3, 3, 4))
