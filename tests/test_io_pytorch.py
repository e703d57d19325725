"""Files of torch.save: read without PyTorch, and without running anything."""

from __future__ import annotations

import copy
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.oracle import torch

DTYPES = ["float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8"]


def written(obj: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(obj, file, **options)
    return file.getvalue()


def read(content: bytes, **options: Any) -> Any:
    return gradlite.load(io.BytesIO(content), **options)


def changed(content: bytes, changes: dict[str, bytes]) -> bytes:
    """An archive with other contents for some of its members."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            new.writestr(name, changes.get(name.partition("/")[2], old.read(name)))
    return file.getvalue()


def program(text: bytes) -> bytes:
    """An archive with a program of pickle's."""
    return changed(written(0), {"data.pkl": b"\x80\x02" + text + b"."})


@pytest.mark.parametrize("name", [*DTYPES, "bool"])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (7,), (2, 3, 4)])
def test_tensors_of_every_dtype_and_shape(name: str, shape: tuple[int, ...]) -> None:
    if name == "bfloat16":
        pytest.importorskip("ml_dtypes", reason="NumPy's bfloat16 is in ml_dtypes")
    expected = (torch.rand(shape) * 5 - (0 if name == "uint8" else 2)).to(getattr(torch, name))
    got = read(written(expected))
    assert type(got) is gradlite.Tensor and got.dtype is getattr(gradlite, name)
    assert got.shape == shape and got.stride() == expected.stride()
    assert got.double().tolist() == expected.double().tolist()


def test_views_share_their_elements_and_versions() -> None:
    x = torch.arange(12.0).view(3, 4)
    saved = {"x": x, "t": x.t(), "part": x[1:, ::2], "wide": x[:1].expand(2, 4), "same": x}
    got = read(written(saved))
    for name, expected in saved.items():
        assert got[name].tolist() == expected.tolist(), name
        assert got[name].stride() == expected.stride(), name
    got["x"].mul_(2)
    assert got["part"].tolist() == [[8, 12], [16, 20]] and got["t"]._version == 1


def test_plain_values_and_containers() -> None:
    saved = {
        "numbers": [1, -1, 300, 70000, 2**40, 2**70, -(2**70), 1.5, float("inf"), True, None],
        "text": ("a", "é", "x" * 300, b"bytes"),
        3: {"inner": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]},
        "set": {1, 2},
        "empty": [{}, [], set()],
        "long": list(range(3000)),
    }
    assert read(written(saved)) == saved
    for protocol in (2, 3, 4, 5):
        assert read(written(saved, pickle_protocol=protocol)) == saved
    kinds = read(written([torch.Size([2, 3]), torch.float32, torch.int64, torch.device("cpu")]))
    assert kinds == [gradlite.Size([2, 3]), gradlite.float32, gradlite.int64, kinds[3]]
    assert type(kinds[0]) is gradlite.Size and kinds[3] == gradlite.device("cpu")


def test_parameters_and_flags() -> None:
    saved = [torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2), False)]
    trained, frozen, leaf = read(written([*saved, torch.ones(2, requires_grad=True)]))
    assert type(trained) is type(frozen) is nn.Parameter and type(leaf) is gradlite.Tensor
    assert trained.requires_grad and not frozen.requires_grad and leaf.requires_grad


def build(T: Any) -> Any:
    return T.nn.Sequential(
        T.nn.Conv2d(1, 4, 3), T.nn.BatchNorm2d(4), T.nn.ReLU(), T.nn.Flatten(), T.nn.Linear(64, 3)
    )


def test_training_goes_on_where_pytorch_left_it(tmp_path: Path) -> None:
    data = np.random.default_rng(0).standard_normal((4, 1, 6, 6)).astype(np.float32)

    def train(T: Any, model: Any, optimizer: Any) -> float:
        x, y = T.tensor(data), T.tensor([0, 1, 2, 0])
        for _ in range(3):
            optimizer.zero_grad()
            loss = T.nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        return float(loss.detach())

    theirs = build(torch)
    their_optimizer = torch.optim.AdamW(theirs.parameters(), lr=0.01)
    train(torch, theirs, their_optimizer)
    path = tmp_path / "checkpoint.pt"
    state = {"model": theirs.state_dict(), "optimizer": their_optimizer.state_dict(), "epoch": 3}
    torch.save(state, path)

    loaded = gradlite.load(path)
    assert list(loaded["model"]) == list(theirs.state_dict()) and loaded["epoch"] == 3
    assert loaded["model"]._metadata == theirs.state_dict()._metadata
    ours = build(gradlite)
    our_optimizer = gradlite.optim.AdamW(ours.parameters(), lr=0.5)
    ours.load_state_dict(loaded["model"])
    our_optimizer.load_state_dict(loaded["optimizer"])
    losses = train(gradlite, ours, our_optimizer), train(torch, theirs, their_optimizer)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_map_location_and_errors_of_its_function() -> None:
    content = written({"a": torch.ones(2)})
    seen = []

    def keep(storage: gradlite.Tensor, location: str) -> gradlite.Tensor:
        seen.append((storage.tolist(), location))
        return storage

    assert read(content, map_location=keep)["a"].tolist() == [1, 1]
    assert seen == [([1, 1], "cpu")]
    assert read(content, map_location="cpu")["a"].tolist() == [1, 1]

    def fail(storage: gradlite.Tensor, location: str) -> gradlite.Tensor:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        read(content, map_location=fail)


def test_tensors_of_a_gpu_need_one_or_another_place() -> None:
    content = written({"a": torch.ones(2)})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        program = archive.read("archive/data.pkl")
    # A string of pickle's second protocol: its length in four bytes, and the text.
    gpu = program.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
    assert gpu != program
    content = changed(content, {"data.pkl": gpu})
    assert read(content, map_location="cpu")["a"].tolist() == [1, 1]
    assert read(content, map_location={"cuda:0": "cpu"})["a"].tolist() == [1, 1]
    if not gradlite.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"deserialize object on a CUDA device.*map_loc"):
            read(content)


def test_files_of_big_endian_machines() -> None:
    expected = torch.tensor([1.5, -2.0, 3e10])
    swapped = expected.numpy().byteswap().tobytes()
    content = changed(written(expected), {"byteorder": b"big", "data/0": swapped})
    assert read(content).tolist() == expected.tolist()


class Evil:
    def __init__(self, folder: str) -> None:
        self.folder = folder

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_nothing_is_run(tmp_path: Path) -> None:
    folder = tmp_path / "owned"
    for content in (
        written({"w": torch.ones(1), "evil": Evil(str(folder))}),
        program(
            b"cos\nmkdir\nX" + len(bytes(folder)).to_bytes(4, "little") + bytes(folder) + b"\x85R"
        ),
        changed(written(0), {"data.pkl": pickle.dumps(Evil(str(folder)), 0)}),
        changed(written(0), {"data.pkl": pickle.dumps(Evil(str(folder)), 5)}),
    ):
        for weights_only in (True, False):
            with pytest.raises(RuntimeError, match=r"Weights only load failed.*(mkdir|pickle's)"):
                read(content, weights_only=weights_only)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"cbuiltins\neval\nX\x01\x00\x00\x001\x85R", "GLOBAL builtins.eval was not an allowed"),
        (b"ctorch.hub\nload\n)R", "GLOBAL torch.hub.load was not an allowed"),
        (b"ctorch\nload\n)R", "GLOBAL torch.load was not an allowed"),
        (b"K\x01)R", "it calls an object of type int"),
        (b"ccollections\nOrderedDict\n}b", "it sets the state of a _Constructor"),
        (b"]}b", "it sets the state of a list"),
        (b"ccollections\nOrderedDict\n)\x81", "it has pickle's NEWOBJ"),
        (b"(K\x01ios\nsystem\n", "it has pickle's INST"),
        (
            b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R",
            "encodes text as rot13",
        ),
    ],
)
def test_programs_that_are_not_followed(text: bytes, message: str) -> None:
    with pytest.raises(RuntimeError, match=f"Weights only load failed.*{message}"):
        read(program(text))


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"K\x01K\x02",
        b"h\x05",
        b"K\x01K\x02a",
        b"}K\x01e",
        b"(((",
        b"K\x01Q",
        b"X\xff\x00\x00\x00a",
    ],
)
def test_programs_that_make_no_sense(text: bytes) -> None:
    with pytest.raises(RuntimeError, match="is damaged"):
        read(program(text))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.Linear(2, 2),
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.eye(2).to_sparse(),
        lambda: np.float64(3),
    ],
    ids=["module", "complex", "sparse", "numpy"],
)
def test_what_is_no_tensor_of_ours(make: Any) -> None:
    with pytest.raises(RuntimeError, match=r"Unsupported global: GLOBAL .* not an allowed global"):
        read(written({"x": make()}))


def test_tensors_stay_inside_their_storage() -> None:
    content = written(torch.arange(6.0).view(2, 3))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        good = archive.read("archive/data.pkl")
    places = b"K\x00K\x02K\x03\x86"  # offset 0 and the shape (2, 3)
    assert good.count(places) == 1
    for offset, rows in ((1, 2), (0, 3), (200, 2), (7, 0)):
        bad = good.replace(places, bytes([75, offset, 75, rows, 75, 3, 0x86]))
        with pytest.raises(RuntimeError, match="reaches beyond its storage"):
            read(changed(content, {"data.pkl": bad}))
    assert (
        read(changed(content, {"data.pkl": good.replace(places, b"K\x06K\x00K\x03\x86")})).numel()
        == 0
    )


def test_storages_have_the_length_that_is_said() -> None:
    content = written(torch.arange(6.0))
    for raw in (b"", b"\0" * 23, b"\0" * 25):
        with pytest.raises(RuntimeError, match="is damaged.*bytes, not 24"):
            read(changed(content, {"data/0": raw}))


def plain(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.tolist() if isinstance(v, gradlite.Tensor) else v for k, v in state.items()}


def test_every_flipped_byte_is_noticed_or_harmless() -> None:
    x = torch.arange(6.0).view(2, 3)
    raw = written({"x": x, "t": x.t(), "n": 3})
    expected = read(raw)
    noticed = 0
    for place in range(len(raw)):
        bad = bytearray(raw)
        bad[place] ^= 0x55
        try:
            got = read(bytes(bad))
        except RuntimeError:
            noticed += 1
        else:
            assert plain(got) == plain(expected), place
    assert noticed > len(raw) // 4


def test_loaded_tensors_can_be_copied_and_trained() -> None:
    got = copy.deepcopy(read(written({"w": torch.ones(2, 2).t()})))
    weight = got["w"].requires_grad_()
    (weight * weight).sum().backward()
    assert weight.grad.tolist() == [[2, 2], [2, 2]]


def test_the_format_of_old_releases_says_so() -> None:
    content = written({"a": torch.ones(2)}, _use_new_zipfile_serialization=False)
    with pytest.raises(RuntimeError, match="but a pickle, which can run code"):
        read(content)
