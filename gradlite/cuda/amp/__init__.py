"""Mixed precision under its deprecated names: `gradlite.amp` is for any device."""

from gradlite.cuda.amp.autocast_mode import autocast, custom_bwd, custom_fwd
from gradlite.cuda.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd"]
