"""Array libraries under the tensors: NumPy for the CPU, CuPy for CUDA."""

from gradlite.backends import cudnn as cudnn
from gradlite.backends import mps as mps
