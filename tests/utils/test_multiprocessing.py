"""Processes under PyTorch's names: all end well, or the first that does not is told of."""

from __future__ import annotations

import multiprocessing as plain
import os
import signal
import time
from typing import Any

import pytest

import gradlite
from gradlite import multiprocessing as mp

pytestmark = pytest.mark.usefixtures("no_process_is_left")


def _send(i: int, results: Any, t: gradlite.Tensor) -> None:
    results.put((i, (t * i).tolist()))


def _fail(i: int, long: bool) -> None:
    if i == 1:
        raise ValueError("the reason" + "." * 200_000 * long)
    time.sleep(60)


def _leave(i: int, by_a_signal: bool) -> None:
    if i == 0 and by_a_signal:
        os.kill(os.getpid(), signal.SIGKILL)
    if i == 0:
        os._exit(3)
    time.sleep(60)


def _wait(i: int) -> None:
    time.sleep(60)


def test_all_end_well() -> None:
    results = plain.get_context("spawn").SimpleQueue()
    assert mp.spawn(_send, (results, gradlite.arange(3)), nprocs=2) is None
    assert sorted(results.get() for _ in range(2)) == [(0, [0, 0, 0]), (1, [0, 1, 2])]


def test_an_exception_ends_the_others() -> None:
    with pytest.raises(mp.ProcessRaisedException) as found:
        mp.start_processes(_fail, (False,), nprocs=2, start_method="fork")
    assert "-- Process 1 terminated with the following error:\nTraceback" in str(found.value)
    assert str(found.value).endswith("ValueError: the reason\n") and found.value.error_index == 1
    with pytest.raises(mp.ProcessRaisedException, match=r"Process 1 .*\n\.{1000}"):
        mp.start_processes(_fail, (True,), nprocs=2, start_method="fork")


def test_other_ends() -> None:
    with pytest.raises(mp.ProcessExitedException, match="process 0 terminated with exit code 3"):
        mp.start_processes(_leave, (False,), nprocs=2, start_method="fork")
    with pytest.raises(mp.ProcessExitedException, match="terminated with signal SIGKILL") as found:
        mp.start_processes(_leave, (True,), nprocs=2, start_method="fork")
    assert found.value.exit_code == -9 and found.value.signal_name == "SIGKILL"


def test_processes_that_are_not_waited_for() -> None:
    started = mp.start_processes(_wait, nprocs=2, join=False, daemon=True, start_method="fork")
    assert started is not None and started.join(timeout=0) is False
    assert started.pids() == [p.pid for p in started.processes] and started.processes[0].daemon
    started.processes[1].kill()
    with pytest.raises(mp.ProcessExitedException, match="process 1 terminated with signal SIGKILL"):
        started.join()
    assert not any(p.is_alive() for p in started.processes)


def test_python_s_own_names_are_there() -> None:
    assert mp.Queue == plain.Queue and set(plain.__all__) <= set(mp.__all__)
    assert gradlite.multiprocessing is mp
