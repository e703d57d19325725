"""CUDA kernels on a CPU, thread by thread, for tests alone."""

from tests.cuda_on_cpu.files import load
from tests.cuda_on_cpu.module import CpuModule, KernelError, compiler

__all__ = ["CpuModule", "KernelError", "compiler", "load"]
