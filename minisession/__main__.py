"""`python -m minisession`: the same as the command `minisession`."""

import sys

from minisession.cli import main

if __name__ == "__main__":
    sys.exit(main())
