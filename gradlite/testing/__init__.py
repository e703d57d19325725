"""What tests of programs compare tensors with."""

from gradlite.testing.comparison import assert_allclose as assert_allclose
from gradlite.testing.comparison import assert_close as assert_close
