"""Entry point of the command line: options in, exit code out."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from gradlite.cli.args import parser
from gradlite.cli.errors import INTERRUPTED, UserError, because


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the arguments after ``python -m gradlite``; those of the process by default.

    Returns:
        0 when all went well, 2 after bad input (one line on stderr says what is wrong), 130 after
        Ctrl-C.

    >>> main(["train", "--epochs", "0"])
    2
    """
    command = "gradlite"
    try:
        options = parser().parse_args(argv)
        command = f"gradlite {options.command}"
        if options.command == "info":
            from gradlite.cli.info import info

            return info()
        from gradlite.cli.threads import one_blas_thread
        from gradlite.cli.train import train

        with one_blas_thread():
            return train(options)
    except UserError as error:
        message = str(error)
    except BrokenPipeError:
        # The reader of stdout has gone (as in `| head`); the interpreter would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        message = f"{error.filename}: {because(error)}" if error.filename else because(error)
    except MemoryError as error:
        message = f"out of memory ({because(error)}): a smaller --batch-size needs less"
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    print(f"{command}: error: {message}", file=sys.stderr)
    return 2
