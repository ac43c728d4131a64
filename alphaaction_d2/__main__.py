"""`python -m alphaaction_d2 COMMAND`, which is the same as `alphaaction COMMAND`."""

import sys

import alphaaction  # noqa: F401  # the rules of Ctrl-C, for the processes that are started, too

from .apps.commands import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
