"""``python -m lib_fluxkontext``."""

import sys

from lib_fluxkontext.hosts.diffusers.command import main

sys.exit(main())
