"""The bugs planted in kernels and the tests that catch them, as a table in Markdown.

python -m tools.mutants
"""

from __future__ import annotations

from tests.kernels.mutants import MUTANTS
from tests.kernels.mutation import table

if __name__ == "__main__":
    print(table(MUTANTS))
