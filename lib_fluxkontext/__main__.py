"""``python -m lib_fluxkontext``."""

import sys

from lib_fluxkontext.hosts.diffusers.cli import main

sys.exit(main())
