"""How many threads NumPy's matrix products use in a run."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from gradlite.cli.errors import optional

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def one_blas_thread() -> contextlib.AbstractContextManager[Any]:
    """Inside, BLAS runs on one thread, unless the environment asks for a number of them.

    The matrices here are small. On idle cores a second thread gains little, but where another
    process takes its core the first one waits for it in every product, and the run becomes several
    times slower. Needs threadpoolctl, which comes with scikit-learn; without it nothing changes.
    """
    threadpoolctl = optional("threadpoolctl")
    if threadpoolctl is None or any(os.environ.get(name) for name in VARIABLES):
        return contextlib.nullcontext()
    limits: contextlib.AbstractContextManager[Any] = threadpoolctl.threadpool_limits(1, "blas")
    return limits
