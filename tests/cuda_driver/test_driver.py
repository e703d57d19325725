"""The driver itself, with CuPy on it: right programs are right, and wrong ones are caught.

Each program has a process of its own, because a process has one driver.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.cuda_driver import MODES, build

pytestmark = [
    pytest.mark.skipif(build.why_not() is not None, reason=str(build.why_not())),
    pytest.mark.skipif(
        importlib.util.find_spec("cupy") is None, reason="runs CuPy, which is not installed here"
    ),
]
ROOT = Path(__file__).parents[2]
START = """
import numpy as np
from tests import cuda_driver
driver = cuda_driver.install("{mode}", devices={devices}, seed={seed})
import cupy, cupyx
runtime = cupy.cuda.runtime
def stream():
    return cupy.cuda.Stream(non_blocking=True)
def refused(call, word):
    try:
        call()
    except Exception as error:
        assert word in str(error), error
    else:
        raise AssertionError("it is not refused")
"""


def run(program: str, mode: str = "lazy", devices: int = 1, seed: int = 0) -> tuple[str, str]:
    """What a program prints, and what the driver says of it."""
    text = START.format(mode=mode, devices=devices, seed=seed) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr


# ---- programs that are right ------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_kernels_of_cupy_give_the_numbers_of_numpy(mode: str) -> None:
    run(
        """
        values = np.random.default_rng(0).normal(size=(7, 300)).astype("f4")
        x = cupy.asarray(values)
        for ours, theirs in [
            (x * 2 + x.T[0, 0], values * 2 + values[0, 0]),
            (cupy.sort(x, 1), np.sort(values, 1)),
            (cupy.argsort(x, 0), np.argsort(values, 0)),
            (x.argmax(1), values.argmax(1)),
            (x[:, ::3].astype("f2"), values[:, ::3].astype("f2")),
            (cupy.where(x > 0, x, 0), np.where(values > 0, values, 0)),
            (x[x > 1], values[values > 1]),
        ]:
            np.testing.assert_array_equal(ours.get(), theirs)
        for ours, theirs in [
            (x.sum(1), values.sum(1)), (x.cumsum(1), values.cumsum(1)), (x.std(), values.std()),
            (cupy.exp(x) / (1 + x * x), np.exp(values) / (1 + values * values)),
            (cupy.sinc(x), np.sinc(values)),
        ]:
            np.testing.assert_allclose(ours.get(), theirs, 2e-5, 2e-5)
        """,
        mode,
    )


def test_a_kernel_of_a_program_and_an_instance_of_its_template() -> None:
    text = r"""
        text = '''
        template <class T> __global__ void twice(const T* x, T* out) {
          extern __shared__ char memory[];
          T* parts = reinterpret_cast<T*>(memory);
          parts[threadIdx.x] = x[threadIdx.x];
          __syncthreads();
          out[threadIdx.x] = parts[threadIdx.x] + parts[blockDim.x - 1 - threadIdx.x];
        }'''
        module = cupy.RawModule(code=text, name_expressions=["twice<float>", "twice<double>"])
        for name, dtype in (("float", "f4"), ("double", "f8")):
            x = cupy.arange(64, dtype=dtype)
            out = cupy.empty_like(x)
            module.get_function(f"twice<{name}>")((1,), (64,), (x, out), shared_mem=512)
            assert (out == 63).all()
        refused(cupy.RawModule(code="no C++").compile, "error")
        kernel = module.get_function("twice<float>")
        refused(lambda: kernel((1,), (1025,), (x, x)), "invalid argument")
    """
    run(text)


def test_work_is_done_when_it_is_waited_for() -> None:
    said, _ = run(
        """
        x = cupy.zeros(4)
        event = cupy.cuda.Event()
        cupy.cuda.Device().synchronize()
        x += 1
        event.record()
        print(driver.cuda_driver_pending() > 0, event.done)
        event.synchronize()
        print(driver.cuda_driver_pending(), event.done)
        x += 1
        event.record()
        while not event.done:  # who asks again and again gets there
            pass
        print(float(x[0]))
        """
    )
    assert said.split() == ["True", "False", "0", "True", "2.0"]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_ordered_is_right_in_any_order(seed: int) -> None:
    run(
        """
        streams = [stream() for _ in range(4)]
        x = cupy.zeros(50)
        event = cupy.cuda.Stream.null.record()
        for i in range(40):
            s = streams[i * 7 % 4]
            with s:
                s.wait_event(event)
                x *= 2
                x += i
                event = s.record()
        event.synchronize()
        expected = 0
        for i in range(40):
            expected = 2 * expected + i
        assert (x.get() == expected).all()
        """,
        "random",
        seed=seed,
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_graph_of_two_streams(mode: str) -> None:
    run(
        """
        one, two = stream(), stream()
        x, y, z = cupy.ones(8), cupy.zeros(8), cupy.zeros(8)
        x + x, x * x  # compiled
        cupy.cuda.Device().synchronize()
        with one:
            one.begin_capture()
            cupy.multiply(x, x, out=y)
            two.wait_event(one.record())
            with two:
                cupy.add(y, y, out=z)
            one.wait_event(two.record())
            cupy.add(z, x, out=x)
            graph = one.end_capture()
        assert (x.get() == 1).all()
        for expected in (3, 21, 903):
            graph.launch(one)
            one.synchronize()
            assert (x.get() == expected).all(), x
        """,
        mode,
    )


def test_two_devices() -> None:
    run(
        """
        assert runtime.getDeviceCount() == 2
        x = cupy.arange(5)
        with cupy.cuda.Device(1):
            y = cupy.asarray(x.get()) * 2
            assert y.device.id == 1 and x.device.id == 0
            assert (y.get() == np.arange(5) * 2).all()
        """,
        devices=2,
    )


# ---- programs that are wrong, and right on most GPUs most of the time ---------------------------


@pytest.mark.parametrize("wait", [True, False])
def test_a_stream_that_does_not_wait_for_another(wait: bool) -> None:
    said, _ = run(
        f"""
        one, two = stream(), stream()
        x = cupy.zeros(1000)
        cupy.cuda.Device().synchronize()
        with one:
            x += 1
        if {wait}:
            two.wait_event(one.record())
        with two:
            y = x * 10
        two.synchronize()
        print(y.get()[0])
        """
    )
    assert said == ("10.0" if wait else "0.0")


@pytest.mark.parametrize("wait", [True, False])
def test_the_host_reads_before_a_copy_has_come(wait: bool) -> None:
    said, _ = run(
        f"""
        out = cupyx.empty_pinned(4, "f8")
        out[...] = -1
        s = stream()
        with s:
            (cupy.zeros(4) + 5).get(out=out, blocking=False)
            if {wait}:
                s.synchronize()
        print(out[0])
        """
    )
    assert said == ("5.0" if wait else "-1.0")


@pytest.mark.parametrize("wait", [True, False])
def test_page_locked_memory_that_is_written_before_it_has_been_read(wait: bool) -> None:
    said, _ = run(
        f"""
        source = cupyx.empty_pinned(4, "f8")
        source[...] = 1
        x = cupy.empty(4)
        x.set(source)
        if {wait}:
            cupy.cuda.Stream.null.synchronize()
        source[...] = 2
        print(x.get()[0])
        """
    )
    assert said == ("1.0" if wait else "2.0")


@pytest.mark.parametrize("wait", [True, False])
def test_page_locked_memory_that_is_freed_before_it_has_been_read(wait: bool) -> None:
    said, heard = run(
        f"""
        x = cupy.zeros(4)
        memory = runtime.hostAlloc(32, 0)
        runtime.memcpyAsync(x.data.ptr, memory, 32, runtime.memcpyHostToDevice, 0)
        if {wait}:
            runtime.deviceSynchronize()
        runtime.freeHost(memory)
        try:
            x.get()
        except runtime.CUDARuntimeError as error:
            print(error)
        """
    )
    assert ("illegal memory access" in said) is not wait
    assert ("a copy reads memory that has been freed since" in heard) is not wait


def test_memory_of_the_pool_that_another_stream_still_reads() -> None:
    said, _ = run(
        """
        one, two = stream(), stream()
        x = cupy.full(1000, 3.0)
        cupy.cuda.Device().synchronize()
        with two:
            y = x * 2  # waits for nothing, and nothing waits for it
        del x
        z = cupy.full(1000, 8.0)  # in the same memory
        cupy.cuda.Stream.null.synchronize()
        two.synchronize()
        print(y.get()[0])
        """
    )
    assert said == "16.0"


@pytest.mark.parametrize("recorded", [True, False])
def test_memory_waits_for_a_stream_that_is_recorded_of_a_tensor(recorded: bool) -> None:
    said, _ = run(
        f"""
        import gradlite
        side = gradlite.cuda.Stream()
        x = gradlite.full((1000,), 3.0, device="cuda")
        gradlite.cuda.synchronize()
        with gradlite.cuda.stream(side):
            y = x[:] * 2
        if {recorded}:
            x[1:].record_stream(side)
        del x
        z = gradlite.full((1000,), 8.0, device="cuda")
        gradlite.cuda.current_stream().synchronize()
        held = gradlite.cuda.memory_allocated()
        side.synchronize()
        print(y.cpu()[0].item())
        gradlite.cuda.empty_cache()
        print(held - gradlite.cuda.memory_allocated())
        """
    )
    assert said.split() == (["6.0", "4096"] if recorded else ["16.0", "0"])


@pytest.mark.parametrize("wait", [True, False])
def test_memory_that_a_stream_has_again_while_another_still_reads_it(wait: bool) -> None:
    said, _ = run(
        f"""
        home, side = stream(), stream()
        x, total = cupy.ones(1000), cupy.zeros(1000)
        cupy.cuda.Device().synchronize()
        for i in range(3):
            with side:
                if {wait}:
                    side.wait_event(home.record())
                batch = x * i
            with home:
                home.wait_event(side.record())
                total += batch
            del batch  # the side stream has its memory for the next one
        home.synchronize()
        print(total.get()[0])
        """
    )
    assert (said == "3.0") is wait


def test_what_nobody_has_written_is_no_number() -> None:
    said, _ = run("print(cupy.empty(1000, 'f4').get()[7])")
    assert said == "nan"


def test_a_kernel_that_fails_is_found_out_at_the_next_wait() -> None:
    said, heard = run(
        r"""
        text = 'extern "C" __global__ void wrong() { if (threadIdx.x) __trap(); }'
        cupy.RawKernel(text, "wrong")((1,), (2,), ())
        print("launched")
        for _ in range(2):  # CUDA is of no more use to the process
            refused(cupy.cuda.Device().synchronize, "illegal memory access")
        """
    )
    assert said == "launched"
    assert "the kernel wrong: __trap() (block 0,0,0 thread 1,0,0)" in heard


# ---- what CUDA refuses ------------------------------------------------------------------------


def test_what_a_capture_refuses() -> None:
    run(
        """
        def capture(body, word, how=runtime.streamCaptureModeGlobal):
            s = stream()
            with s:
                s.begin_capture(how)
                try:
                    refused(lambda: body(s), word)
                finally:
                    try:
                        s.end_capture()
                    except runtime.CUDARuntimeError:
                        pass

        x = cupy.zeros(4)
        host = np.zeros(4)
        copy = lambda s: runtime.memcpyAsync(
            x.data.ptr, host.ctypes.data, 32, runtime.memcpyHostToDevice, s.ptr
        )
        capture(copy, "capturing")
        capture(lambda s: s.synchronize(), "capturing")
        capture(lambda s: runtime.malloc(1 << 20), "capturing")
        capture(lambda s: runtime.deviceSynchronize(), "capturing")
        before = cupy.cuda.Event()
        before.record(stream())
        capture(lambda s: s.wait_event(before), "uncaptured work")

        def forgotten(s):
            other = stream()
            other.wait_event(s.record())
            with other:
                x.fill(1)
            s.end_capture()

        x.fill(0)
        capture(forgotten, "unjoined")
        memory = []
        s = stream()
        s.begin_capture(runtime.streamCaptureModeRelaxed)
        memory.append(runtime.malloc(1 << 20))
        s.end_capture()
        """
    )
