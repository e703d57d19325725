"""Mixed precision: `autocast` computes in half precision where that is safe, and `GradScaler` keeps
small gradients from vanishing in it."""

from gradlite.amp.autocast_mode import autocast, custom_bwd, custom_fwd, is_autocast_available
from gradlite.amp.grad_scaler import GradScaler

__all__ = ["GradScaler", "autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]
