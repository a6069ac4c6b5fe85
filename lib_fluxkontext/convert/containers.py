"""The headers of safetensors and GGUF files, before a single tensor is there."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from lib_fluxkontext.checkpoints.storage import QUANTISATION_METADATA, SCALES
from lib_fluxkontext.convert.encodings import Entry
from lib_fluxkontext.convert.formats import Format
from lib_fluxkontext.convert.source import MetadataField, Source, read_fields

ARCHITECTURE = "flux"
"""What ComfyUI-GGUF and Forge know the model by."""

REPLACED = ("general.architecture", "general.file_type", "general.quantization_version", "general.alignment", "split.")
"""How keys of a GGUF source begin that say what the output no longer is."""


def safetensors_header(entries: Iterable[Entry], metadata: dict[str, str]) -> bytes:
    """Return a safetensors file up to its data (https://github.com/huggingface/safetensors#format).

    Args:
        entries: its tensors, in the order of their bytes.
        metadata: strings by key.
    """
    table: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for entry in entries:
        offsets = [position, position + entry.bytes]
        table[entry.name] = {"dtype": entry.kind, "shape": list(entry.shape), "data_offsets": offsets}
        position += entry.bytes
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def gguf_header(entries: Iterable[Entry], fields: dict[str, MetadataField], target: Format) -> bytes:
    """Return a GGUF file up to its data, in which every tensor begins at a multiple of ``GGUF_ALIGNMENT``.

    Args:
        entries: its tensors, in the order of their bytes.
        fields: metadata to keep.
        target: format and file.
    """
    from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFValueType, GGUFWriter, LlamaFileType

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # a scanner may have it open on Windows
        path = Path(folder) / "header"
        writer = GGUFWriter(path, ARCHITECTURE)
        writer.add_quantization_version(GGML_QUANT_VERSION)
        writer.add_file_type(LlamaFileType["ALL_F32" if target.kind == "F32" else f"MOSTLY_{target.kind}"])
        for key, field in fields.items():
            if not key.startswith(REPLACED):
                element = None if field.element_kind is None else GGUFValueType(field.element_kind)
                writer.add_key_value(key, field.value, GGUFValueType(field.kind), element)
        for entry in entries:
            kind = GGMLQuantizationType[entry.kind]
            writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), entry.bytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        header = path.read_bytes()
    return header + bytes(-len(header) % GGUF_ALIGNMENT)


GGUF_ALIGNMENT = 32
"""Bytes."""


def _without_layer_formats(metadata: dict[str, str], entries: Iterable[Entry]) -> dict[str, str]:
    """Drop what ComfyUI's metadata says of layers whose weights are no longer scaled."""
    if QUANTISATION_METADATA not in metadata:
        return metadata
    kept = dict(metadata)
    text = kept.pop(QUANTISATION_METADATA)
    scaled = {entry.name.rpartition(".")[0] for entry in entries if entry.name.endswith(SCALES)}
    try:
        formats = json.loads(text)
        formats["layers"] = {name: layer for name, layer in formats["layers"].items() if name in scaled}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return kept
    return kept | ({QUANTISATION_METADATA: json.dumps(formats)} if formats["layers"] else {})


def header_of(source: Source, entries: Iterable[Entry], target: Format) -> bytes:
    """Return the output's header; the source's metadata is kept, but for what is no longer true."""
    entries = list(entries)
    metadata = dict(_without_layer_formats(source.metadata, entries))
    own = read_fields(source.files[0]) if source.is_gguf else {}
    if target.container == "gguf":
        string = 8  # GGUF's number of that type
        metadata.pop("format", None)  # safetensors' own
        fields = {key: MetadataField(value, string) for key, value in metadata.items()}
        return gguf_header(entries, fields | own, target)
    kept = {key: field.value for key, field in own.items() if not key.startswith(REPLACED)}
    strings = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in kept.items()}
    return safetensors_header(entries, strings | metadata)


def alignment_of(target: Format) -> int:
    """Return what every tensor's place in the data is a multiple of."""
    return GGUF_ALIGNMENT if target.container == "gguf" else 1
