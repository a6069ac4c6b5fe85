"""Two photographs and a sentence in, one picture out, with the small model on the CPU: ``python dev.py demo``."""

from __future__ import annotations

import sys
from pathlib import Path

from lib_fluxkontext.hosts.diffusers.cli import main
from tests.support.photos import cat, square, woman

FOLDER = Path("output") / "demo"
PROMPT = "put the first picture on the left and the second on the right"


def demo() -> int:
    """Write the photographs, run the command line on them, and return its exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, photo in (("woman", woman()), ("cat", cat())):
        square(photo).save(FOLDER / f"{name}.png")
    arguments = ["generate", "--prompt", PROMPT, "--output", str(FOLDER / "picture.png")]
    arguments += ["--image", str(FOLDER / "woman.png"), "--image", str(FOLDER / "cat.png")]
    quoted = [f'"{word}"' if " " in word else word for word in arguments]
    print("python -m lib_fluxkontext", *quoted, flush=True)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(demo())
