"""The tests mirror the package. One thread for BLAS, set before NumPy is imported anywhere."""

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")
