"""`python -m sfwriter`."""

import sys

from sfwriter.cli import main

sys.exit(main())
