"""``python -m gradlite``: train a small model, or say what is installed."""

from __future__ import annotations

import sys

from gradlite.cli import main

if __name__ == "__main__":
    sys.exit(main())
