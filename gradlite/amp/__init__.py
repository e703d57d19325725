"""Mixed precision: `GradScaler` keeps small gradients from vanishing in half precision."""

from gradlite.amp.grad_scaler import GradScaler

__all__ = ["GradScaler"]
