"""The main job on any machine: two photographs and a sentence, one picture, with the small model on the CPU.

python dev.py demo
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image
from skimage import data

from lib_fluxkontext.hosts.diffusers.cli import main

FOLDER = Path("output") / "demo"
PROMPT = "put the first picture on the left and the second on the right"


def demo() -> int:
    """Write the photographs, run the command line on them, and return its exit code."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, picture in (("woman", data.astronaut()), ("cat", data.chelsea())):
        image = Image.fromarray(picture)
        edge = min(image.size)
        left, top = (image.width - edge) // 2, (image.height - edge) // 2
        image.crop((left, top, left + edge, top + edge)).save(FOLDER / f"{name}.png")
    arguments = ["generate", "--prompt", PROMPT, "--output", str(FOLDER / "picture.png")]
    arguments += ["--image", str(FOLDER / "woman.png"), "--image", str(FOLDER / "cat.png")]
    print("python -m lib_fluxkontext " + " ".join(f'"{one}"' if " " in one else one for one in arguments), flush=True)
    return main(arguments)


if __name__ == "__main__":
    sys.exit(demo())
