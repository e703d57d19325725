"""Modules, layers, losses and what goes with them."""

# ruff: noqa: F403, F405
from typing import TYPE_CHECKING

from gradlite.nn import attention as attention
from gradlite.nn import functional as functional
from gradlite.nn import init as init
from gradlite.nn import modules as modules
from gradlite.nn import parallel as parallel
from gradlite.nn import parameter as parameter
from gradlite.nn import utils as utils
from gradlite.nn.modules import *
from gradlite.nn.parallel import DataParallel as DataParallel
from gradlite.nn.parameter import Buffer as Buffer
from gradlite.nn.parameter import Parameter as Parameter
from gradlite.nn.parameter import UninitializedBuffer as UninitializedBuffer
from gradlite.nn.parameter import UninitializedParameter as UninitializedParameter

if not TYPE_CHECKING:  # type checkers follow the imports, and cannot add up lists of names
    __all__ = ["Buffer", "DataParallel", "Parameter", "functional", "init", "modules"]
    __all__ += ["parallel", "parameter", "utils"]
    __all__ += ["UninitializedBuffer", "UninitializedParameter"]
    __all__ += modules.__all__
