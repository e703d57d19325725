"""``out=``: results written into tensors that are there, for the functions that take it.

The functions of the namespaces that users see are wrapped (`take_out`), not those that the package
itself calls: neither these nor the methods, which take no ``out`` in PyTorch either, pay for it.
The result is computed as without ``out`` and copied.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from gradlite import dtypes
from gradlite.grad_mode import is_grad_enabled, no_grad
from gradlite.memory_format import strided
from gradlite.ops.arguments import check_tensors, settle
from gradlite.ops.casting import tensors_of
from gradlite.ops.fill import copy_
from gradlite.ops.inplace import check_inplace, refuse_overlap
from gradlite.ops.methods import resize_
from gradlite.ops.op import c_name, type_name
from gradlite.tensor import Tensor

# The result is cast, where its category allows that: bool to int to float, never back.
CAST = """
    acos acosh add addcdiv addcmul addr all angle any arccos arccosh arcsin arcsinh arctan arctan2
    arctanh asin asinh atan atan2 atanh bernoulli bitwise_and bitwise_left_shift bitwise_or
    bitwise_right_shift bitwise_xor cat cholesky clamp clamp_max clamp_min clip column_stack concat
    concatenate copysign cos cosh deg2rad diff digamma div divide dstack entr eq erf erfc erfinv exp
    exp2 expit expm1 floor_divide fmax fmin fmod gammainc gammaincc gammaln gcd ge ger greater
    greater_equal gt hstack hypot igamma igammac inner kron lcm ldexp le lerp less less_equal lgamma
    log log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit
    logsumexp lt matrix_power max maximum mean min minimum mul multigammaln multiply mvlgamma
    nanmean ndtr ndtri ne nextafter normal not_equal outer poisson polygamma pow psi rad2deg
    reciprocal remainder row_stack rsqrt sigmoid sin sinc sinh sqrt square stack std sub subtract
    tan tanh threshold true_divide var vecdot vstack xlog1py xlogy
""".split()
# The result's own dtype alone.
SAME = """
    abs absolute addbmm addmm addmv amax amin aminmax argmax argmin argsort baddbmm bitwise_not bmm
    bucketize ceil cross cummax cummin det diag dot fix float_power floor frac frexp gather
    hardshrink heaviside histc histogram index_add index_copy index_reduce index_select inv inverse
    isin isneginf isposinf kthvalue log_softmax logcumsumexp masked_select matmul matrix_norm median
    mm mode msort multi_dot multinomial mv nan_to_num nanmedian nanquantile neg negative nonzero
    norm quantile renorm round scatter scatter_add scatter_reduce searchsorted sgn sign signbit
    slice_scatter slogdet softmax solve sort take take_along_dim tensordot topk tril triu trunc vdot
    vector_norm where
""".split()
# Made or computed in the dtype of ``out``.
IN_ITS_DTYPE = """
    arange cumprod cumsum empty eye full linspace logspace nansum ones prod rand randint randn
    randperm sum zeros
""".split()
SAME_DTYPE, ITS_DTYPE = frozenset(SAME), frozenset(IN_ITS_DTYPE)
NAMES = SAME_DTYPE | ITS_DTYPE | frozenset(CAST)
MAKERS = ITS_DTYPE.difference(["cumprod", "cumsum", "nansum", "prod", "sum"])
IN_A_ROW = frozenset(["arange", "linspace", "logspace"])  # fill a tensor of any shape
# Not even the very tensor that is read may be written.
READ_BEFORE = frozenset("gather kthvalue masked_select take".split())
JOINS = frozenset(
    "cat column_stack concat concatenate dstack hstack row_stack stack vstack".split()
)


def take_out(namespace: dict[str, Any], without: Iterable[str] = (), prefix: str = "") -> None:
    """Let the public functions of a namespace that are among `NAMES` take ``out``, but for some.

    ``prefix`` is what PyTorch puts in front of their names in messages about arguments.
    """
    for name in NAMES.intersection(namespace.get("__all__", namespace)).difference(without):
        wrapper = making if name in MAKERS else taking_out
        settle(wrapper(namespace[name], name, prefix), name, namespace)


def making(function: Callable[..., Any], name: str, prefix: str) -> Callable[..., Any]:
    """A function that makes tensors, and takes ``out``, ``layout`` and ``pin_memory``, too."""
    make = taking_out(function, name, prefix)

    @functools.wraps(function)
    def call(*args: Any, layout: Any = None, pin_memory: bool = False, **kwargs: Any) -> Any:
        if layout is not None and layout is not strided:
            raise NotImplementedError(f"{name}(): there is no layout but gradlite.strided")
        result = make(*args, **kwargs)
        return result.pin_memory() if pin_memory else result

    call.takes_out = True  # type: ignore[attr-defined]
    return call


def taking_out(function: Callable[..., Any], name: str, prefix: str = "") -> Callable[..., Any]:
    """A function that takes ``out``, too."""

    @functools.wraps(function)
    def call(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if out is None:
            try:
                return function(*args, **kwargs)
            except Exception:
                check_tensors(function, name, args, kwargs, prefix)
                raise
        return _into(out, function, name, args, kwargs)

    call.takes_out = True  # type: ignore[attr-defined]
    return call


def _into(out: Any, function: Callable[..., Any], name: str, args: Any, kwargs: Any) -> Any:
    outs = out if isinstance(out, (tuple, list)) else (out,)
    for place in outs:
        if not isinstance(place, Tensor):
            raise TypeError(
                f"{name}(): argument 'out' must be Tensor, not {place.__class__.__name__}"
            )
    inputs = list(tensors_of((args, kwargs)))
    if is_grad_enabled() and any(t.requires_grad for t in (*inputs, *outs)):
        raise RuntimeError(
            f"{name}(): functions with out=... arguments don't support automatic differentiation, "
            "but one of the arguments requires grad."
        )
    if kwargs.get("as_tuple"):
        raise RuntimeError("nonzero does not support the out kwarg when as_tuple is True")
    if name in ITS_DTYPE:
        kwargs = {**kwargs, **_its_own(outs[0], kwargs, placed=not inputs)}
    with no_grad():
        result = function(*args, **kwargs)
        if isinstance(result, Tensor):
            if outs is out:
                raise TypeError(
                    f"{name}(): argument 'out' must be Tensor, not {out.__class__.__name__}"
                )
            return _written(out, result, name, inputs)
        if outs is not out:
            raise TypeError(f"{name}(): argument 'out' must be tuple of Tensors, not Tensor")
        if len(outs) != len(result):
            raise TypeError(f"expected tuple of {len(result)} elements but got {len(outs)}")
        for place, part in zip(outs, result):
            _check_dtype(place, part, name, True)
        written = [_written(place, part, name, inputs) for place, part in zip(outs, result)]
    return result._make(written) if hasattr(result, "_make") else result.__class__(written)


def _its_own(out: Tensor, kwargs: Any, placed: bool) -> dict[str, Any]:
    """The dtype to compute in, and the device to do it on where no argument says that."""
    dtype = kwargs.get("dtype")
    if placed and dtype is not None and dtype != out.dtype:
        asked, given = (type_name(dtypes.as_dtype(d).numpy) for d in (dtype, out.dtype))
        raise RuntimeError(f"dtype {asked} does not match dtype of out parameter ({given})")
    if not placed:
        return {"dtype": out.dtype if dtype is None else dtype}
    device = kwargs.get("device")
    return {"dtype": out.dtype, "device": out.device if device is None else device}


def _check_dtype(out: Tensor, result: Tensor, name: str, same: bool) -> None:
    wanted, given = result.array.dtype, out.array.dtype
    if wanted == given:
        return
    if name == "nonzero":
        raise RuntimeError(
            "nonzero: Expected out tensor to have scalar type Long but got scalar type"
            f"{type_name(given)}"
        )
    if same:
        raise RuntimeError(
            f"Expected out tensor to have dtype {c_name(wanted)}, but got {c_name(given)} instead"
        )
    if name in ("all", "any"):
        if given.name in ("bool", "uint8"):
            return
        raise RuntimeError(f"{name} only supports bool tensor for result, got: {type_name(given)}")
    if name in ITS_DTYPE or name == "bernoulli":
        return
    if dtypes.category(wanted) > dtypes.category(given):
        if name in JOINS:
            raise TypeError(
                "gradlite.cat(): input types can't be cast to the desired output type "
                f"{type_name(given)}"
            )
        raise RuntimeError(
            f"result type {type_name(wanted)} can't be cast to the desired output type "
            f"{type_name(given)}"
        )


def _written(out: Tensor, result: Tensor, name: str, inputs: list[Tensor]) -> Tensor:
    """A tensor with a result in it, in the result's shape."""
    _check_dtype(out, result, name, name in SAME_DTYPE)
    if out.array.__class__ is not result.array.__class__ or out.device != result.device:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, "
            f"{result.device} and {out.device}!"
        )
    if name in IN_A_ROW and out.array.size == result.array.size:
        result = result.reshape(out.array.shape)  # type: ignore[attr-defined]
    if out.array.shape != result.array.shape:
        if out.array.size:
            warnings.warn(RESIZED.format(list(out.shape), list(result.shape)), stacklevel=4)
        resize_(out, *result.array.shape)
    check_inplace(out)
    for read in inputs:
        refuse_overlap(out, read, same_too=name in READ_BEFORE)
    return copy_(out, result)


RESIZED = (
    "An output with one or more elements was resized since it had shape {}, which does not match "
    "the required output shape {}. This behavior is deprecated, and in a future PyTorch release "
    "outputs will not be resized unless they have zero elements. You can explicitly reuse an out "
    "tensor t by resizing it, inplace, to zero elements with t.resize_(0)."
)
