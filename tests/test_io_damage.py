"""Loading damaged, foreign and malicious files: always a clear error, never code that runs."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.io import load, save
from tests.io_support import assert_same, round_trip, zip_of

# -- damaged and foreign files ------------------------------------------------------------------


def good_file() -> bytes:
    file = io.BytesIO()
    save({"w": gradlite.arange(20.0), "n": [1, 2.5, "x"], "a": np.ones((2, 3))}, file)
    return file.getvalue()


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    raw = good_file()
    path = tmp_path / "cut.pt"
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(RuntimeError, match=r"cut\.pt is (damaged|not a file saved)"):
            load(path)


def test_every_flipped_byte_is_noticed_or_harmless() -> None:
    raw = good_file()
    expected = load(io.BytesIO(raw))
    noticed = 0
    for place in range(len(raw)):
        for mask in (0xFF, 0x01):
            damaged = bytearray(raw)
            damaged[place] ^= mask
            try:
                got = load(io.BytesIO(damaged))
            except RuntimeError as error:
                assert "the file is " in str(error)
                noticed += 1
            else:
                # Dates and permissions in the archive's directory mean nothing here.
                assert_same(got, expected)
    assert noticed > len(raw)


def test_trailing_bytes_are_harmless() -> None:
    assert_same(load(io.BytesIO(good_file() + b"end")), load(io.BytesIO(good_file())))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a file saved by gradlite: it is empty"),
        (b"hello world", "is not a file saved by gradlite$"),
        (b"\x80\x05K\x01.", "but a pickle, which can run code"),
        (zip_of({"readme.txt": b"x"}), "is a zip file, but not one saved by gradlite"),
        (zip_of({"archive/data.pkl": b"x"}), "is damaged: ValueError"),
        (zip_of({"tree.json": b"{"}), "is damaged: JSONDecodeError"),
        (zip_of({"tree.json": b"[]"}), "is damaged: TypeError"),
        (zip_of({"tree.json": b"{}"}), "is damaged: KeyError"),
        (zip_of({"tree.json": b'{"format":"x","version":1}'}), "is not a file saved by gradlite"),
        (zip_of({"tree.json": b'{"format":"gradlite","version":2}'}), "has version 2 of gradlite"),
    ],
)
def test_foreign_files(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(RuntimeError, match=f"foreign.* {message}"):
        load(path)


def test_pickles_are_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (os.mkdir, (str(tmp_path / "owned"),))

    path = tmp_path / "evil"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(RuntimeError, match="pickle"):
        load(path, weights_only=False)
    file = io.BytesIO()
    np.save(file, np.array([Evil()], dtype=object), allow_pickle=True)
    path.write_bytes(crafted(root={"array": 0}, arrays=[file.getvalue()]))
    with pytest.raises(RuntimeError, match="holds Python objects"):
        load(path, weights_only=False)
    assert not (tmp_path / "owned").exists()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, (1, 0))
    return file.getvalue()


def crafted(root: Any, arrays: list[bytes] = (), tensors: list[Any] = ()) -> bytes:  # type: ignore[assignment]
    tree = {"format": "gradlite", "version": 1, "arrays": len(arrays), "tensors": list(tensors)}
    members = {"tree.json": json.dumps({**tree, "root": root}).encode()}
    members.update({f"arrays/{i}.npy": content for i, content in enumerate(arrays)})
    return zip_of(members)


GOOD_TENSOR = {"array": 0, "device": "cpu", "requires_grad": False, "parameter": False}


@pytest.mark.parametrize(
    "raw",
    [
        crafted({"array": 0}),
        crafted({"array": -1}, [npy(np.ones(2))]),
        crafted({"array": "x"}, [npy(np.ones(2))]),
        crafted({"tensor": 0}, [npy(np.ones(2))]),
        crafted({"unknown": 0}),
        crafted({}),
        crafted({"list": [], "tuple": []}),
        crafted([1]),
        crafted({"dict": [[1]]}),
        crafted({"dict": [[{"list": []}, 1]]}),
        crafted({"float": "1e999"}),
        crafted({"dtype": "float128x"}),
        crafted({"dtype": "complex64"}),
        crafted({"device": "toaster"}),
        crafted({"tensor": 0}, [npy(np.ones(2))], [{**GOOD_TENSOR, "array": 1}]),
        crafted({"tensor": 0}, [npy(np.ones(2))], [{**GOOD_TENSOR, "device": "toaster"}]),
        crafted({"tensor": 0}, [npy(np.ones(2))], [{**GOOD_TENSOR, "parameter": 1}]),
        crafted({"tensor": 0}, [npy(np.ones(2))], [{**GOOD_TENSOR, "extra": 1}]),
        crafted({"tensor": 0}, [npy(np.ones(2))], [{"array": 0}]),
        crafted({"tensor": 0}, [npy(np.ones(2, complex))], [GOOD_TENSOR]),
        crafted({"tensor": 0}, [npy(np.ones(2, int))], [{**GOOD_TENSOR, "requires_grad": True}]),
        crafted({"array": 0}, [b"not numpy"]),
        crafted({"array": 0}, [npy(np.ones(2))[:-1]]),
        crafted({"array": 0}, [npy(np.ones(2)) + b"x"]),
        crafted({"array": 0}, [npy(np.ones(2)).replace(b"(2,)", b"(9,)")]),
        crafted({"array": 0}, [npy(np.ones(2)).replace(b"(2,), }", b"(-2,),}")]),
        crafted({"array": 0}, [npy(np.ones(2)).replace(b"(2,), }     ", b"(99999999,)}")]),
        crafted({"array": 0}, [npy(np.ones(2)).replace(b"\x01\x00v", b"\x03\x00v")]),
    ],
    ids=range(28),
)
def test_crafted_files(raw: bytes) -> None:
    with pytest.raises(RuntimeError, match="the file is damaged"):
        load(io.BytesIO(raw))


def test_deep_trees() -> None:
    nested: Any = []
    for _ in range(100):
        nested = [nested]
    assert_same(round_trip(nested), nested)
    root: Any = 1
    for _ in range(300):
        root = {"list": [root]}
    deep = json.dumps(root).replace("1", '{"list": [' * 50_000 + "]}" * 50_000)
    tree = '{"format":"gradlite","version":1,"arrays":0,"tensors":[],"root":' + deep + "}"
    with pytest.raises(RuntimeError, match="the file is damaged: RecursionError"):
        load(io.BytesIO(zip_of({"tree.json": tree.encode()})))
