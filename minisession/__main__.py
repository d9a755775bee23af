"""`python -m minisession`: the same as the command `minisession`."""

import sys

from minisession.cli import main

sys.exit(main())
