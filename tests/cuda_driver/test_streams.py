"""Streams of programs: what PyTorch's passes and copies order by themselves is ordered here."""

from __future__ import annotations

from tests.cuda_driver.test_driver import pytestmark as pytestmark
from tests.cuda_driver.test_driver import run

BEGIN = """
import gradlite
side = gradlite.cuda.Stream()
main = gradlite.cuda.current_stream()
x = gradlite.full((1000,), 2.0, device="cuda", requires_grad=True)
side.wait_stream(main)
"""


def test_a_pass_waits_for_the_streams_of_its_ops() -> None:
    said, _ = run(
        BEGIN
        + """
def check(forth, back):
    for create_graph in (False, True):
        with forth():
            y = (x * 3 * x).sum()
        with back():
            (g,) = gradlite.autograd.grad(y, x, create_graph=create_graph)
            print(g[5].item())

class chosen:
    def __init__(self, stream):
        self.stream = stream

    def __enter__(self):
        gradlite.cuda.set_stream(self.stream)

    def __exit__(self, *exc):
        gradlite.cuda.set_stream(main)

check(lambda: gradlite.cuda.stream(side), lambda: gradlite.cuda.stream(None))
check(lambda: gradlite.cuda.stream(None), lambda: gradlite.cuda.stream(side))
del side
another = gradlite.cuda.Stream()
another.wait_stream(main)
check(lambda: chosen(another), lambda: gradlite.cuda.stream(main))
"""
    )
    assert said.split() == ["12.0"] * 6


def test_what_a_pass_has_read_is_not_written_to_before() -> None:
    said, _ = run(
        BEGIN
        + """
w = gradlite.full((1000,), 3.0, device="cuda", requires_grad=True)
with gradlite.cuda.stream(side):
    y = w * (x.detach() * 2)
y.backward(gradlite.ones(1000, device="cuda"))
with gradlite.cuda.stream(side):  # in the memory of what has been saved, which is this stream's
    z = [gradlite.full((1000,), 9.0, device="cuda") for _ in range(3)]
    side.synchronize()
print(w.grad[5].item())
"""
    )
    assert said == "4.0"


def test_copies_of_the_next_batch_and_captures_wait_for_no_pass() -> None:
    said, _ = run(
        BEGIN
        + """
y = (x * x).sum()
with gradlite.cuda.stream(side):
    batch = gradlite.ones(4).pin_memory().to("cuda", non_blocking=True)
y.backward()
side.synchronize()
print(driver.cuda_driver_pending() > 0)

with gradlite.cuda.stream(side):
    (x * x).sum().backward()
step = gradlite.capture(lambda a: (x * a).sum().backward())
for i in range(5):
    x.grad = None
    step(gradlite.full((1000,), float(i), device="cuda"))
    print(x.grad[5].item())
"""
    )
    assert said.split() == ["True", "0.0", "1.0", "2.0", "3.0", "4.0"]


def test_copies_between_gpus_wait_for_both() -> None:
    run(
        """
        import gradlite
        a = gradlite.arange(4000.0, device="cuda:0")
        side = gradlite.cuda.Stream("cuda:0")
        side.wait_stream(gradlite.cuda.current_stream("cuda:0"))
        with gradlite.cuda.stream(side):
            b = a[::2].to("cuda:1")
            c = gradlite.full((2000,), 9.0, device="cuda:0")  # in the memory of what was copied
        assert b.tolist() == list(range(0, 4000, 2))
        a.copy_(gradlite.ones(4000, device="cuda:1"))
        assert a.tolist() == [1.0] * 4000
        """,
        devices=2,
    )
