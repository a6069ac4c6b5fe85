"""What the small FLUX Kontext model can be asked for: four ways of copying its references, and edits of the first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import permutations

KINDS = ("left_right", "swap", "first", "second")
"""What copies whole references, in the order used everywhere."""

EDITS = ("inset", "grey", "blur", "brighten", "tint", "mirror", "add", "remove", "repaint", "frame", "caption")
"""What changes a part of the first reference, or all of it."""

PLACES = ("top left corner", "top right corner", "bottom left corner", "bottom right corner", "middle")
"""Where an inset or a drawn object lies."""

PARTS = ("", "left half", "right half", "top half", "bottom half", "middle")
"""What is recoloured or blurred; the empty one is the whole picture."""

COLOURS = {"red": (208, 40, 40), "yellow": (240, 204, 40), "blue": (40, 72, 208), "white": (244, 244, 244)}
"""Of drawn objects and frames."""

TINTS = {"red": (208, 40, 40), "green": (40, 160, 64), "blue": (40, 72, 208)}
"""What a picture is tinted with."""

SHAPES = ("disc", "square")
WORDS = ("flux", "hello", "kontext")
"""What a caption can say."""

PHRASINGS: dict[str, tuple[str, ...]] = {
    "left_right": (
        "put the first picture on the left and the second on the right",
        "place the first image on the left and the second image on the right",
        "first picture on the left, second picture on the right",
        "the first on the left, the second on the right",
        "put both pictures side by side",
        "side by side",
        "combine the two images side by side in order",
        "left: first picture. right: second picture.",
    ),
    "swap": (
        "put the second picture on the left and the first on the right",
        "place the second image on the left and the first image on the right",
        "second picture on the left, first picture on the right",
        "the second on the left, the first on the right",
        "put both pictures side by side and swap them",
        "side by side, swapped",
        "combine the two images side by side in reverse order",
        "left: second picture. right: first picture.",
    ),
    "first": (
        "show only the first picture",
        "show the first picture alone",
        "only the first image",
        "keep the first image and drop the second",
        "the first picture alone",
        "the first alone",
        "just the first picture",
        "fill the canvas with the first picture",
    ),
    "second": (
        "show only the second picture",
        "show the second picture alone",
        "only the second image",
        "keep the second image and drop the first",
        "the second picture alone",
        "the second alone",
        "just the second picture",
        "fill the canvas with the second picture",
    ),
    "inset": (
        "put the second picture into the {place} of the first",
        "inset the second picture in the {place} of the first",
    ),
    "grey": ("make {part} grey", "turn {part} grey"),
    "blur": ("blur {part}", "make {part} blurry"),
    "brighten": ("brighten {part}", "make {part} brighter"),
    "tint": ("tint {part} {colour}", "colour {part} {colour}"),
    "mirror": ("mirror the first picture", "flip the first picture"),
    "add": ("add a {colour} {shape} in the {place}", "draw a {colour} {shape} in the {place}"),
    "remove": ("remove the {colour} {shape}", "erase the {colour} {shape}"),
    "repaint": ("paint the {colour} {shape} {other}", "make the {colour} {shape} {other}"),
    "frame": ("put a {colour} frame around the first picture", "frame the first picture in {colour}"),
    "caption": ("write {word} below the first picture", "add the caption {word} to the first picture"),
}
"""Every phrasing that the model was trained on, by kind; the first of each is used in the evaluation."""


@dataclass(frozen=True)
class Instruction:
    """One thing to do; fields that its kind does not use are empty.

    Attributes:
        kind: one of ``KINDS`` or ``EDITS``.
        place: one of ``PLACES``; of ``remove`` and ``repaint``, where the object lies, which no phrasing says.
        part: one of ``PARTS``.
        colour: one of ``COLOURS``, or of ``TINTS``; of an object that is removed or repainted, its colour before.
        shape: one of ``SHAPES``.
        other: the colour that an object gets.
        word: one of ``WORDS``.
    """

    kind: str
    place: str = ""
    part: str = ""
    colour: str = ""
    shape: str = ""
    other: str = ""
    word: str = ""

    def phrasings(self) -> tuple[str, ...]:
        """Return the sentences that ask for it."""
        part = f"the {self.part} of the first picture" if self.part else "the first picture"
        fields = {"place": self.place, "colour": self.colour, "shape": self.shape, "other": self.other}
        return tuple(
            phrasing.format(part=part, word=self.word, **fields) if self.kind in EDITS else phrasing
            for phrasing in PHRASINGS[self.kind]
        )


def of_kind(kind: str) -> tuple[Instruction, ...]:
    """Return every instruction of a kind."""
    return tuple(_of_kind(kind))


def _of_kind(kind: str) -> Iterator[Instruction]:
    match kind:
        case "inset":
            yield from (Instruction(kind, place) for place in PLACES)
        case "grey" | "blur" | "brighten":
            yield from (Instruction(kind, part=part) for part in PARTS)
        case "tint":
            yield from (Instruction(kind, part=part, colour=colour) for part in PARTS for colour in TINTS)
        case "add" | "remove":
            for place in PLACES:
                yield from (Instruction(kind, place, colour=c, shape=s) for c in COLOURS for s in SHAPES)
        case "repaint":
            for place in PLACES:
                for colour, other in permutations(COLOURS, 2):
                    yield from (Instruction(kind, place, colour=colour, shape=s, other=other) for s in SHAPES)
        case "frame":
            yield from (Instruction(kind, colour=colour) for colour in COLOURS)
        case "caption":
            yield from (Instruction(kind, word=word) for word in WORDS)
        case _:
            yield Instruction(kind)


@cache
def _by_phrasing() -> dict[str, Instruction]:
    found: dict[str, Instruction] = {}
    for kind in PHRASINGS:
        for instruction in of_kind(kind):
            for phrasing in instruction.phrasings():
                found.setdefault(_plain(phrasing), instruction)
    return found


def _plain(text: str) -> str:
    return text.strip().lower().rstrip(".")


def parse(text: str) -> Instruction:
    """Return the instruction of a text: one of the phrasings, or a kind's name for its first instruction.

    Of ``remove`` and ``repaint`` it is the one whose object lies at the first of ``PLACES``.

    Raises:
        ValueError: when it is neither.
    """
    plain = _plain(text)
    if plain in PHRASINGS:
        return of_kind(plain)[0]
    if plain in _by_phrasing():
        return _by_phrasing()[plain]
    raise ValueError(f"not an instruction of this model: {text!r}")


def all_phrasings() -> list[str]:
    """Return every sentence the model was trained on, each once, in order."""
    return list(
        dict.fromkeys(
            phrasing for kind in PHRASINGS for instruction in of_kind(kind) for phrasing in instruction.phrasings()
        )
    )
