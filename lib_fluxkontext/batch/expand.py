"""From what is written once to rows: grids multiplied; globs and folders of images, paired or crossed."""

from __future__ import annotations

import glob
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lib_fluxkontext.batch.columns import MAX_ROWS
from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.images.files import file_order, is_picture, pictures_in, unreadable
from lib_fluxkontext.settings import IMAGE_FIELDS, PRESET_FIELDS, describe

PAIRINGS = ("pair", "cross")
"""The first with the first, or each with each."""

KEPT_LISTINGS = 16
"""Globs and folders whose files are remembered: rows that follow each other often have the same."""

KEPT_PATHS = 20_000


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Lay values over others. A preset replaces all that the lower say of the cache, or it would not be that preset."""
    if upper.get("preset") is not None:
        lower = {name: value for name, value in lower.items() if name not in PRESET_FIELDS}
    return {**lower, **upper}


def grid_size(lists: Mapping[str, Sequence[Any]]) -> int:
    """Count what ``multiply`` yields."""
    return math.prod(map(_length, lists.values()))


def counted(number: int) -> str:
    """Write a number of rows with commas; of one that nobody could count, that it is large."""
    return f"{number:,}" if number <= sys.maxsize else f"more than {sys.maxsize:,}"


def _length(values: Sequence[Any]) -> int:
    """Count values; ``len`` has no number for a range that no memory could hold."""
    return -((values.start - values.stop) // values.step) if isinstance(values, range) else len(values)


def multiply(lists: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Yield each combination of the lists' values; the last name changes fastest. Nothing is copied, as a product of
    ``itertools`` would do with ranges."""
    backwards = list(lists.items())[::-1]
    for index in range(grid_size(lists)):
        cell = {}
        for name, values in backwards:
            index, place = divmod(index, len(values))
            cell[name] = values[place]
        yield cell


class Files(NamedTuple):
    """What an image column means.

    Attributes:
        paths: absolute.
        is_set: whether a glob or a folder was asked for, though it may hold one picture only.
    """

    paths: Sequence[str]
    is_set: bool


class ImageExpander:
    """Finds the files that a row's image columns mean.

    Args:
        folder: that relative paths start from, the manifest's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.path.abspath(folder)
        self._list = lru_cache(KEPT_LISTINGS)(self._list_files)
        self._one = lru_cache(KEPT_PATHS)(self._one_file)

    def files(self, values: Mapping[str, Any]) -> dict[str, Files]:
        """Return the files that each image column means.

        Args:
            values: column → value, of which only the images' are read.

        Raises:
            KontextError: no path, a glob or a folder without pictures, ``images`` beside ``image1``, or a name that
                is not UTF-8.
        """
        given = {name: values[name] for name in (*IMAGE_FIELDS, "images") if values.get(name) is not None}
        if "images" in given and "image1" in given:
            raise KontextError("given beside image1; they are the same reference", "images")
        return {
            name.replace("images", "image1"): self._files(name, given[name])
            for name in ("images", *IMAGE_FIELDS)
            if name in given
        }

    def path(self, text: str) -> str:
        """Return the absolute path of what a manifest calls a file."""
        return os.path.normpath(os.path.join(self._folder, os.path.expanduser(text)))

    def shown(self, path: str) -> str:
        """Return a path as the manifest would write it."""
        return os.path.relpath(path, self._folder) if path.startswith(self._folder + os.sep) else path

    def _files(self, name: str, text: object) -> Files:
        if not isinstance(text, str) or not text.strip():
            raise KontextError(f"got {describe(text)}; allowed: the path of a picture, a glob or a folder", name)
        path = self._one(text)
        if path is None:
            try:
                return Files(self._list(name, text), True)
            except OSError as error:
                raise KontextError(f"{text}: {unreadable(error, name).reason}", name) from None
        if name == "images":
            raise KontextError(f"got {describe(text)}; allowed: a glob or a folder; one picture is image1", name)
        _check_names([path], name)
        return Files((path,), False)

    def _one_file(self, text: str) -> str | None:
        """Return the path of one file, there or not; None for a folder or a glob."""
        path = self.path(text)
        is_set = os.path.isdir(path) or (glob.has_magic(text) and not os.path.exists(path))
        return None if is_set else path

    def _list_files(self, name: str, text: str) -> Sequence[str]:
        path = self.path(text)
        if os.path.isdir(path):
            files = [str(file) for file in pictures_in(Path(path))]
        else:
            # The manifest's folder may have brackets in its own name.
            pattern = os.path.join(glob.escape(self._folder), os.path.expanduser(text))
            found = glob.iglob(pattern, recursive=True)
            named = {os.path.normpath(file) for file in found if is_picture(os.path.basename(file))}
            files = sorted(named, key=file_order)
        if not files:
            raise KontextError(f"no pictures in {describe(text)}", name)
        _check_names(files, name)
        return files


def _check_names(paths: Sequence[str], column: str) -> None:
    """Refuse bytes that are no UTF-8, as Linux allows in names: neither JSON nor SQLite has a place for them."""
    for path in paths:
        try:
            path.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(path).decode("utf-8", "backslashreplace")
            raise KontextError(f"{shown}: its name is not UTF-8; rename it", column) from None


def combine(files: Mapping[str, Files], pairing: object) -> Iterator[dict[str, str]]:
    """Yield each column's path for each row that the files make; crossed, the last column changes fastest.

    Args:
        files: image column → files.
        pairing: one of ``PAIRINGS``; None where at most one column is a glob or a folder.

    Raises:
        KontextError: it is something else, the columns to pair are of different lengths, or more than ``MAX_ROWS``.
    """
    allowed = " or ".join(f'"{name}"' for name in PAIRINGS)
    if pairing is not None and pairing not in PAIRINGS:
        raise KontextError(f"got {describe(pairing)}; allowed: {allowed}", "pairing")
    sets = {name: paths for name, (paths, is_set) in files.items() if is_set}
    counts = ", ".join(f"{len(paths)} of {name}" for name, paths in sets.items())
    if len(sets) > 1 and pairing is None:
        raise KontextError(f"not given, and there are {counts}; allowed: {allowed}", "pairing")
    lists = {name: paths for name, (paths, _) in files.items()}
    if sets and pairing == "pair":
        lengths = {len(paths) for paths in sets.values()}
        if len(lengths) > 1:
            raise KontextError(f'"pair" needs as many pictures on each side, and there are {counts}', "pairing")
        for index in range(lengths.pop()):
            yield {name: paths[index if name in sets else 0] for name, paths in lists.items()}
        return
    if grid_size(lists) > MAX_ROWS:
        raise KontextError(f"{counts} make {counted(grid_size(lists))} rows; at most {MAX_ROWS:,}", "pairing")
    yield from multiply(lists)
