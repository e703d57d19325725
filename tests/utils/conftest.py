"""What tests of several processes use."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_process_is_left() -> Iterator[None]:
    yield
    gc.collect()
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert not left
