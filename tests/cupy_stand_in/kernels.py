"""``cupy.RawModule``: kernels run thread by thread on the CPU, from the source a GPU would get."""

from __future__ import annotations

from typing import Any

from tests.cuda_on_cpu import CpuModule
from tests.cupy_stand_in import runtime
from tests.cupy_stand_in.arrays import Array


class RawModule:
    """``cupy.RawModule``."""

    check = False  # whether accesses to memory are checked

    def __init__(self, *, code: str, options: tuple[str, ...]) -> None:
        self.code, self.options = code, options
        self.module: CpuModule | None = None

    def load(self) -> CpuModule:
        if self.module is None:
            try:
                self.module = CpuModule(
                    self.code, self.options, check=self.check, places=self.check
                )
            except RuntimeError as error:
                raise runtime.CompileException(str(error)) from None
        return self.module

    def get_function(self, name: str) -> RawKernel:
        kernel = RawKernel(self.code, name, self.options)
        kernel.module = self
        return kernel


class RawKernel:
    """``cupy.RawKernel``."""

    def __init__(self, code: str, name: str, options: tuple[str, ...] = ()) -> None:
        self.module, self.name = RawModule(code=code, options=options), name

    @property
    def kernel(self) -> Function:
        """The kernel as loaded on the current device."""
        return Function(self.module.load().get_function(self.name), runtime.current[0])


class Function:
    """``cupy.cuda.Function``."""

    streams: list[Any] | None = None  # of the launches, while a test has put a list here

    def __init__(self, run: Any, device: int) -> None:
        self.run, self.device = run, device

    def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0) -> None:
        if self.device != runtime.current[0]:
            raise RuntimeError("cudaErrorInvalidResourceHandle: loaded on another device")
        for arg in args:
            if isinstance(arg, Array) and arg.device.id != self.device:
                raise RuntimeError("cudaErrorIllegalAddress: the array is on another device")
        if Function.streams is not None:
            Function.streams.append(runtime.get_current_stream())
        hosts = [arg.host if isinstance(arg, Array) else arg for arg in args]
        capture = runtime.capturing()
        if capture is None:
            self.run(grid, block, hosts, shared_mem=shared_mem)
        else:
            run = self.run
            capture.add(run.name, lambda: run(grid, block, hosts, shared_mem=shared_mem), args)
