"""Open what is converted: where each tensor's bytes lie, and the metadata. Only headers are read here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_fluxkontext.checkpoints.header import read_header
from lib_fluxkontext.errors import KontextError, first_line

FIELD = "in"
"""The field that errors name."""

INDEX = ".safetensors.index.json"
MAX_INDEX = 16 * 2**20
"""Bytes. FLUX.1's index has about 100 KB."""

MAX_NAME = 512
"""Characters. A whole checkpoint's longest name has about 100."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor's place in a file.

    Attributes:
        path: of the file.
        offset: of the first byte in it.
        kind: ``"BF16"``, ``"Q8_0"``, …
        shape: rows first.
        bytes: in the file.
    """

    path: Path
    offset: int
    kind: str
    shape: tuple[int, ...]
    bytes: int

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[np.uint8]:
        """Read bytes ``start`` to ``stop`` of the tensor. A mapped file would count as resident memory.

        Raises:
            KontextError: the file ends before them.
            OSError: it cannot be read now.
        """
        count = (self.bytes if stop is None else stop) - start
        data = np.empty(count, np.uint8)
        try:
            # ``np.fromfile`` would not tell a drive's error from the end of the file.
            with self.path.open("rb") as file:
                file.seek(self.offset + start)
                read = file.readinto(data.data)
        except OSError as error:
            raise unreachable(self.path, error) from None
        if read != count:
            raise KontextError(f"{self.path.name} has become shorter while it was read", FIELD)
        return data


def unreachable(path: Path, error: OSError) -> OSError:
    """Return the error for a file that was read before: a drive or a share may be gone for a moment."""
    return OSError(f"{path}: {error.strerror or 'cannot be read'}; start again to go on")


@dataclass(frozen=True)
class MetadataField:
    """A GGUF file's metadata value with its type, and its elements' type where it is an array (gguf's numbers)."""

    value: Any
    kind: int
    element_kind: int | None = None


@dataclass(frozen=True)
class Source:
    """A checkpoint to convert.

    Attributes:
        files: all that it consists of.
        tensors: by name, in the files' order.
        metadata: of a safetensors file, by key.
        is_gguf: whether it is a GGUF file.
    """

    files: tuple[Path, ...]
    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]
    is_gguf: bool = False

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(path.stat().st_size for path in self.files)


def open_source(path: Path) -> Source:
    """Read the headers of a safetensors or GGUF file, of sharded safetensors or of a folder in diffusers' layout.

    Args:
        path: a file; an index (``*.safetensors.index.json``); or a folder that has one or the other, itself or in
            its subfolder ``transformer``.

    Raises:
        KontextError: nothing of that kind, truncated, or contradictory.
    """
    if not path.exists():
        raise KontextError(f"no such file or folder: {path}", FIELD)
    if path.is_dir():
        path = _file_in(path / "transformer" if (path / "transformer").is_dir() else path)
    if path.name.endswith(".json"):
        return _open_shards(path)
    try:
        return _open_file(path)
    except KontextError as error:
        raise KontextError(error.reason, FIELD) from None


def _file_in(folder: Path) -> Path:
    """Return the index or the file that holds a folder's weights."""
    for pattern in (f"*{INDEX}", "*.safetensors"):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:  # variants lie beside the plain name: …model.fp16.safetensors
            found = [file for file in found if file.name.startswith("diffusion_pytorch_model.safetensors")]
        if len(found) == 1:
            return found[0]
        if list(folder.glob(pattern)):
            raise KontextError(f"several checkpoints in {folder}: name one of the files", FIELD)
    raise KontextError(f"no .safetensors file in {folder}", FIELD)


def _open_shards(index: Path) -> Source:
    places = _read_index(index)
    opened: dict[str, Source] = {}
    tensors = {}
    for name, file in places.items():
        if file not in opened:
            try:
                opened[file] = _open_file(index.parent / file)
            except KontextError as error:
                raise KontextError(error.reason, FIELD) from None
        if name not in opened[file].tensors:
            raise KontextError(f"{index.name} says that {name[:80]} is in {file}, where it is not", FIELD)
        tensors[name] = opened[file].tensors[name]
    metadata = {key: value for part in opened.values() for key, value in part.metadata.items()}
    return Source((index, *(path for part in opened.values() for path in part.files)), tensors, metadata)


def _read_index(path: Path) -> dict[str, str]:
    """Return in which file of the same folder each tensor is."""
    broken = KontextError(f"{path.name} is no index of shards: it has no table of tensors and files", FIELD)
    try:
        if path.stat().st_size > MAX_INDEX:
            raise broken
        places = json.loads(path.read_bytes())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise broken from None
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise broken
    for file in places.values():
        if Path(file).name != file or not file.endswith(".safetensors") or "\\" in file or ":" in file:
            raise KontextError(f"{path.name} names a file outside its folder: {file[:80]}", FIELD)
    return places


def _open_file(path: Path) -> Source:
    header = read_header(path)
    if any(len(tensor.name) > MAX_NAME for tensor in header.tensors):
        raise KontextError(f"{path.name}: its header has a tensor's name that is longer than any honest one")
    tensors = {
        tensor.name: StoredTensor(path, tensor.start, tensor.kind, tensor.shape, tensor.bytes)
        for tensor in header.tensors
    }
    texts = {key: value for key, value in header.metadata.items() if isinstance(value, str)}
    return Source((path,), tensors, texts, is_gguf=header.format == "GGUF")


def read_fields(path: Path) -> dict[str, MetadataField]:
    """Read a GGUF file's metadata.

    Raises:
        KontextError: a value that cannot be read.
    """
    from gguf import GGUFReader, GGUFValueType

    fields = {}
    try:
        for key, field in GGUFReader(path).fields.items():
            if key.startswith("GGUF.") or not field.types:
                continue  # the reader's own counts
            value, array = field.contents(), field.types[0] == GGUFValueType.ARRAY
            if array and not value:
                continue  # which gguf does not write
            element_kind = int(field.types[-1]) if array else None
            fields[key] = MetadataField(value, int(field.types[0]), element_kind)
    except (ValueError, IndexError, KeyError, TypeError, OSError, OverflowError) as error:
        raise KontextError(f"{path.name}: its metadata cannot be read: {first_line(error)}", FIELD) from None
    return fields
