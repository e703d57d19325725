"""Loss scaling on a GPU, under its deprecated name."""

from __future__ import annotations

import warnings

from gradlite import amp


class GradScaler(amp.GradScaler):
    """``amp.GradScaler("cuda", ...)``: deprecated.

    >>> import gradlite, warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     scaler = gradlite.cuda.amp.GradScaler(enabled=False)
    >>> scaler.scale(gradlite.tensor(2.0))
    tensor(2.)
    """

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        warnings.warn(
            "`gradlite.cuda.amp.GradScaler(args...)` is deprecated. "
            "Please use `gradlite.amp.GradScaler('cuda', args...)` instead.",
            FutureWarning,
            stacklevel=2,
        )
        super().__init__(
            "cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled
        )
