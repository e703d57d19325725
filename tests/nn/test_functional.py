"""nn.functional: PyTorch's names and arguments."""

from __future__ import annotations

import inspect

import pytest

from gradlite.nn import functional
from gradlite.ops import activation_inplace, renamed
from gradlite.ops.arguments import OF_LAYERS
from gradlite.ops.table import TABLE

torch = pytest.importorskip("torch")

# Ours alone: the fused loops behind the recurrent layers.
SEQUENCES = {"lstm_sequence", "gru_sequence", "rnn_sequence"}
# Left out: PyTorch calls it deprecated, or it is how PyTorch talks to itself.
LEFT_OUT = {"_stacklevel", "out"}


def test_all_names_are_pytorchs() -> None:
    theirs = set(dir(torch.nn.functional))
    assert set(functional.__all__) - SEQUENCES <= theirs


def test_nothing_is_defined_here() -> None:
    for name in functional.__all__:
        if name not in (*renamed.__all__, *activation_inplace.__all__):
            found = getattr(functional, name)
            found = found.__wrapped__ if name in (*OF_LAYERS, "normalize") else found
            assert found is TABLE[name].function, name
    public = {n for n in vars(functional) if not n.startswith("_")}
    assert public == set(functional.__all__)


@pytest.mark.parametrize("name", sorted(set(functional.__all__) - SEQUENCES))
def test_arguments(name: str) -> None:
    try:
        theirs = inspect.signature(getattr(torch.nn.functional, name)).parameters.values()
    except ValueError:
        pytest.skip("PyTorch does not say what arguments it takes")
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in theirs):
        pytest.skip("PyTorch does not say what arguments it takes")
    ours = inspect.signature(getattr(functional, name)).parameters
    expected = [p for p in theirs if p.name not in LEFT_OUT]
    assert [p.name for p in expected] == [n for n in ours if n not in LEFT_OUT]
    for parameter in expected:
        if isinstance(parameter.default, (int, float, str, bool, type(None))):
            assert ours[parameter.name].default == parameter.default, parameter.name
