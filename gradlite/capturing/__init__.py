"""Capture: a training step recorded once, below the tensors, and replayed."""

from gradlite.capturing.step import CapturedStep, CaptureError, capture

__all__ = ["CaptureError", "CapturedStep", "capture"]
