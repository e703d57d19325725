"""gradlite: autograd with PyTorch's semantics on NumPy and CuPy.

``import gradlite as torch`` runs a small PyTorch program.
"""

# ruff: noqa: F403
from gradlite import autograd, dtypes, linalg, nn, ops, optim, return_types, utils
from gradlite.autograd.anomaly import is_anomaly_check_nan_enabled, is_anomaly_enabled
from gradlite.device import device, get_default_device, set_default_device
from gradlite.dtypes import (
    double,
    dtype,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    long,
    promote_types,
    set_default_dtype,
    short,
    uint8,
)
from gradlite.dtypes import bool_ as bool
from gradlite.dtypes import float32 as float
from gradlite.dtypes import int32 as int
from gradlite.graph import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from gradlite.io import load, save
from gradlite.ops.activation import *
from gradlite.ops.arithmetic import *
from gradlite.ops.arrange import *
from gradlite.ops.bivariate import *
from gradlite.ops.blend import *
from gradlite.ops.choose import *
from gradlite.ops.creation import *
from gradlite.ops.cumulative import *
from gradlite.ops.elementwise import *
from gradlite.ops.extrema import *
from gradlite.ops.fill import *
from gradlite.ops.gather import *
from gradlite.ops.index import *
from gradlite.ops.logic import *
from gradlite.ops.matmul import *
from gradlite.ops.norms import *
from gradlite.ops.random import *
from gradlite.ops.reduce import *
from gradlite.ops.rounding import *
from gradlite.ops.scatter import *
from gradlite.ops.shape import *
from gradlite.ops.softmax import *
from gradlite.ops.sorting import *
from gradlite.ops.stacking import *
from gradlite.ops.statistics import *
from gradlite.ops.triangle import *
from gradlite.ops.trigonometry import *
from gradlite.ops.truth import *
from gradlite.printing import get_printoptions, printoptions, set_printoptions
from gradlite.random import Generator, default_generator
from gradlite.tensor import Size, Tensor

__version__ = "0.1.0"
