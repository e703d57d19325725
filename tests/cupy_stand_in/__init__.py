"""A stand-in for CuPy on machines without a GPU, for tests alone.

`install` lets gradlite find it where it looks for CuPy, so that the whole CUDA backend runs:
dispatch, launches, memory, streams. Kernels run on ``tests/cuda_on_cpu``.
"""

from __future__ import annotations

import sys
import types
import weakref
from typing import Any

from gradlite.backends import bessel, gamma, incomplete_gamma, special
from tests.cuda_on_cpu import compiler
from tests.cupy_stand_in import kernels, runtime
from tests.cupy_stand_in.arrays import Array, _computed
from tests.cupy_stand_in.functions import MODULE, Ufunc, errstate

__all__ = ["MODULE", "Array", "install", "runtime"]

MODULE.cuda = runtime.CUDA
MODULE.ufunc = Ufunc
MODULE.get_default_memory_pool = lambda: runtime.pool
MODULE.get_default_pinned_memory_pool = lambda: runtime.pinned_pool
MODULE.RawModule, MODULE.RawKernel = kernels.RawModule, kernels.RawKernel


def _special(function: Any, module: Any) -> Any:
    def call(x: Any) -> Any:
        host = x.host  # and NumPy as that module has it: a recording puts another in its place
        return _computed(function.__name__, lambda: function(module.np, host), x)

    return call


CUPYX: Any = types.ModuleType("cupyx")
SCIPY: Any = types.ModuleType("cupyx.scipy")
SPECIAL: Any = types.ModuleType("cupyx.scipy.special")
CUPYX.empty_pinned = runtime.empty_pinned
CUPYX.errstate = errstate
SPECIAL.erf = _special(special.erf, special)
SPECIAL.erfc = _special(special.erfc, special)
SPECIAL.ndtr = _special(special.normal_cdf, special)
SPECIAL.erfinv = _special(special.erfinv, special)
for _bessel in ("i0", "i0e", "i1", "i1e"):
    setattr(SPECIAL, _bessel, _special(getattr(bessel, _bessel), bessel))
SPECIAL.gammaln, SPECIAL.digamma = _special(gamma.lgamma, gamma), _special(gamma.digamma, gamma)


def _polygamma(n: Any, x: Any) -> Any:
    order = int(n.host)  # CuPy takes no number here: it would compute with Python's own
    return _special(lambda xp, y: gamma.polygamma(xp, order, y), gamma)(x)


SPECIAL.polygamma = _polygamma


def _of_two(name: str, function: Any) -> Any:
    def call(a: Any, x: Any) -> Any:
        return _computed(name, lambda: function(incomplete_gamma.np, a.host, x.host), x, a)

    return call


SPECIAL.gammainc = _of_two("gammainc", incomplete_gamma.lower)
SPECIAL.gammaincc = _of_two("gammaincc", incomplete_gamma.upper)
CUPYX.scipy, SCIPY.special = SCIPY, SPECIAL


def install(monkeypatch: Any, devices: int = 1) -> Any:
    """Let gradlite find the stand-in where it looks for CuPy, until the test ends."""
    from gradlite import graph
    from gradlite.backends import cuda
    from gradlite.backends import kernels as launching
    from gradlite.cuda import streams
    from gradlite.ops import guard, namespaces

    runtime.reset(monkeypatch)
    monkeypatch.setattr(runtime, "COUNT", devices)
    for name, module in {
        "cupy": MODULE,
        "cupyx": CUPYX,
        "cupyx.scipy": SCIPY,
        "cupyx.scipy.special": SPECIAL,
        "nvmath": None,  # whatever is installed: it would take our addresses for a GPU's
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(cuda, "_cache", (True, ""))
    monkeypatch.setattr(cuda, "_handed_out", False)
    monkeypatch.setattr(launching, "check_all", True)
    # Which several devices replace, and several streams.
    for function in ("add", "add_in_place", "quiet", "loud"):
        monkeypatch.setattr(graph, function, getattr(graph, function))
    monkeypatch.setattr(streams, "_with_ops", weakref.WeakValueDictionary())
    monkeypatch.setattr(guard, "several", None)
    namespace = namespaces.of_cupy(MODULE)
    if compiler() is None:
        namespace.use(None)
    monkeypatch.setitem(namespaces.NAMESPACES, Array, namespace)
    return MODULE
