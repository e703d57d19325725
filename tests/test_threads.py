"""The threads of compiled code: every chunk once, the same results, no races."""

from __future__ import annotations

import os
import subprocess
import threading
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.backends import native
from gradlite.backends.threads import MOST
from gradlite.capturing.native.build import available
from gradlite.nn import functional as F
from tests.oracle import same

needs_compiler = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")

# Chunks counted while callers, and the number of threads, change. ThreadSanitizer sees all of it.
PROGRAM = r"""
#include <cstdio>
#include <set>
#include <vector>
struct Job { std::vector<int> hits; std::mutex lock; std::set<std::thread::id> who; int wait; };
static void chunk(void* with, long long number) {
  Job& job = *(Job*)with;
  job.hits[number]++;
  if (job.wait) {
    std::this_thread::sleep_for(std::chrono::milliseconds(job.wait));
    std::lock_guard<std::mutex> lock(job.lock);
    job.who.insert(std::this_thread::get_id());
  }
}
static int run(int chunks, int wait = 0) {
  Job job;
  job.hits.resize(chunks);
  job.wait = wait;
  gradlite_run(chunk, &job, chunks);
  for (int hits : job.hits) {
    if (hits != 1) { std::printf("a chunk ran %d times\n", hits); std::exit(1); }
  }
  return (int)job.who.size();
}
int main() {
  for (int count : {1, 2, 4, 3}) {
    gradlite_threads(count);
    for (int round = 0; round < 2000; round++) {
      run(1 + round % 37);
      if (round % 500 == 499) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));  // they fall asleep
        gradlite_threads(1 + round / 500);
        gradlite_threads(count);
      }
    }
    const int helped = run(16, 5);
    if (helped != count) { std::printf("%d of %d threads worked\n", helped, count); return 1; }
  }
  std::thread one([] { for (int r = 0; r < 2000; r++) run(9); });
  std::thread other([] { for (int r = 0; r < 2000; r++) run(7); });
  one.join();
  other.join();
  return 0;
}
"""


@pytest.fixture(autouse=True)
def as_before() -> Any:
    before = gradlite.get_num_threads()
    yield
    gradlite.set_num_threads(before)


@needs_compiler
@pytest.mark.parametrize("options", [[], ["-fsanitize=thread", "-g"]], ids=["plain", "sanitizer"])
def test_each_chunk_is_run_once(options: list[str], tmp_path: Path) -> None:
    text = files("gradlite.backends").joinpath("team.hpp").read_text("utf-8") + PROGRAM
    program = tmp_path / "program"
    compiler = native.compiler()
    assert compiler is not None
    command = [compiler, "-std=c++17", "-O1", "-pthread", *options, "-x", "c++", "-", "-o", program]
    made = subprocess.run(command, input=text, capture_output=True, text=True)
    if made.returncode and options:
        pytest.skip(f"the compiler has no ThreadSanitizer: {made.stderr[-200:]}")
    assert made.returncode == 0, made.stderr
    done = subprocess.run([program], capture_output=True, text=True, timeout=300)
    if "FATAL: ThreadSanitizer: unexpected memory mapping" in done.stderr:
        pytest.skip("ThreadSanitizer does not run under this kernel's address layout")
    assert done.returncode == 0, done.stdout + done.stderr


class Net(nn.Module):
    """Large enough that its products, convolutions, loops and updates are shared out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 32, 3, padding=1)
        self.one, self.other = nn.Linear(32 * 14 * 14, 96), nn.Linear(96, 10)

    def forward(self, x: Any) -> Any:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.other(F.gelu(self.one(x.flatten(1))))


def weights_after(threads: int, optimizer: Any, steps: int = 6) -> list[Any]:
    gradlite.set_num_threads(threads)
    gradlite.manual_seed(0)
    net = Net()
    update = optimizer(net.parameters())

    def step(x: Any, y: Any) -> Any:
        update.zero_grad()
        loss = F.cross_entropy(net(x), y)
        loss.backward()
        update.step()
        return loss

    captured = gradlite.capture(step, native=True)
    x, y = gradlite.randn(32, 4, 28, 28), gradlite.randint(0, 10, (32,))
    for _ in range(steps):
        captured(x, y)
    assert captured.replays == steps - 3
    return [p.detach().numpy().copy() for p in net.parameters()]


OPTIMIZERS = {
    "adam": lambda p: optim.Adam(p, lr=1e-3),
    "sgd": lambda p: optim.SGD(p, lr=1e-2),
    "nesterov": lambda p: optim.SGD(p, lr=1e-2, momentum=0.9, nesterov=True),
}


@needs_compiler
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_results_are_those_of_one_thread(name: str) -> None:
    one = weights_after(1, OPTIMIZERS[name])
    for threads in (2, 5):
        many = weights_after(threads, OPTIMIZERS[name])
        again = weights_after(threads, OPTIMIZERS[name])
        for a, b, c in zip(one, many, again):
            np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-6)
            np.testing.assert_array_equal(b, c)  # whoever was free for which chunk


@needs_compiler
def test_a_product_is_the_same_to_the_bit() -> None:
    generator = np.random.default_rng(0)
    shapes = [((300, 400), (400, 500)), ((2000, 300), (300, 40)), ((333, 301), (301, 217))]
    for left, right in shapes:
        a, b = (
            gradlite.tensor(generator.standard_normal(s).astype(np.float32)) for s in (left, right)
        )
        for product in (lambda a, b: a @ b, lambda a, b: a @ b.t().contiguous().t()):
            step = gradlite.capture(product, native=True)
            results = []
            for threads in (1, 1, 1, 1, 4, 7):
                gradlite.set_num_threads(threads)
                results.append(step(a, b).numpy())
            for result in results[4:]:
                np.testing.assert_array_equal(result, results[3])


@needs_compiler
def test_steps_of_two_python_threads() -> None:
    gradlite.set_num_threads(3)
    x = gradlite.randn(700, 700)
    expected = (x @ x).relu().numpy()
    wrong = []

    def work() -> None:
        step = gradlite.capture(lambda x: (x @ x).relu(), native=True)
        for _ in range(30):
            if not np.allclose(step(x).numpy(), expected, rtol=1e-4, atol=1e-3):
                wrong.append(1)

    callers = [threading.Thread(target=work) for _ in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


@needs_compiler
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork() on this system")
def test_a_forked_process_goes_on_alone(recwarn: Any) -> None:
    gradlite.set_num_threads(4)
    x = gradlite.randn(700, 700)
    step = gradlite.capture(lambda x: (x @ x).relu(), native=True)
    for _ in range(5):
        expected = step(x).numpy()
    child = os.fork()
    if child == 0:
        good = gradlite.get_num_threads() == 1 and np.array_equal(step(x).numpy(), expected)
        gradlite.set_num_threads(2)
        os._exit(0 if good and np.array_equal(step(x).numpy(), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    np.testing.assert_array_equal(step(x).numpy(), expected)


def test_the_number_of_threads() -> None:
    gradlite.set_num_threads(3)
    assert gradlite.get_num_threads() == 3
    gradlite.set_num_threads(10_000)
    assert gradlite.get_num_threads() == MOST


@pytest.mark.parametrize(
    ("value", "error"), [(0, RuntimeError), (-1, RuntimeError), (1.0, RuntimeError)]
)
def test_what_is_no_number_of_threads(value: Any, error: Any) -> None:
    same(lambda T: T.set_num_threads(value), raises=error)
    assert gradlite.get_num_threads() > 0
