"""The package: its metadata, what the wheel contains, and that it works when installed alone."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import gradlite
from gradlite.backends import kernel_source

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object, cwd: Path = ROOT, **environment: str) -> str:
    result = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", gradlite.__version__)


def test_numpy_is_the_only_requirement() -> None:
    try:
        requirements = metadata.requires("gradlite") or []
    except metadata.PackageNotFoundError:
        pytest.skip("gradlite is not installed here, only on the path")
    assert [r for r in requirements if "extra ==" not in r] == ["numpy>=2.0"]


def test_readme_begins_with_the_two_commands() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"```bash\n(.*?)\n```", text, flags=re.DOTALL)[:2]
    assert "-m gradlite train" in commands[0] and "-m pytest" in commands[1]
    assert all("\n" not in c and "-m venv" in c and "pip install" in c for c in commands)


def test_documents_link_to_files_that_exist() -> None:
    for document in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), f"{document} links to {target}"
        for module in set(re.findall(r"python -m ((?:benchmarks|tools)[\w.]*)", text)):
            assert (ROOT / (module.replace(".", "/") + ".py")).exists(), f"{document}: {module}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for needed in ("build", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: an isolated build would download it")
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "-q", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
    (path,) = folder.glob("gradlite-*.whl")
    return path


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "gradlite").rglob("*.py")}
    kernels = {f"gradlite/kernels/{p.name}" for p in (ROOT / "kernels").glob("*.cu*")}
    assert sources | kernels | {"gradlite/py.typed"} <= set(names)
    assert "gradlite/kernels/common.cuh" in kernels
    assert {n.split("/")[0] for n in names} == {
        "gradlite",
        f"gradlite-{gradlite.__version__}.dist-info",
    }
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_wheel_finds_its_kernels(wheel: Path, tmp_path: Path) -> None:
    code = "from gradlite.backends.kernel_source import index, source;"
    code += "print(*index()); source('softmax.cu')"
    names = run("-c", code, cwd=tmp_path, PYTHONPATH=str(wheel), PYTHONSAFEPATH="1").split()
    assert names == list(kernel_source.index())


def test_wheel_trains(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    # A wheel of pure Python runs from the archive: it comes first, and the checkout is not there.
    code = "import gradlite, sys; assert '.whl' in gradlite.__file__, gradlite.__file__;"
    code += "from gradlite.__main__ import main; sys.exit(main(sys.argv[1:]))"
    arguments = ("train", "--model", "mlp", "--epochs", "1", "--out", tmp_path / "run")
    output = run("-c", code, *arguments, cwd=tmp_path, PYTHONPATH=str(wheel), PYTHONSAFEPATH="1")
    assert "test accuracy" in output
    assert (tmp_path / "run" / "model.safetensors").exists()
