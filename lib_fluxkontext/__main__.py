"""``python -m lib_fluxkontext``."""

import sys

from lib_fluxkontext.commands.main import main

if __name__ == "__main__":  # Ray and multiprocessing import the main module anew
    sys.exit(main())
