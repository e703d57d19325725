"""Datasets read from files: IDX, CSV, text; every damaged file is a clear error."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.datasets import MNIST, CSVDataset, TextDataset, Vocabulary, digits, read_idx
from gradlite.utils.data import DataLoader, Subset, default_collate

DATA = Path(os.environ.get("GRADLITE_DATA", Path(__file__).parents[2] / "shared" / "data"))


def data_file(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{name} is not in {DATA} (set GRADLITE_DATA to the folder that has it)")
    return path


# -- IDX ----------------------------------------------------------------------------------------

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    kind = array.dtype.kind + str(array.dtype.itemsize)
    head = struct.pack(f">HBB{array.ndim}I", 0, CODES[kind], array.ndim, *array.shape)
    return head + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.mark.parametrize("kind", list(CODES))
@pytest.mark.parametrize("shape", [(5,), (2, 3), (2, 3, 4), (0,), (0, 28, 28)])
@pytest.mark.parametrize("compress", [False, True])
def test_read_idx(tmp_path: Path, kind: str, shape: tuple[int, ...], compress: bool) -> None:
    array = (np.arange(np.prod(shape)).reshape(shape) - 3).astype(kind)
    raw = idx_bytes(array)
    path = tmp_path / "file-idx"
    path.write_bytes(gzip.compress(raw) if compress else raw)
    for name in (path, str(path)):
        got = read_idx(name)
        assert got.dtype == array.dtype and got.dtype.isnative and got.flags.writeable
        assert got.shape == shape
        np.testing.assert_array_equal(got, array)


GOOD = idx_bytes(np.arange(12, dtype=np.uint8).reshape(3, 4))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", r"truncated: an IDX header has 4 bytes, found 0"),
        (b"\0\0\x08", r"truncated: an IDX header has 4 bytes, found 3"),
        (b"\x89PNG....", r"not an IDX file: expected two zero bytes.*found 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\0", r"not an IDX file.*found 00 00 07 01"),
        (b"\0\0\x08\0", r"not an IDX file.*number of dimensions.*found 00 00 08 00"),
        (GOOD[:9], r"truncated: expected 8 bytes for 2 sizes, found 5"),
        (GOOD[:-1], r"truncated: expected 12 bytes for shape \(3, 4\) of uint8, found 11"),
        (GOOD[:12], r"truncated: expected 12 bytes for shape \(3, 4\) of uint8, found 0"),
        (GOOD + b"x", r"trailing bytes: expected 12 bytes for shape \(3, 4\) of uint8, found more"),
        (b"\0\0\x0e\x03" + b"\xff" * 12 + b"x", r"truncated: expected \d{30} bytes"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "damaged-idx"
    for content in (raw, gzip.compress(raw)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_idx(path)
        assert str(path) in str(caught.value)


def test_damaged_gzip_files(tmp_path: Path) -> None:
    raw = idx_bytes(np.random.default_rng(0).integers(0, 255, (40, 40)).astype(np.uint8))
    good = gzip.compress(raw)
    path = tmp_path / "file.gz"
    for content in (good[:-4], good[:50], good[:5], good + b"garbage", good[:-8] + bytes(8)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"file\.gz: damaged gzip file"):
            read_idx(path)
    middle = bytearray(good)
    for place in range(10, len(good), 97):
        middle[place] ^= 0x55
        path.write_bytes(middle)
        with pytest.raises(ValueError, match=r"file\.gz: "):
            read_idx(path)


def test_missing_idx_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing-here"):
        read_idx(tmp_path / "nothing-here")


# -- MNIST --------------------------------------------------------------------------------------

IMAGES = np.random.default_rng(1).integers(0, 256, (6, 28, 28)).astype(np.uint8)
LABELS = np.array([3, 1, 4, 1, 5, 9], np.uint8)


def write_mnist(folder: Path, prefix: str = "train", ending: str = "", sep: str = "-") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("images", IMAGES), ("labels", LABELS)):
        raw = idx_bytes(array)
        file = folder / f"{prefix}-{name}{sep}idx{array.ndim}-ubyte{ending}"
        file.write_bytes(gzip.compress(raw) if ending else raw)


@pytest.mark.parametrize("folder", ["", "raw", "MNIST/raw"])
@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("train", [True, False])
def test_mnist(tmp_path: Path, folder: str, ending: str, train: bool) -> None:
    write_mnist(tmp_path / folder, "train" if train else "t10k", ending, "." if ending else "-")
    dataset = MNIST(tmp_path, train=train)
    assert len(dataset) == 6 and len(dataset.classes) == 10
    assert dataset.data.dtype == gradlite.uint8 and dataset.data.shape == (6, 28, 28)
    assert dataset.targets.dtype == gradlite.int64 and dataset.targets.tolist() == LABELS.tolist()
    image, target = dataset[2]
    assert type(target) is int and target == 4
    assert image.dtype == np.uint8 and (image == IMAGES[2]).all()
    assert len(list(dataset)) == 6
    with pytest.raises(FileNotFoundError, match=r"-images-idx3-ubyte was not found in .*MNIST"):
        MNIST(tmp_path, train=not train)


def test_mnist_transforms_and_batches(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    plain = MNIST(tmp_path)
    images, labels = next(iter(DataLoader(plain, batch_size=4)))
    assert images.dtype == gradlite.uint8 and (images.array == IMAGES[:4]).all()
    assert labels.dtype == gradlite.int64 and labels.tolist() == [3, 1, 4, 1]
    whole = plain._collated([5, -1])
    samples = default_collate([plain[5], plain[-1]])
    assert whole is not None
    assert [t.dtype for t in whole] == [t.dtype for t in samples]
    assert [t.tolist() for t in whole] == [t.tolist() for t in samples]
    changed = MNIST(tmp_path, transform=lambda image: image / 255.0, target_transform=str)
    images, labels = next(iter(DataLoader(Subset(changed, [1, 2]), batch_size=2)))
    assert images.dtype == gradlite.float64 and float(images.array.max()) <= 1.0
    assert list(labels) == ["1", "4"]


def test_damaged_mnist(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte"
    labels.write_bytes(idx_bytes(LABELS[:5]))
    with pytest.raises(ValueError, match=r"has 6 images, but .*labels-idx1-ubyte has 5 labels"):
        MNIST(tmp_path)
    labels.write_bytes(idx_bytes(IMAGES))
    with pytest.raises(ValueError, match="expected uint8 with 1 dimensions, found uint8 with sha"):
        MNIST(tmp_path)
    labels.write_bytes(idx_bytes(LABELS.astype(np.int32)))
    with pytest.raises(ValueError, match="expected uint8 with 1 dimensions, found int32"):
        MNIST(tmp_path)
    labels.unlink()
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte was not found"):
        MNIST(tmp_path)


def test_real_mnist() -> None:
    path = data_file("t10k-images-idx3-ubyte.gz")
    data_file("t10k-labels-idx1-ubyte.gz")
    dataset = MNIST(path.parent, train=False)
    assert dataset.data.shape == (10_000, 28, 28)
    assert dataset.targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(dataset.targets.array).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    # The published mean and deviation of the training images are 0.1307 and 0.3081.
    pixels = dataset.data.array / 255.0
    assert abs(pixels.mean() - 0.1307) < 0.003 and abs(pixels.std() - 0.3081) < 0.003


# -- digits -------------------------------------------------------------------------------------


def test_digits() -> None:
    pytest.importorskip("sklearn")
    dataset = digits()
    images, labels = dataset.tensors
    assert images.shape == (1797, 1, 8, 8) and images.dtype == gradlite.float32
    assert labels.shape == (1797,) and labels.dtype == gradlite.int64
    assert float(images.array.min()) == 0.0 and float(images.array.max()) == 1.0
    assert np.bincount(labels.array).tolist() == [
        178, 182, 177, 183, 181, 182, 181, 179, 174, 180,
    ]  # fmt: skip


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="pip install scikit-learn"):
        digits()


# -- CSV ----------------------------------------------------------------------------------------


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


TABLE = "height,width,label\n1.5,2,0\n3, 4,1\n\n-1e3,inf,1\n"


def test_csv(tmp_path: Path) -> None:
    table = CSVDataset(write(tmp_path / "t.csv", TABLE), target="label")
    assert len(table) == 3 and table.column_names == ["height", "width"]
    assert table.features.dtype == gradlite.float32
    assert table.features.tolist() == [[1.5, 2.0], [3.0, 4.0], [-1000.0, float("inf")]]
    assert table.targets is not None and table.targets.dtype == gradlite.int64
    assert table.targets.tolist() == [0, 1, 1]
    features, target = table[1]
    assert features.tolist() == [3.0, 4.0] and target.item() == 1
    batch = next(iter(DataLoader(table, batch_size=2)))
    assert [part.tolist() for part in batch] == [[[1.5, 2.0], [3.0, 4.0]], [0, 1]]
    assert table._collated([0]) is not None


def test_csv_options(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", TABLE)
    table = CSVDataset(path)
    assert table.targets is None and table.features.shape == (3, 3)
    assert len(table[0]) == 1
    table = CSVDataset(path, target=-3, dtype=gradlite.float64)
    assert table.targets is not None and table.targets.dtype == gradlite.float64
    assert table.targets.tolist() == [1.5, 3.0, -1000.0]
    assert table.features.dtype == gradlite.float64
    table = CSVDataset(path, target="label", columns=["width"], target_dtype=gradlite.float32)
    assert table.features.shape == (3, 1) and table.column_names == ["width"]
    assert table.targets is not None and table.targets.dtype == gradlite.float32
    semicolons = write(tmp_path / "s.csv", "\ufeff1;2\r\n3;4\r\n")
    table = CSVDataset(semicolons, header=False, delimiter=";", columns=[1, 0])
    assert table.column_names == ["1", "0"] and table.features.tolist() == [[2, 1], [4, 3]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "no rows of numbers"),
        ("a,b\n", {}, "no rows of numbers"),
        ("a,b\n1,2\n3\n", {}, r"t\.csv:3: expected 2 values, found 1"),
        ("a,b\n1,2,3\n", {}, r"t\.csv:2: expected 2 values, found 3"),
        ("a,b\n1,x\n", {}, r"t\.csv:2: column 'b': not a number: 'x'"),
        ("a,b\n1,\n", {}, r"t\.csv:2: column 'b': not a number: ''"),
        ("a,b\n1,2\n", {"header": False}, r"t\.csv:1: column '0': not a number: 'a'"),
        ("a,b\n1,2\n", {"target": "c"}, r"no column 'c' among \['a', 'b'\]"),
        ("a,b\n1,2\n", {"target": 2}, r"no column 2 among"),
        ("a,b\n1,2\n", {"columns": [-3]}, r"no column -3 among"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CSVDataset(write(tmp_path / "t.csv", text), **options)


def test_csv_that_is_missing_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.csv"):
        CSVDataset(tmp_path / "absent.csv")
    (tmp_path / "binary.csv").write_bytes(b"a,b\n1,2\n\xff\xfe,3\n")
    with pytest.raises(ValueError, match=r"binary\.csv:\d+: .*decode"):
        CSVDataset(tmp_path / "binary.csv")


# -- text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["hello world", "", "a", "žluťoučký kůň 🐎\n\t", "\udc80x"])
def test_vocabulary_round_trip(text: str) -> None:
    vocabulary = Vocabulary.of(text)
    assert vocabulary.characters == "".join(sorted(set(text))) and len(vocabulary) == len(set(text))
    numbers = vocabulary.encode(text)
    assert numbers.dtype == gradlite.int64 and numbers.shape == (len(text),)
    assert numbers.tolist() == [vocabulary.characters.index(c) for c in text]
    for form in (numbers, numbers.array, numbers.tolist()):
        assert vocabulary.decode(form) == text


def test_vocabulary() -> None:
    vocabulary = Vocabulary("cab")
    assert vocabulary.encode("abc").tolist() == [1, 2, 0]
    assert vocabulary.decode(1) == "a" and vocabulary.decode(gradlite.tensor(2)) == "b"
    assert "a" in vocabulary and "z" not in vocabulary and "ca" not in vocabulary
    assert vocabulary == Vocabulary("cab") != Vocabulary("abc")
    assert repr(vocabulary) == "Vocabulary('cab')"
    assert len({vocabulary, Vocabulary("cab")}) == 1
    with pytest.raises(ValueError, match="'z' at position 2 is not in the vocabulary"):
        vocabulary.encode("abz")
    with pytest.raises(ValueError, match="'A' at position 0"):
        vocabulary.encode("A")
    with pytest.raises(ValueError, match="'a' at position 0"):
        Vocabulary("").encode("a")
    for numbers in ([3], [-1], [0, 99]):
        with pytest.raises(IndexError, match="from 0 to 2"):
            vocabulary.decode(numbers)
    with pytest.raises(ValueError, match="'a' twice"):
        Vocabulary("aba")


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (3, 1), (4, 4), (3, 5), (10, 1), (9, 2)])
def test_text_dataset(length: int, stride: int) -> None:
    text = "hello world"
    dataset = TextDataset(text, length, stride=stride)
    decode = dataset.vocabulary.decode
    starts = [s for s in range(0, len(text), stride) if s + length + 1 <= len(text)]
    assert len(dataset) == len(starts)
    for i, start in enumerate(starts):
        x, y = dataset[i]
        assert decode(x) == text[start : start + length]
        assert decode(y) == text[start + 1 : start + length + 1]
    assert [decode(x) for x, _ in dataset] == [text[s : s + length] for s in starts]
    indices = [len(dataset) - 1, 0, -1]
    whole, stacked = dataset._collated(indices), default_collate([dataset[i] for i in indices])
    assert whole is not None
    for mine, theirs in zip(whole, stacked, strict=True):
        assert mine.dtype == theirs.dtype and mine.tolist() == theirs.tolist()
    with pytest.raises(IndexError):
        dataset[len(dataset)]


def test_bad_text_datasets(tmp_path: Path) -> None:
    for options in ({"length": 0}, {"length": 2, "stride": 0}):
        with pytest.raises(ValueError, match="should be a positive integer"):
            TextDataset("hello", **options)
    with pytest.raises(ValueError, match="a text of 5 characters has no stretch of length=5"):
        TextDataset("hello", 5)
    with pytest.raises(ValueError, match="'h' at position 0 is not in the vocabulary"):
        TextDataset("hello", 2, Vocabulary("elo"))
    with pytest.raises(FileNotFoundError):
        TextDataset.from_file(tmp_path / "absent.txt", 2)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 noir")
    with pytest.raises(ValueError, match=r"latin\.txt: .*decode"):
        TextDataset.from_file(tmp_path / "latin.txt", 2)
    dataset = TextDataset.from_file(tmp_path / "latin.txt", 2, encoding="latin-1")
    assert dataset.vocabulary.decode(dataset.numbers) == "café noir"


def test_real_text() -> None:
    path = data_file("tinyshakespeare.txt")
    dataset = TextDataset.from_file(path, length=64)
    assert len(dataset.vocabulary) == 65
    raw = path.read_bytes()
    assert dataset.vocabulary.decode(dataset.numbers).encode() == raw
    assert hashlib.sha256(raw).hexdigest().startswith("86c4e6aa")
    x, y = next(iter(DataLoader(dataset, batch_size=8, shuffle=True)))
    assert x.shape == y.shape == (8, 64) and (x.array[:, 1:] == y.array[:, :-1]).all()
