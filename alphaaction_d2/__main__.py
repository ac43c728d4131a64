"""`python -m alphaaction_d2 COMMAND`, which is the same as `alphaaction COMMAND`."""

import sys

from .apps.commands import run

if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
