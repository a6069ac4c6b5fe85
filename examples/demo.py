"""Two photographs and a sentence in, one picture out, with the small model: ``python dev.py demo [--no-open]``."""

from __future__ import annotations

import argparse
import os
import sys
import webbrowser
from collections.abc import Sequence
from functools import partial
from pathlib import Path

FOLDER = Path("output") / "demo"
PROMPT = "put the second picture into the bottom right corner of the first"
INTERRUPTED = 130


def demo(arguments: Sequence[str] | None = None) -> int:
    """Make the picture, open its report where a browser can be shown, and return the command line's exit code."""
    parser = argparse.ArgumentParser(prog="python dev.py demo", description=__doc__)
    parser.add_argument("--no-open", action="store_true", help="do not open the report in the browser")
    options = parser.parse_args(arguments)
    try:
        code = make_picture()
    except KeyboardInterrupt:  # before the command line could handle it: imports take seconds
        print("error: interrupted; no picture was written", file=sys.stderr)
        return INTERRUPTED
    if code == 0 and not options.no_open and has_desktop():
        webbrowser.open((FOLDER / "picture.html").resolve().as_uri())
    return code


def make_picture() -> int:
    """Write the photographs, run the command line on them, and return its exit code."""
    from lib_fluxkontext.commands.main import main
    from lib_fluxkontext.hosts.diffusers.cli import write_atomically
    from tests.support.photos import cat, square, woman

    photos = {FOLDER / "woman.png": square(woman()), FOLDER / "cat.png": square(cat())}
    write_atomically({path: partial(photo.save, format="PNG") for path, photo in photos.items()})
    images = [word for path in photos for word in ("--image", str(path))]
    return main(["generate", *images, "--prompt", PROMPT, "--output", str(FOLDER / "picture.png")])


def has_desktop() -> bool:
    """Whether somebody sits at a desktop where a browser can be shown, rather than a CI job or a remote shell."""
    if os.environ.get("CI"):
        return False
    if sys.platform in ("win32", "darwin"):
        return "SSH_CONNECTION" not in os.environ
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


if __name__ == "__main__":
    sys.exit(demo())
