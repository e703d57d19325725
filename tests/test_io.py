"""Saving and loading: round trips, sharing, atomic replacement, devices, safetensors."""

from __future__ import annotations

import io
import math
import os
import pickle
import subprocess
import sys
import textwrap
import zipfile
from collections import OrderedDict, namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.io import archive, load, load_safetensors, save, save_safetensors
from gradlite.io.files import replacing
from gradlite.nn.parameter import Parameter
from tests.io_support import assert_same, round_trip, zip_of

# -- round trips --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "obj",
    [
        None, True, 0, -5, 2**100, 1.5, -0.0, 0.1, 1e-320, math.inf, -math.inf, math.nan,
        "", "text", "žluť 🐎 \x00\n", "\ud800", [], (), {}, [1, [2, (3, None)]], ((1,), [2.0]),
        {"a": 1, "b": {"c": [True, None]}},
        {1: "int", 2.5: "float", None: "none", False: 0, (1, "x"): "tuple"},
        {"tensor": 1, "float": "nan", "dict": [1]},
        OrderedDict([("z", 1), ("a", OrderedDict())]),
        gradlite.Size([2, 3]), gradlite.float32, gradlite.bool, gradlite.device("cpu"),
        gradlite.device("cuda:1"),
        np.float32(1.5), np.int8(-3), np.bool_(True), np.float64(math.pi),
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values(obj: Any) -> None:
    assert_same(round_trip(obj), obj)


def test_negative_zero_keeps_its_sign() -> None:
    assert math.copysign(1, round_trip(-0.0)) == -1


@pytest.mark.parametrize("kind", "f2 f4 f8 u1 i1 i2 i4 i8 ?".split())
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_tensors_and_arrays(kind: str, shape: tuple[int, ...]) -> None:
    array = np.asarray(np.random.default_rng(0).random(shape) * 100).astype(kind)
    tensor = gradlite.from_numpy(array.copy())
    assert_same(round_trip({"t": tensor, "a": array}), {"t": tensor, "a": array})


def test_special_arrays() -> None:
    base = np.arange(24.0).reshape(4, 6)
    arrays = [
        base.T,
        base[::2, ::-3],
        np.asfortranarray(base),
        np.broadcast_to(np.float32(2), (3, 4)),
        base.astype(">f8"),
        np.array(["a", "bc"]),
        np.array([b"x"]),
        np.array([1 + 2j]),
        np.array(["2024-01-01"], "M8[D]"),
        np.array([(1, 2.0)], [("a", "i4"), ("b", "f8")]),
    ]
    for array, got in zip(arrays, round_trip(arrays), strict=True):
        assert got.dtype == array.dtype and got.flags.writeable
        np.testing.assert_array_equal(got, array)
    assert round_trip(np.asfortranarray(base)).flags.f_contiguous
    values = np.array([math.nan, math.inf, -0.0], np.float32)
    assert round_trip(values).tobytes() == values.tobytes()


def test_requires_grad_and_parameters() -> None:
    leaf = gradlite.ones(2, requires_grad=True)
    frozen = Parameter(gradlite.ones(2), requires_grad=False)
    tensors = [leaf, Parameter(gradlite.zeros(3)), frozen, gradlite.arange(3)]
    assert_same(round_trip(tensors), tensors)
    result = leaf * 2
    (got,) = round_trip([result])
    # As in PyTorch, the flag is kept and the graph is not.
    assert got.requires_grad and got.is_leaf and got.tolist() == [2.0, 2.0]
    with gradlite.no_grad():
        assert round_trip(leaf).requires_grad
    leaf.grad = gradlite.ones(2)
    assert round_trip(leaf).grad is None


def test_shared_tensors_stay_shared() -> None:
    weight = Parameter(gradlite.ones(2, 2))
    got = round_trip({"a": weight, "b": weight, "c": weight.detach(), "d": weight.detach()})
    assert got["a"] is got["b"] and got["c"] is not got["d"]
    got["a"].array[0, 0] = 5
    assert all(got[key][0, 0].item() == 5 for key in "abcd")
    assert got["a"]._version is got["c"]._version
    array = np.ones(3)
    first, second, view = round_trip([array, array, array[:2]])
    assert first is second and view.base is not first
    file = io.BytesIO()
    save([weight] * 100 + [weight.detach()], file)
    assert len(zipfile.ZipFile(file).namelist()) == 2


def test_distinct_tensors_stay_distinct() -> None:
    tensors = [gradlite.ones(2) for _ in range(50)]
    got = round_trip(tensors)
    for i, tensor in enumerate(got):
        tensor.array[:] = i
    assert [tensor[0].item() for tensor in got] == list(range(50))
    # An object made and dropped while saving must not lend its id to another.
    got = round_trip([gradlite.ones(2), (gradlite.ones(2) * 2).detach(), gradlite.zeros(2)])
    assert [tensor[0].item() for tensor in got] == [1, 2, 0]
    empty = round_trip([np.empty(0), np.empty(0)])
    assert empty[0] is not empty[1]


def test_equal_contents_make_equal_files() -> None:
    files = []
    for _ in range(2):
        file = io.BytesIO()
        save({"w": gradlite.arange(5), "step": 3}, file)
        files.append(file.getvalue())
    assert files[0] == files[1]


def test_numpy_reads_the_arrays() -> None:
    file = io.BytesIO()
    save({"w": gradlite.arange(5)}, file)
    with zipfile.ZipFile(file) as opened:
        assert opened.testzip() is None
        assert np.load(opened.open("arrays/0.npy"), allow_pickle=False).tolist() == [0, 1, 2, 3, 4]


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("obj", "place"),
    [
        (object(), r"builtins\.object \(at obj\)"),
        ({"a": [1, {2}]}, r"builtins\.set \(at obj\['a'\]\[1\]\)"),
        ([b"bytes"], r"builtins\.bytes \(at obj\[0\]\)"),
        ({"p": Point(1, 2)}, r"Point \(at obj\['p'\]\)"),
        ({frozenset(): 1}, r"frozenset \(at obj key frozenset\(\)\)"),
        ([1 + 2j], r"complex"),
        ([len], r"builtin_function_or_method"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, obj: Any, place: str) -> None:
    path = tmp_path / "model.pt"
    save("old", path)
    with pytest.raises(TypeError, match=f"cannot save an object of type .*{place}"):
        save(obj, path)
    assert load(path) == "old" and os.listdir(tmp_path) == ["model.pt"]


def test_object_arrays_and_cycles_cannot_be_saved() -> None:
    with pytest.raises(TypeError, match=r"array of dtype object \(at obj\['x'\]\)"):
        save({"x": np.array([None])}, io.BytesIO())
    cycle: list[Any] = []
    cycle.append({"again": cycle})
    with pytest.raises(ValueError, match=r"contains itself, at obj\[0\]\['again'\]"):
        save(cycle, io.BytesIO())
    twice = [1]
    assert round_trip([twice, twice]) == [[1], [1]]


# -- paths and files ----------------------------------------------------------------------------


def test_paths(tmp_path: Path) -> None:
    for path in (tmp_path / "a.pt", str(tmp_path / "b.pt")):
        save({"x": gradlite.ones(3)}, path)
        assert load(path, weights_only=True)["x"].tolist() == [1, 1, 1]
        assert load(path, weights_only=False)["x"].tolist() == [1, 1, 1]
    assert sorted(os.listdir(tmp_path)) == ["a.pt", "b.pt"]
    with pytest.raises(FileNotFoundError, match="absent"):
        load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError):
        save(1, tmp_path / "no" / "folder")


def test_options_of_pytorch_are_taken(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    save({"w": np.ones(2)}, path, pickle, 4, _use_new_zipfile_serialization=False)
    for options in ({"mmap": True}, {"weights_only": False, "encoding": "latin1"}):
        assert load(path, "cpu", pickle, **options)["w"].tolist() == [1, 1]


def test_open_files(tmp_path: Path) -> None:
    path = tmp_path / "two.pt"
    with open(path, "wb") as file:
        file.write(b"head")
        save([1], file)
    with open(path, "rb") as file:
        file.seek(4)
        assert load(file) == [1]

    class Pipe(io.RawIOBase):
        """A file that cannot seek."""

        def __init__(self, raw: bytes = b"") -> None:
            self.raw = io.BytesIO(raw)

        def write(self, data: Any) -> int:
            return self.raw.write(data)

        def read(self, size: int | None = -1) -> bytes:
            return self.raw.read(-1 if size is None else size)

        def seekable(self) -> bool:
            return False

    out = Pipe()
    save({"x": np.arange(1000)}, out)  # type: ignore[arg-type]
    got = load(Pipe(out.raw.getvalue()))  # type: ignore[arg-type]
    assert got["x"].tolist() == list(range(1000))


def test_the_old_file_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    save("old", path)

    def fail(*args: Any) -> None:
        raise OSError("disk full")

    for target, name in ((archive, "_write"), (os, "fsync"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(target, name, fail)
            with pytest.raises(OSError, match="disk full"):
                save("new", path)
        assert load(path) == "old" and os.listdir(tmp_path) == ["model.pt"]
    save("new", path)
    assert load(path) == "new"


def test_a_killed_save_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save("old", path)
    script = f"""
        import os
        from gradlite import io
        os.replace = lambda *paths: os._exit(9)
        io.save("new", {str(path)!r})
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    code = subprocess.call([sys.executable, "-c", textwrap.dedent(script)], env=environment)
    assert code == 9 and load(path) == "old"


@pytest.mark.skipif(os.name != "posix", reason="permissions and links of POSIX")
def test_permissions_and_links_are_kept(tmp_path: Path) -> None:
    path, link = tmp_path / "model.pt", tmp_path / "latest.pt"
    old = os.umask(0o027)
    try:
        save(1, path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o777 == 0o640
    path.chmod(0o600)
    link.symlink_to(path.name)
    save(2, link)
    assert link.is_symlink() and load(path) == load(link) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_replacing_cleans_up(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing(tmp_path / "x") as name:
        Path(name).write_text("half")
        raise KeyError
    assert os.listdir(tmp_path) == []


# -- devices ------------------------------------------------------------------------------------


def on_cuda(obj: Any) -> bytes:
    """A file as it would be if its tensors had been on a GPU."""
    file = io.BytesIO()
    save(obj, file)
    with zipfile.ZipFile(file) as opened:
        members = {name: opened.read(name) for name in opened.namelist()}
    members["tree.json"] = members["tree.json"].replace(b'"cpu"', b'"cuda:0"')
    return zip_of(members)


def test_map_location(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = on_cuda({"x": gradlite.ones(2), "y": gradlite.zeros(1)})
    for wanted in ("cpu", gradlite.device("cpu"), {"cuda:0": "cpu"}, lambda tensor, where: tensor):
        got = load(io.BytesIO(raw), map_location=wanted)
        assert got["x"].tolist() == [1, 1] and got["x"].device.type == "cpu"
    seen = []
    load(io.BytesIO(raw), map_location=lambda tensor, where: seen.append(where) or tensor)
    assert seen == ["cuda:0", "cuda:0"]
    with pytest.raises(ZeroDivisionError):
        load(io.BytesIO(raw), map_location=lambda tensor, where: 1 // 0)
    monkeypatch.setattr("gradlite.backends.cuda.status", lambda: (False, "no driver"))
    for wanted in (None, {"cuda:1": "cpu"}, lambda tensor, where: None):
        with pytest.raises(RuntimeError, match=r"Attempting to deserialize .*map_location='cpu'"):
            load(io.BytesIO(raw), map_location=wanted)
    with pytest.raises(RuntimeError, match="CUDA is not available: no driver"):
        load(io.BytesIO(raw), map_location="cuda")


# -- safetensors --------------------------------------------------------------------------------


def test_safetensors(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    tensors = {
        "b": gradlite.arange(6.0).reshape(2, 3).t(),
        "a": Parameter(gradlite.ones(2)),
        "half": gradlite.ones(3, dtype=gradlite.float16),
        "ints": np.arange(3),
        "mask": gradlite.tensor([True, False]),
        "scalar": gradlite.tensor(2.5),
        "empty": gradlite.zeros(0, 3),
    }
    save_safetensors(tensors, path, metadata={"format": "np"})
    got = load_safetensors(path)
    assert list(got) == sorted(tensors)
    for name, value in tensors.items():
        array = getattr(value, "array", value)
        assert type(got[name]) is gradlite.Tensor and not got[name].requires_grad
        assert_same(got[name].array, np.array(array))
        got[name].array[...] = 0
    assert library.load_file(path)["b"].tolist() == [[0, 3], [1, 4], [2, 5]]
    save_safetensors({"only": np.zeros(1)}, str(path))
    assert list(load_safetensors(str(path))) == ["only"]
    assert os.listdir(tmp_path) == ["model.safetensors"]


def test_safetensors_read_by_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    torch_safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    path = tmp_path / "model.safetensors"
    save_safetensors({"w": gradlite.arange(4)}, path)
    loaded = torch_safetensors.load_file(path)["w"]
    assert loaded.tolist() == [0, 1, 2, 3]
    torch_safetensors.save_file({"w": loaded + 1}, path)
    assert load_safetensors(path)["w"].tolist() == [1, 2, 3, 4]


def test_safetensors_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="absent"):
        load_safetensors(tmp_path / "absent")
    with pytest.raises(TypeError, match="'x' is list"):
        save_safetensors({"x": [1]}, path)
    assert not path.exists()
    save_safetensors({"x": np.arange(100)}, path)
    raw = path.read_bytes()
    for damaged in (b"", raw[:7], raw[:50], raw[:-1], b"\xff" * 16 + raw[16:]):
        path.write_bytes(damaged)
        with pytest.raises(RuntimeError, match=r"model\.safetensors cannot be read as safetens"):
            load_safetensors(path)
    save_safetensors({"x": np.arange(3, dtype=np.uint16)}, path)
    with pytest.raises(TypeError, match="uint16"):
        load_safetensors(path)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: load_safetensors(path), lambda: save_safetensors({}, path)):
        with pytest.raises(ImportError, match="pip install safetensors"):
            call()
