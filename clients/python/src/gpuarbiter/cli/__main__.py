"""python -m gpuarbiter.cli, where the command is not on the path."""

import sys

from gpuarbiter.cli import main

sys.exit(main())
