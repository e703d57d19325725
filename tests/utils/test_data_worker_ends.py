"""A DataLoader's workers: errors, deaths, interrupts, and no process left."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import gradlite
from gradlite.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
)
from tests.utils.loading_workers import Numbers, Stream

# Two processors at most are taken for granted; more workers than processors only warn.
pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.usefixtures("no_process_is_left"),
]

ROOT = Path(__file__).parents[2]


def values(loader: Any) -> list[Any]:
    return [batch.tolist() for batch in loader]


# -- errors -------------------------------------------------------------------------------------


class PickyError(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(a, b)


class Failing(Numbers):
    def __init__(self, error: Any) -> None:
        super().__init__(6)
        self.error = error

    def __getitem__(self, index: int) -> int:
        if index == 2:
            raise self.error
        return index


def local_exception() -> Exception:
    class LocalError(Exception):
        pass

    return LocalError("made here")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("bad pixel"), ValueError),
        (KeyError("missing"), KeyError),
        (PickyError(1, 2), RuntimeError),
        (StopIteration(), RuntimeError),
        (local_exception(), RuntimeError),
    ],
)
def test_errors_come_back_with_the_workers_traceback(error: Any, expected: Any) -> None:
    iterator = iter(DataLoader(Failing(error), None, num_workers=2))
    assert [next(iterator), next(iterator)] == [0, 1]
    with pytest.raises(expected) as caught:
        next(iterator)
    text = str(caught.value)
    assert text.startswith(f"Caught {type(error).__name__} in DataLoader worker process 0.\n")
    assert "Original Traceback (most recent call last)" in text
    assert "raise self.error" in text and "test_data_worker_ends.py" in text
    # Later batches are not lost.
    assert list(iterator) == [3, 4, 5]


def test_error_message_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    messages = []
    for library in (torch, gradlite):
        loader = library.utils.data.DataLoader(Failing(ValueError("x")), None, num_workers=1)
        with pytest.raises(ValueError) as caught:
            list(loader)
        messages.append(str(caught.value).splitlines())
    assert messages[0][:2] == messages[1][:2] and messages[0][-1] == messages[1][-1]


def test_errors_of_worker_init_fn_and_iter() -> None:
    def fail(worker_id: int) -> None:
        raise ValueError("cannot start")

    with pytest.raises(ValueError, match="Caught ValueError in DataLoader worker process 0"):
        next(iter(DataLoader(Numbers(), num_workers=1, worker_init_fn=fail)))

    class Broken(IterableDataset[int]):
        def __iter__(self) -> Iterator[int]:
            raise OSError("no such stream")

    with pytest.raises(OSError, match="no such stream"):
        next(iter(DataLoader(Broken(), num_workers=1)))


def test_values_that_cannot_be_pickled() -> None:
    loader = DataLoader(Numbers(), None, num_workers=1, collate_fn=lambda x: lambda: x)
    with pytest.raises(Exception, match="in DataLoader worker process 0") as caught:
        next(iter(loader))
    assert "pickle" in str(caught.value)


def test_errors_of_the_sampler() -> None:
    def order() -> Iterator[int]:
        yield 0
        raise ValueError("lost the way")

    with pytest.raises(ValueError, match="lost the way"):
        list(DataLoader(Numbers(), sampler=order(), num_workers=1))


class Dying(Numbers):
    def __init__(self, how: Any) -> None:
        super().__init__(6)
        self.how = how

    def __getitem__(self, index: int) -> int:
        if index == 2:
            if isinstance(self.how, signal.Signals):
                os.kill(os.getpid(), self.how)
                time.sleep(30)
            os._exit(self.how)
        return index


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (3, "exited unexpectedly with exit code 3"),
        (signal.SIGKILL, r"is killed by signal: SIGKILL.*out of memory"),
        (signal.SIGTERM, "is killed by signal: SIGTERM"),
    ],
)
@pytest.mark.parametrize("num_workers", [1, 2])
def test_a_worker_that_dies_is_noticed(how: Any, reason: str, num_workers: int) -> None:
    loader = DataLoader(Dying(how), None, num_workers=num_workers)
    start = time.monotonic()
    with pytest.raises(RuntimeError, match=rf"DataLoader worker \(pid\(s\) \d+\) .*{reason}"):
        list(loader)
    assert time.monotonic() - start < 10
    assert not multiprocessing.active_children()


def test_a_persistent_loader_recovers_from_a_death(tmp_path: Path) -> None:
    flag = tmp_path / "died"

    class Once(Numbers):
        def __getitem__(self, index: int) -> int:
            if index == 2 and not flag.exists():
                flag.touch()
                os._exit(1)
            return index

    loader = DataLoader(Once(4), None, num_workers=1, persistent_workers=True)
    with pytest.raises(RuntimeError, match="exited unexpectedly"):
        list(loader)
    assert list(loader) == [0, 1, 2, 3]


def test_timeout() -> None:
    class Slow(Numbers):
        def __getitem__(self, index: int) -> int:
            time.sleep(2.0 if index == 1 else 0.0)
            return index

    iterator = iter(DataLoader(Slow(), None, num_workers=1, timeout=0.3))
    assert next(iterator) == 0
    with pytest.raises(RuntimeError, match=r"DataLoader timed out after 0\.3 seconds"):
        next(iterator)


# -- the life of workers ------------------------------------------------------------------------


class Pids(Dataset[int]):
    def __getitem__(self, index: int) -> int:
        return os.getpid()

    def __len__(self) -> int:
        return 8


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_workers_end_with_the_pass() -> None:
    loader = DataLoader(Pids(), None, num_workers=2)
    iterator = iter(loader)
    pids = set(iterator)
    assert len(pids) == 2 and os.getpid() not in pids
    assert not any(alive(pid) for pid in pids)
    with pytest.raises(StopIteration):
        next(iterator)


def test_workers_end_with_an_abandoned_iterator() -> None:
    class Endless(Pids):
        def __len__(self) -> int:
            return 10**9

    start = time.monotonic()
    pids = []
    for pid in DataLoader(Endless(), None, num_workers=2):
        pids.append(pid)
        if len(pids) == 2:
            break
    assert not any(alive(pid) for pid in pids)
    iterator = iter(DataLoader(Endless(), None, num_workers=1, prefetch_factor=50))
    pid = next(iterator)
    gc.disable()
    try:
        del iterator
        assert not alive(pid), "reference counting alone must end the workers"
    finally:
        gc.enable()
    assert time.monotonic() - start < 4


def test_workers_with_large_unread_batches_end_at_once() -> None:
    class Large(Numbers):
        def __getitem__(self, index: int) -> Any:
            return bytes(1 << 20)

    start = time.monotonic()
    loader = DataLoader(Large(), None, num_workers=2, prefetch_factor=4)
    iterator = iter(loader)
    assert len(next(iterator)) == 1 << 20
    del iterator
    assert time.monotonic() - start < 4


def test_a_stuck_worker_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradlite.utils.data import multiprocess

    monkeypatch.setattr(multiprocess, "_GRACE_SECONDS", 0.2)

    class Stuck(Numbers):
        def __getitem__(self, index: int) -> int:
            if index:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                time.sleep(60)
            return os.getpid()

    iterator = iter(DataLoader(Stuck(), None, num_workers=1))
    pid = next(iterator)
    time.sleep(0.3)
    del iterator
    assert not alive(pid)


def test_persistent_workers_stay() -> None:
    loader = DataLoader(Pids(), None, num_workers=2, persistent_workers=True)
    first, second = set(loader), set(loader)
    assert first == second and all(alive(pid) for pid in first)
    gc.disable()
    try:
        del loader
        assert not any(alive(pid) for pid in first)
    finally:
        gc.enable()


def test_persistent_workers_drop_what_a_break_left() -> None:
    loader = DataLoader(Numbers(), 2, num_workers=2, persistent_workers=True, prefetch_factor=4)
    expected = [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]]
    for _ in range(3):
        for batch in loader:
            assert batch.tolist() == [0, 1]
            break
    assert values(loader) == expected
    stream = DataLoader(Stream(0, 8), 2, num_workers=2, persistent_workers=True)
    for batch in stream:
        assert batch.tolist() == [0, 2]
        break
    assert values(stream) == values(stream) == [[0, 2], [1, 3], [4, 6], [5, 7]]


def test_persistent_workers_recover_from_an_error() -> None:
    loader = DataLoader(Failing(ValueError("x")), None, num_workers=1, persistent_workers=True)
    for _ in range(2):
        with pytest.raises(ValueError, match="Caught ValueError"):
            list(loader)


def test_two_loaders_at_once() -> None:
    train = DataLoader(Numbers(), 5, num_workers=1, persistent_workers=True)
    check = DataLoader(Numbers(4), 2, num_workers=1)
    for batch, pair in zip(train, check, strict=True):
        assert len(batch) == 5 and len(pair) == 2
    assert values(train) == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def run_script(text: str, **options: Any) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(text)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )


SCRIPT = """
    import os, time
    from gradlite.utils.data import DataLoader

    class Pids:
        def __getitem__(self, index):
            return os.getpid()
        def __len__(self):
            return 1000

    loader = DataLoader(Pids(), None, num_workers=2, persistent_workers={persistent})
    iterator = iter(loader)
    print(next(iterator), next(iterator), flush=True)
"""


@pytest.mark.parametrize("persistent", [True, False])
def test_exit_with_workers_running(persistent: bool) -> None:
    process = run_script(SCRIPT.format(persistent=persistent))
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and err == ""
    assert not any(alive(int(pid)) for pid in out.split())


def test_workers_notice_that_the_main_process_was_killed() -> None:
    process = run_script(SCRIPT.format(persistent=False) + "\n    time.sleep(60)")
    assert process.stdout is not None and process.stderr is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(running(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.stdout.close()
    process.stderr.close()
    assert not any(running(pid) for pid in pids)


def running(pid: int) -> bool:
    """Alive and not a zombie that waits for a reaper outside of this test."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_interrupt_ends_quietly() -> None:
    # A signal that comes just before it sleeps is seen when it wakes up: so it does soon.
    waits = "\n    for _ in range(600): time.sleep(0.1)"
    # Where the tests run in the background of a shell, the signal is ignored.
    heeded = "\n    import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    script = heeded + SCRIPT.format(persistent=False) + waits
    process = run_script(script, start_new_session=True)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert err.count("KeyboardInterrupt") == 1
    assert not any(running(pid) for pid in pids)
