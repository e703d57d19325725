"""Captured steps as compiled code: recorded calls are translated into C++ loops."""
