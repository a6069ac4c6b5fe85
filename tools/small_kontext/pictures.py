"""Random pictures to train on: crops of photographs, and drawn ones, recoloured and mirrored."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tools.small_kontext.data import photos


def _colour(rng: np.random.Generator) -> tuple[int, int, int]:
    base = rng.integers(0, 256)
    spread = rng.choice([10, 40, 120])
    r, g, b = np.clip(base + rng.integers(-spread, spread + 1, 3), 0, 255)
    return int(r), int(g), int(b)


def _noise(rng: np.random.Generator, side: int) -> Image.Image:
    """Smooth random colour fields summed over several scales."""
    total = np.zeros((side, side, 3), np.float32)
    slope = rng.uniform(0.4, 1.1)
    cells = 2
    while cells <= side:
        grid = rng.normal(0, 1, (cells, cells, 3)).astype(np.float32)
        grid = grid @ (np.eye(3) * rng.uniform(0.1, 1) + 0.6).astype(np.float32)
        channels = [
            np.asarray(Image.fromarray(grid[..., c]).resize((side, side), Image.Resampling.BICUBIC)) for c in range(3)
        ]
        total += np.stack(channels, -1) * cells**-slope
        cells *= 2
    total = (total - total.mean()) / (total.std() + 1e-6) * rng.uniform(20, 60) + rng.uniform(60, 200)
    return Image.fromarray(np.clip(total, 0, 255).astype(np.uint8))


def _gradient(rng: np.random.Generator, side: int) -> Image.Image:
    angle = rng.uniform(0, 2 * np.pi)
    yy, xx = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    t = (xx * np.cos(angle) + yy * np.sin(angle) + 0.7)[..., None] / 1.4
    if rng.random() < 0.4:
        t = 0.5 + 0.5 * np.sin(t * rng.uniform(6, 120))
    a, b = np.array(_colour(rng), np.float32), np.array(_colour(rng), np.float32)
    return Image.fromarray(np.clip(a * (1 - t) + b * t, 0, 255).astype(np.uint8))


def draw_picture(rng: np.random.Generator, side: int = 192) -> Image.Image:
    """Draw one random square picture: leaves of many sizes, polygons, lines and discs on a texture."""
    makers = (_noise, _gradient)
    picture = makers[int(rng.random() < 0.4)](rng, side)
    count = int(rng.choice([0, 6, 30, 120, 300]))
    big = side * 0.4
    for _ in range(count):
        radius = min(big, 2.0 / rng.uniform(0.004, 1.0) ** 0.75)
        x, y = rng.uniform(0, side, 2)
        shape = rng.integers(0, 5)
        w, h = radius * rng.uniform(0.4, 1.4), radius * rng.uniform(0.4, 1.4)
        draw = ImageDraw.Draw(picture)
        if shape == 0:
            draw.ellipse((x - w, y - h, x + w, y + h), fill=_colour(rng))
        elif shape == 1:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=_colour(rng))
        elif shape == 2:
            angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 7)))
            points = [(x + w * np.cos(a), y + h * np.sin(a)) for a in angles]
            draw.polygon(points, fill=_colour(rng))
        elif shape == 3:
            draw.line((x - w, y - h, x + w, y + h), fill=_colour(rng), width=int(rng.integers(1, 5)))
        else:
            patch = makers[int(rng.random() < 0.5)](rng, int(max(8, 2 * radius)))
            mask = Image.new("L", patch.size, 0)
            ImageDraw.Draw(mask).ellipse((0, 0, patch.size[0] - 1, patch.size[1] - 1), fill=255)
            picture.paste(patch, (int(x - radius), int(y - radius)), mask)
    if rng.random() < 0.6:
        picture = picture.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
    return picture


class PictureSource:
    """Random pictures for training: crops of photographs and drawn ones, recoloured and mirrored."""

    def __init__(self, seed: int, drawn: int = 300) -> None:
        self.rng = np.random.default_rng(seed)
        self.photographs = list(photos(held_out=False).values())
        if not self.photographs:
            raise RuntimeError("no photographs found: install scikit-image and scikit-learn")
        self.levels: list[list[Image.Image]] = []
        for photo in self.photographs:
            short = min(photo.size)
            levels = []
            for side in (128, 176, 256, 360, 512):
                if side < short * 1.05:
                    ratio = side / short
                    new = (max(side, round(photo.width * ratio)), max(side, round(photo.height * ratio)))
                    levels.append(photo.resize(new, Image.Resampling.BICUBIC))
            self.levels.append(levels)
        self.drawn = [draw_picture(self.rng) for _ in range(drawn)]

    def picture(self, size: tuple[int, int]) -> Image.Image:
        """Return one random picture of ``size`` (width, height)."""
        rng = self.rng
        if rng.random() < 0.65:
            levels = self.levels[rng.integers(len(self.levels))]
            base = levels[rng.integers(len(levels))]
        else:
            base = self.drawn[rng.integers(len(self.drawn))]
        zoom = rng.uniform(1.0, 1.6) if rng.random() < 0.5 else 1.0
        box_w, box_h = size[0] * zoom, size[1] * zoom
        shrink = min(1.0, base.width / box_w, base.height / box_h)
        box_w, box_h = box_w * shrink, box_h * shrink
        x = float(rng.integers(0, int(base.width - box_w) + 1))
        y = float(rng.integers(0, int(base.height - box_h) + 1))
        picture = base.resize(size, Image.Resampling.BICUBIC, box=(x, y, x + box_w, y + box_h))
        if rng.random() < 0.5:
            picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if rng.random() < 0.15:
            picture = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
        return self._recolour(picture) if rng.random() < 0.6 else picture

    def _recolour(self, picture: Image.Image) -> Image.Image:
        rng = self.rng
        values = np.asarray(picture, np.float32) / 255
        if rng.random() < 0.5:
            values = values[..., rng.permutation(3)]
        if rng.random() < 0.1:
            values = 1 - values
        mix = np.eye(3, dtype=np.float32) + rng.normal(0, 0.15, (3, 3)).astype(np.float32)
        values = values @ (mix / mix.sum(0, keepdims=True))
        values = np.clip(values, 0, 1) ** rng.uniform(0.6, 1.6)
        values = (values - 0.5) * rng.uniform(0.7, 1.3) + 0.5 + rng.uniform(-0.1, 0.1)
        return Image.fromarray((np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8))
