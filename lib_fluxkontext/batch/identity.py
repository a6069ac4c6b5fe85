"""What a row is known by: its content, and nothing of where that content lies."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib_fluxkontext.batch.columns import SETTING_COLUMNS
from lib_fluxkontext.batch.row import Lora
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.decode import read_size
from lib_fluxkontext.images.files import unreadable
from lib_fluxkontext.settings import KontextSettings, default_of

KEY_DIGITS = 32
"""Hex digits of a key: with a billion rows the chance that any two meet is under 10⁻²⁰."""

KEPT_FILES = 20_000
"""Files whose digest and size are remembered, about 15 MB."""

_BLOCK = 1 << 20
_DEFAULTS = {name: default_of(name) for name in SETTING_COLUMNS}
_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image file without decoding it.

    Attributes:
        digest: SHA-256 of its bytes, hex.
        size: width and height in pixels, as the decoded reference will have them.
    """

    digest: str
    size: tuple[int, int]


class ImageFiles:
    """Digests and sizes of image files. Each file is read once, and again when its size or time has changed.

    Args:
        kept: how many files are remembered; those unused for longest are forgotten.
    """

    def __init__(self, kept: int = KEPT_FILES) -> None:
        self._kept = kept
        self._known: OrderedDict[str, tuple[tuple[int, int], ImageFacts | str]] = OrderedDict()

    def facts(self, path: str, name: str) -> ImageFacts:
        """Return a file's digest and size.

        Args:
            path: of the file.
            name: the column that it came from, for messages.

        Raises:
            KontextError: no file that can be read, no image, or one beyond the limits of ``decode_reference``.
        """
        try:
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):  # a device or a pipe may never end
                raise KontextError("not a file", name)
            state = (status.st_size, status.st_mtime_ns)
            known = self._known.get(path)
            if known is None or known[0] != state:
                known = self._known[path] = (state, _read(path, name))
                if len(self._known) > self._kept:
                    self._known.popitem(last=False)
            else:
                self._known.move_to_end(path)
        except OSError as error:
            raise unreadable(error, name) from None
        if isinstance(known[1], str):
            raise KontextError(known[1], name)
        return known[1]


def row_key(
    *,
    prompt: str,
    digests: Sequence[str],
    settings: KontextSettings,
    width: int,
    height: int,
    steps: int,
    seed: int,
    guidance: float,
    checkpoint: str,
    loras: Sequence[Lora],
    nf4: bool = False,
) -> str:
    """Return the row's key, 32 hex digits: the same for the same content, wherever its files lie.

    What has its default value is left out of settings and LoRAs, so that a setting that is added later changes no key
    of before.

    Args:
        prompt: the instruction.
        digests: of the references' bytes, in order.
        settings: its image fields are not read.
        width: in pixels.
        height: in pixels.
        steps: sampler steps.
        seed: of the start noise.
        guidance: distilled guidance scale.
        checkpoint: its name as the manifest or the command line gives it.
        loras: with their names as the manifest gives them.
        nf4: whether the transformer is quantised to NF4 while it loads.
    """
    content: dict[str, Any] = {
        "prompt": prompt,
        "images": list(digests),
        "settings": {name: value for name in SETTING_COLUMNS if (value := getattr(settings, name)) != _DEFAULTS[name]},
        "size": [width, height],
        "steps": steps,
        "seed": seed,
        "guidance": float(guidance),
        "checkpoint": checkpoint,
    }
    if nf4:
        content["nf4"] = True
    if loras:
        content["loras"] = [[lora.name, float(lora.weight)] for lora in loras]
    return hashlib.sha256(_canonical(content).encode()).hexdigest()[:KEY_DIGITS]


def _read(path: str, name: str) -> ImageFacts | str:
    """Return what there is to know of a file, or what is wrong with it."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        try:
            size = read_size(file, name)
        except KontextError as error:
            return error.reason
        file.seek(0)
        while block := file.read(_BLOCK):
            digest.update(block)
    return ImageFacts(digest.hexdigest(), size)
