"""The README's table of speeds is the one that the newest results give."""

from __future__ import annotations

import pytest

table = pytest.importorskip("benchmarks.table", reason="the benchmarks are not installed")


def test_the_readme_shows_the_newest_results() -> None:
    text = table.README.read_text("utf-8")
    shown = text.split(table.BEGIN)[1].split(table.END)[0].strip()
    assert shown == table.table(table.newest()), "run python -m benchmarks.table --write"


def test_every_ratio_is_in_the_table() -> None:
    results = table.newest()
    made = table.table(results)
    assert results["machine"]["date"] in made
    for row in results["results"]:
        assert f"{row['ratio']:.2f}" in made and table.NAMES[row["workload"]] in made


def test_other_compilers_have_columns() -> None:
    other = {"ratio": 0.21, "reference_ratio": 0.43}
    row = {"workload": "W1", "mode": "captured", "ratio": 0.09, "others": {"jax": other}}
    results = {**table.newest(), "results": [row]}
    made = table.table(results).splitlines()
    assert made[2] == "| training step | captured | JAX jit | captured / JAX jit |"
    assert made[4] == f"| {table.NAMES['W1']} | 0.09 | 0.43 | 0.21 |"
