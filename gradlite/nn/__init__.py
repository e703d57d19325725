"""Modules, layers, losses and what goes with them."""

# ruff: noqa: F403, F405
from gradlite.nn import functional, init, modules, parameter, utils
from gradlite.nn.modules import *
from gradlite.nn.parameter import Buffer, Parameter

__all__ = ["Buffer", "Parameter", "functional", "init", "modules", "parameter", "utils"]
__all__ += modules.__all__
