"""The layers, one file per family."""

# ruff: noqa: F403
from typing import TYPE_CHECKING

from gradlite.nn.module import Module as Module
from gradlite.nn.modules import (
    activation,
    adaptive,
    attention,
    batchnorm,
    container,
    conv,
    distance,
    dropout,
    flatten,
    fold,
    instancenorm,
    lazy_layers,
    linear,
    loss,
    loss_margin,
    normalization,
    padding,
    parameters,
    pooling,
    pooling_more,
    rnn,
    rnn_cell,
    shuffle,
    sparse,
    transformer,
    upsampling,
)
from gradlite.nn.modules import lazy as lazy
from gradlite.nn.modules import module as module
from gradlite.nn.modules.activation import *
from gradlite.nn.modules.adaptive import *
from gradlite.nn.modules.attention import *
from gradlite.nn.modules.batchnorm import *
from gradlite.nn.modules.container import *
from gradlite.nn.modules.conv import *
from gradlite.nn.modules.distance import *
from gradlite.nn.modules.dropout import *
from gradlite.nn.modules.flatten import *
from gradlite.nn.modules.fold import *
from gradlite.nn.modules.instancenorm import *
from gradlite.nn.modules.lazy_layers import *
from gradlite.nn.modules.linear import *
from gradlite.nn.modules.loss import *
from gradlite.nn.modules.loss_margin import *
from gradlite.nn.modules.normalization import *
from gradlite.nn.modules.padding import *
from gradlite.nn.modules.parameters import *
from gradlite.nn.modules.pooling import *
from gradlite.nn.modules.pooling_more import *
from gradlite.nn.modules.rnn import *
from gradlite.nn.modules.rnn_cell import *
from gradlite.nn.modules.shuffle import *
from gradlite.nn.modules.sparse import *
from gradlite.nn.modules.transformer import *
from gradlite.nn.modules.upsampling import *

if not TYPE_CHECKING:  # another `utils` than `gradlite.nn.utils`
    from gradlite.nn.modules import utils as utils

if not TYPE_CHECKING:  # type checkers follow the imports, and cannot add up lists of names
    __all__ = ["Module"]
    __all__ += activation.__all__
    __all__ += adaptive.__all__
    __all__ += attention.__all__
    __all__ += batchnorm.__all__
    __all__ += container.__all__
    __all__ += conv.__all__
    __all__ += distance.__all__
    __all__ += dropout.__all__
    __all__ += flatten.__all__
    __all__ += fold.__all__
    __all__ += instancenorm.__all__
    __all__ += lazy_layers.__all__
    __all__ += linear.__all__
    __all__ += loss.__all__
    __all__ += loss_margin.__all__
    __all__ += normalization.__all__
    __all__ += padding.__all__
    __all__ += parameters.__all__
    __all__ += pooling.__all__
    __all__ += pooling_more.__all__
    __all__ += rnn.__all__
    __all__ += rnn_cell.__all__
    __all__ += shuffle.__all__
    __all__ += sparse.__all__
    __all__ += transformer.__all__
    __all__ += upsampling.__all__
