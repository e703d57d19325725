"""The bugs planted in kernels and the tests that catch them, as a table in Markdown.

python -m tools.mutants

It notes the tests in ``tests/kernels/noticed.json`` too, which is where the next run begins.
"""

from __future__ import annotations

from tests.kernels.mutation import main

if __name__ == "__main__":
    main()
