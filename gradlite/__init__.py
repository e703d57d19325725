"""gradlite: autograd with PyTorch's semantics on NumPy and CuPy.

``import gradlite as torch`` runs a small PyTorch program.
"""

# ruff: noqa: F401, F403
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from gradlite import accelerator as accelerator
from gradlite import amp as amp
from gradlite import autograd as autograd
from gradlite import compiler as compiler
from gradlite import copying as copying
from gradlite import cuda as cuda
from gradlite import distributed as distributed
from gradlite import dtypes as dtypes
from gradlite import func as func
from gradlite import jit as jit
from gradlite import linalg as linalg
from gradlite import nn as nn
from gradlite import onnx as onnx
from gradlite import ops as ops
from gradlite import optim as optim
from gradlite import profiler as profiler
from gradlite import return_types as return_types
from gradlite import special as special
from gradlite import testing as testing
from gradlite import utils as utils
from gradlite import version as version
from gradlite.amp import autocast as autocast
from gradlite.autocast_mode import clear_autocast_cache as clear_autocast_cache
from gradlite.autocast_mode import get_autocast_dtype as get_autocast_dtype
from gradlite.autocast_mode import is_autocast_cache_enabled as is_autocast_cache_enabled
from gradlite.autocast_mode import is_autocast_enabled as is_autocast_enabled
from gradlite.autocast_mode import set_autocast_cache_enabled as set_autocast_cache_enabled
from gradlite.autocast_mode import set_autocast_dtype as set_autocast_dtype
from gradlite.autocast_mode import set_autocast_enabled as set_autocast_enabled
from gradlite.autograd import profiler as _autograd_profiler
from gradlite.autograd.anomaly import is_anomaly_check_nan_enabled as is_anomaly_check_nan_enabled
from gradlite.autograd.anomaly import is_anomaly_enabled as is_anomaly_enabled
from gradlite.backends.cuda import OutOfMemoryError as OutOfMemoryError
from gradlite.backends.precision import (
    get_float32_matmul_precision as get_float32_matmul_precision,
)
from gradlite.backends.precision import (
    set_float32_matmul_precision as set_float32_matmul_precision,
)
from gradlite.backends.threads import get_num_threads as get_num_threads
from gradlite.backends.threads import set_flush_denormal as set_flush_denormal
from gradlite.backends.threads import set_num_threads as set_num_threads
from gradlite.capturing import CaptureError as CaptureError
from gradlite.capturing import capture as capture
from gradlite.changes import Noticing as _Noticing
from gradlite.compiler import compile as compile
from gradlite.cuda import amp as _cuda_amp
from gradlite.description import Size as Size
from gradlite.determinism import (
    are_deterministic_algorithms_enabled as are_deterministic_algorithms_enabled,
)
from gradlite.determinism import (
    is_deterministic_algorithms_warn_only_enabled as is_deterministic_algorithms_warn_only_enabled,
)
from gradlite.determinism import use_deterministic_algorithms as use_deterministic_algorithms
from gradlite.device import device as device
from gradlite.device import get_default_device as get_default_device
from gradlite.device import set_default_device as set_default_device
from gradlite.dtypes import bfloat16 as bfloat16
from gradlite.dtypes import bool_ as bool
from gradlite.dtypes import double as double
from gradlite.dtypes import dtype as dtype
from gradlite.dtypes import finfo as finfo
from gradlite.dtypes import float16 as float16
from gradlite.dtypes import float32 as float
from gradlite.dtypes import float32 as float32
from gradlite.dtypes import float64 as float64
from gradlite.dtypes import get_default_dtype as get_default_dtype
from gradlite.dtypes import half as half
from gradlite.dtypes import iinfo as iinfo
from gradlite.dtypes import int8 as int8
from gradlite.dtypes import int16 as int16
from gradlite.dtypes import int32 as int
from gradlite.dtypes import int32 as int32
from gradlite.dtypes import int64 as int64
from gradlite.dtypes import long as long
from gradlite.dtypes import promote_types as promote_types
from gradlite.dtypes import set_default_dtype as set_default_dtype
from gradlite.dtypes import short as short
from gradlite.dtypes import uint8 as uint8
from gradlite.func import vmap as vmap
from gradlite.functions import *
from gradlite.grad_mode import enable_grad as enable_grad
from gradlite.grad_mode import inference_mode as inference_mode
from gradlite.grad_mode import is_grad_enabled as is_grad_enabled
from gradlite.grad_mode import is_inference_mode_enabled as is_inference_mode_enabled
from gradlite.grad_mode import no_grad as no_grad
from gradlite.grad_mode import set_grad_enabled as set_grad_enabled
from gradlite.io import load as load
from gradlite.io import save as save
from gradlite.linalg import chain_matmul as chain_matmul
from gradlite.low_rank import *
from gradlite.memory_format import *
from gradlite.ops.activation import *
from gradlite.ops.addmm import *
from gradlite.ops.arguments import take_arguments as _take_arguments
from gradlite.ops.arithmetic import *
from gradlite.ops.arrange import *
from gradlite.ops.assemble import *
from gradlite.ops.bessel import *
from gradlite.ops.bivariate import *
from gradlite.ops.blend import *
from gradlite.ops.buffers import *
from gradlite.ops.calculus import *
from gradlite.ops.cdist import *
from gradlite.ops.chances import *
from gradlite.ops.choose import *
from gradlite.ops.comparison import *
from gradlite.ops.contraction import *
from gradlite.ops.correlation import *
from gradlite.ops.creation import *
from gradlite.ops.cumulative import *
from gradlite.ops.einsum import *
from gradlite.ops.elementwise import *
from gradlite.ops.expansion import *
from gradlite.ops.extrema import *
from gradlite.ops.fill import *
from gradlite.ops.floats import *
from gradlite.ops.gather import *
from gradlite.ops.incomplete_gamma import *
from gradlite.ops.index import *
from gradlite.ops.joining import *
from gradlite.ops.least_squares import *
from gradlite.ops.like import *
from gradlite.ops.linear_systems import *
from gradlite.ops.logic import *
from gradlite.ops.matmul import *
from gradlite.ops.matrix_functions import *
from gradlite.ops.methods import *
from gradlite.ops.norms import *
from gradlite.ops.older_linalg import *
from gradlite.ops.out import take_out as _take_out
from gradlite.ops.piecewise import *
from gradlite.ops.powers import *
from gradlite.ops.quantile import *
from gradlite.ops.random import *
from gradlite.ops.reduce import *
from gradlite.ops.rounding import *
from gradlite.ops.scatter import *
from gradlite.ops.scatter_reduce import *
from gradlite.ops.shape import *
from gradlite.ops.softmax import *
from gradlite.ops.sorting import *
from gradlite.ops.special import *
from gradlite.ops.stacking import *
from gradlite.ops.statistics import *
from gradlite.ops.triangle import *
from gradlite.ops.triangular import *
from gradlite.ops.trigonometry import *
from gradlite.ops.truth import *
from gradlite.ops.variates import *
from gradlite.printing import get_printoptions as get_printoptions
from gradlite.printing import printoptions as printoptions
from gradlite.printing import set_printoptions as set_printoptions
from gradlite.random import Generator as Generator
from gradlite.random import default_generator as default_generator
from gradlite.tensor import Tensor as Tensor
from gradlite.tensor import is_tensor as is_tensor
from gradlite.tensor_types import *
from gradlite.version import __version__ as __version__

if _TYPE_CHECKING:
    from gradlite import distributions as distributions

_take_out(globals(), without=("det",))
_take_arguments(globals())

# Methods that change a tensor, as functions.
globals().update(
    (name, getattr(Tensor, name))
    for name in (
        "abs_ acos_ acosh_ addmv_ arccos_ arccosh_ arcsin_ arcsinh_ arctan_ arctanh_ asin_ asinh_ "
        "atan_ atanh_ ceil_ clamp_ clamp_max_ clamp_min_ clip_ cos_ cosh_ deg2rad_ detach_ erf_ "
        "erfc_ exp2_ exp_ expm1_ fill_ fix_ floor_ frac_ gcd_ index_put_ lcm_ ldexp_ log10_ log1p_ "
        "log2_ log_ logit_ nan_to_num_ neg_ negative_ rad2deg_ reciprocal_ resize_as_ round_ "
        "rsqrt_ sigmoid_ sin_ sinc_ sinh_ sqrt_ square_ tan_ tanh_ trunc_ xlogy_ zero_"
    ).split()
)

# Where programs put functions of their own in place of the library's: captured steps notice.
for _name in ("", ".autograd", ".func", ".linalg", ".nn", ".nn.functional", ".nn.init", ".special"):
    _import_module(f"gradlite{_name}").__class__ = _Noticing


# What programs ask for that is not here, and what there is instead.
_NO_COMPLEX = "there are no complex numbers"
_INSTEAD = {
    "as_strided": "Tensor.unfold() gives sliding windows, diagonal() and movedim() other views",
    "quantization": "there are no quantized tensors",
    **dict.fromkeys(
        ("complex", "complex64", "complex128", "cfloat", "cdouble"),
        f"{_NO_COMPLEX}: keep real and imaginary parts in a last dimension",
    ),
    **dict.fromkeys(
        ("polar", "view_as_complex", "view_as_real"),
        f"{_NO_COMPLEX}: turn pairs of numbers by the cos() and sin() of an angle",
    ),
    **dict.fromkeys(
        ("fft", "stft", "istft"),
        f"{_NO_COMPLEX}; numpy.fft takes tensors through Tensor.numpy()",
    ),
    **dict.fromkeys(
        ("sparse", "sparse_coo_tensor", "sparse_csr_tensor"),
        "there are no sparse tensors: index_add() and scatter_add() sum by index",
    ),
}


def __getattr__(name):  # type: ignore[no-untyped-def]  # or every name would be an attribute
    """Subpackages that most programs do not need are imported when they are asked for."""
    if name in ("distributions", "multiprocessing", "onnx"):
        return _import_module(f"gradlite.{name}")
    instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
    raise AttributeError(f"module 'gradlite' has no attribute {name!r}{instead}")
