"""The exact answer to every instruction: training, evaluation, benchmark and tests all use it.

Sizes are (width, height) in pixels. Lengths in the answers are shares of the canvas, so that they mean the same at
every size.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.small_kontext.instructions import COLOURS, TINTS, Instruction, parse

Size = tuple[int, int]
Box = tuple[int, int, int, int]

GREY = (128, 128, 128)
"""What stands where a picture is missing."""

OBJECT = 3 / 16
"""Side of a drawn object, as a share of the canvas's shorter side."""

FRAME = 1 / 16
"""Width of a frame, as a share of the shorter side."""

CAPTION = 1 / 8
"""Height of a caption, as a share of the canvas's."""

LETTERS = {
    "e": ("11111", "10000", "10000", "11110", "10000", "10000", "11111"),
    "f": ("11111", "10000", "10000", "11110", "10000", "10000", "10000"),
    "h": ("10001", "10001", "10001", "11111", "10001", "10001", "10001"),
    "k": ("10001", "10010", "10100", "11000", "10100", "10010", "10001"),
    "l": ("10000", "10000", "10000", "10000", "10000", "10000", "11111"),
    "n": ("10001", "11001", "10101", "10101", "10011", "10001", "10001"),
    "o": ("01110", "10001", "10001", "10001", "10001", "10001", "01110"),
    "t": ("11111", "00100", "00100", "00100", "00100", "00100", "00100"),
    "u": ("10001", "10001", "10001", "10001", "10001", "10001", "01110"),
    "x": ("10001", "10001", "01010", "00100", "01010", "10001", "10001"),
}
"""Letters of captions, 5 x 7 dots: the same with every version of Pillow."""


@dataclass(frozen=True)
class Example:
    """What is shown to the model and what it should answer.

    Attributes:
        references: the first and the second picture as the model gets them; None where there is none.
        target: the exact answer.
        region: (height, width), True where the answer was changed; all False for instructions that copy.
    """

    references: tuple[Image.Image | None, Image.Image | None]
    target: Image.Image
    region: np.ndarray


def fit(picture: Image.Image | None, size: Size) -> Image.Image:
    """Crop the centre of ``picture`` to the aspect of ``size`` and resize it there.

    The crop is the largest centred box of that aspect, with real-valued edges; the resize is Pillow's
    bicubic with that box, so a picture that already has the wanted scale is only cut. A missing picture
    gives mid-grey.
    """
    if picture is None:
        return Image.new("RGB", size, GREY)
    picture = picture.convert("RGB")
    width, height = picture.size
    scale = min(width / size[0], height / size[1])
    half_w, half_h = size[0] * scale / 2, size[1] * scale / 2
    box = (width / 2 - half_w, height / 2 - half_h, width / 2 + half_w, height / 2 + half_h)
    box = (max(box[0], 0.0), max(box[1], 0.0), min(box[2], float(width)), min(box[3], float(height)))
    return picture.resize(size, Image.Resampling.BICUBIC, box=box)


def target(instruction: str, image1: Image.Image | None, image2: Image.Image | None, size: Size) -> Image.Image:
    """Return the exact answer to a phrasing, or to a kind's name, on a canvas of ``size``; see ``example``.

    Raises:
        ValueError: when it is neither.
    """
    return example(parse(instruction), image1, image2, size).target


def example(instruction: Instruction, image1: Image.Image | None, image2: Image.Image | None, size: Size) -> Example:
    """Return what the model sees and should answer.

    ``left_right``: the left half is ``fit(image1)``, the right half ``fit(image2)``; ``swap``: the other way round;
    ``first`` and ``second``: the whole canvas is ``fit`` of that picture. Halves are ``width // 2`` wide. An edit
    changes ``fit(image1)`` inside its region and nothing outside. An object that is to be removed or repainted is
    drawn into the first reference, at its own size.
    """
    width, height = size
    region = np.zeros((height, width), bool)
    match instruction.kind:
        case "first" | "second":
            answer = fit(image1 if instruction.kind == "first" else image2, size)
        case "left_right" | "swap":
            left, right = (image1, image2) if instruction.kind == "left_right" else (image2, image1)
            answer = Image.new("RGB", size, GREY)
            answer.paste(fit(left, (width // 2, height)), (0, 0))
            answer.paste(fit(right, (width - width // 2, height)), (width // 2, 0))
        case _:
            answer = fit(image1, size)
            region = edited_region(instruction, size)
            answer = Image.composite(_edited(instruction, answer, image2), answer, Image.fromarray(region))
    if instruction.kind in ("remove", "repaint") and image1 is not None:
        image1 = image1.convert("RGB")
        drawn = _draw(image1.copy(), instruction.shape, object_box(instruction.place, image1.size), instruction.colour)
        return Example((drawn, image2), answer, region)
    return Example((image1, image2), answer, region)


def edited_region(instruction: Instruction, size: Size) -> np.ndarray:
    """Return where an instruction changes the first picture, (height, width), True inside."""
    mask = Image.new("1", size, 0)
    width, height = size
    border = round(FRAME * min(size))
    match instruction.kind:
        case "inset":
            mask.paste(1, inset_box(instruction.place, size))
        case "grey" | "blur" | "brighten" | "tint":
            mask.paste(1, part_box(instruction.part, size))
        case "mirror":
            mask.paste(1, (0, 0, width, height))
        case "add" | "remove" | "repaint":
            _stamp(mask, instruction.shape, object_box(instruction.place, size), 1)
        case "frame":
            mask.paste(1, (0, 0, width, height))
            mask.paste(0, (border, border, width - border, height - border))
        case "caption":
            mask.paste(1, (0, height - round(CAPTION * height), width, height))
    return np.asarray(mask)


def _edited(instruction: Instruction, picture: Image.Image, image2: Image.Image | None) -> Image.Image:
    """Return the whole picture changed; the caller keeps the region."""
    match instruction.kind:
        case "inset":
            box = inset_box(instruction.place, picture.size)
            picture = picture.copy()
            picture.paste(fit(image2, (box[2] - box[0], box[3] - box[1])), box[:2])
        case "grey":
            picture = picture.convert("L").convert("RGB")
        case "blur":
            picture = picture.filter(ImageFilter.GaussianBlur(min(picture.size) / 64))
        case "brighten":
            picture = picture.point([255 - round((255 - value) * 0.6) for value in range(256)] * 3)
        case "tint":
            flat = Image.new("RGB", picture.size, TINTS[instruction.colour])
            picture = Image.blend(picture, flat, 0.4)
        case "mirror":
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        case "add" | "repaint":
            colour = instruction.other or instruction.colour
            picture = _draw(picture.copy(), instruction.shape, object_box(instruction.place, picture.size), colour)
        case "frame":
            picture = Image.new("RGB", picture.size, COLOURS[instruction.colour])
        case "caption":
            picture = _caption(picture.size, instruction.word)
    return picture


def inset_box(place: str, size: Size) -> Box:
    """Return where an inset lies: half as wide and half as high as the canvas."""
    return _place(place, (size[0] // 2, size[1] // 2), size, 0)


def object_box(place: str, size: Size) -> Box:
    """Return where a drawn object lies: a square, as far from the canvas's edge as a third of its side."""
    side = round(OBJECT * min(size))
    return _place(place, (side, side), size, side // 3)


def part_box(part: str, size: Size) -> Box:
    """Return the box of a part of the canvas; the middle is half as wide and half as high."""
    width, height = size
    return {
        "": (0, 0, width, height),
        "left half": (0, 0, width // 2, height),
        "right half": (width // 2, 0, width, height),
        "top half": (0, 0, width, height // 2),
        "bottom half": (0, height // 2, width, height),
        "middle": (width // 4, height // 4, width // 4 + width // 2, height // 4 + height // 2),
    }[part]


def _place(place: str, size: Size, canvas: Size, margin: int) -> Box:
    left, top = (canvas[0] - size[0]) // 2, (canvas[1] - size[1]) // 2
    if place != "middle":
        left = margin if "left" in place else canvas[0] - size[0] - margin
        top = margin if "top" in place else canvas[1] - size[1] - margin
    return left, top, left + size[0], top + size[1]


def _draw(picture: Image.Image, shape: str, box: Box, colour: str) -> Image.Image:
    _stamp(picture, shape, box, COLOURS[colour])
    return picture


def _stamp(picture: Image.Image, shape: str, box: Box, fill: int | tuple[int, int, int]) -> None:
    last = (box[0], box[1], box[2] - 1, box[3] - 1)
    draw = ImageDraw.Draw(picture)
    draw.ellipse(last, fill=fill) if shape == "disc" else draw.rectangle(last, fill=fill)


def _caption(size: Size, word: str) -> Image.Image:
    """Return a canvas whose lowest ``CAPTION`` is white with the word in its middle."""
    dots = Image.new("L", (6 * len(word) + 1, 9), 255)
    for number, letter in enumerate(word):
        for row, line in enumerate(LETTERS[letter]):
            for column, dot in enumerate(line):
                dots.putpixel((1 + 6 * number + column, 1 + row), 32 if dot == "1" else 255)
    height = round(CAPTION * size[1])
    width = min(size[0], round(height * dots.width / dots.height))
    canvas = Image.new("RGB", size, (255, 255, 255))
    canvas.paste(dots.resize((width, height), Image.Resampling.BICUBIC), ((size[0] - width) // 2, size[1] - height))
    return canvas
