"""The README's tables of speeds are those that the newest results give."""

from __future__ import annotations

import pytest

table = pytest.importorskip("benchmarks.table", reason="the benchmarks are not installed")


@pytest.mark.parametrize("device", table.MARKS)
def test_the_readme_shows_the_newest_results(device: str) -> None:
    begin, end = table.MARKS[device]
    shown = table.README.read_text("utf-8").split(begin)[1].split(end)[0].strip()
    assert shown == table.table(table.newest(device)), "run python -m benchmarks.table --write"


@pytest.mark.parametrize("device", table.MARKS)
def test_every_ratio_is_in_the_table(device: str) -> None:
    results = table.newest(device)
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
