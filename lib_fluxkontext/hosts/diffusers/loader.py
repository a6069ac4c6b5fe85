"""Load a checkpoint as a ``FluxKontextPipeline``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from lib_fluxkontext.checkpoints.flux import checkpoint_facts
from lib_fluxkontext.checkpoints.support import why_not_loaded
from lib_fluxkontext.convert.decode import quiet_bitsandbytes
from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.hosts.diffusers.single_file import read_transformer

Pipeline = Any
"""A ``FluxKontextPipeline``. Type checkers see only the placeholder that diffusers has for missing dependencies."""

SMALL_MODEL = Path(__file__).resolve().parents[2] / "small_kontext"
"""The small trained model of this project, in diffusers' layout."""

_FLUX_TENSORS = ("double_blocks.0.img_attn.qkv.weight", "transformer_blocks.0.attn.add_q_proj.weight")
"""One of the original layout and one of diffusers'; other architectures have neither."""


def load_pipeline(
    checkpoint: Path | None = None,
    base: Path | None = None,
    device: str | None = None,
    nf4: bool = False,
    offload: bool = False,
) -> Pipeline:
    """Load a pipeline.

    Args:
        checkpoint: None for the small model; a folder in diffusers' layout; or a ``.safetensors`` or ``.gguf`` file
            that holds the transformer, in the original layout or in diffusers'.
        base: folder in diffusers' layout with the other components; needed beside a file.
        device: ``"cuda"``, ``"cuda:1"`` for the second card, or ``"cpu"``; None takes CUDA where there is one.
        nf4: quantise the transformer to NF4 with bitsandbytes while loading; needs CUDA.
        offload: keep only the component that is running on the GPU.

    Raises:
        KontextError: a path that does not exist or is not a FLUX checkpoint, or an option that this machine cannot
            serve.
    """
    target, path = _resolve(checkpoint, device, nf4, offload)
    quiet_bitsandbytes()
    # The small model is as fast in float32, and more precise.
    dtype = torch.float32 if checkpoint is None or target.type == "cpu" else torch.bfloat16
    # bitsandbytes quantises on the current card, whichever the model is for.
    with torch.cuda.device(target) if target.type == "cuda" else nullcontext():
        pipeline = _from_folder(path, dtype, nf4) if path.is_dir() else _from_file(path, base, dtype, nf4)
    if offload:
        pipeline.enable_model_cpu_offload(device=target)  # without a device it takes the first card
    else:
        pipeline.to(target)
    return pipeline


def check_checkpoint(
    checkpoint: Path | None = None,
    base: Path | None = None,
    device: str | None = None,
    nf4: bool = False,
    offload: bool = False,
) -> torch.device:
    """Check what can be checked before loading; of a file, only the header is read.

    Takes the arguments of ``load_pipeline``, and returns the device that it would load on.

    Raises:
        KontextError: as ``load_pipeline`` does, unless the tensors themselves are to blame.
    """
    target, path = _resolve(checkpoint, device, nf4, offload)
    if path.is_dir():
        _check_folder(path)
    else:
        _check_file(path, base)
    return target


def _resolve(checkpoint: Path | None, device: str | None, nf4: bool, offload: bool) -> tuple[torch.device, Path]:
    """Return the device to load on and the path to load."""
    target = _target(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if (nf4 or offload) and target.type != "cuda":
        raise KontextError("needs a CUDA device", "nf4" if nf4 else "offload")
    path = checkpoint or SMALL_MODEL
    if not path.exists():
        raise KontextError(f"no such file or folder: {path}", "checkpoint")
    return target, path


def _target(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise KontextError(f'got the text "{name}"; allowed: cuda, cuda:1 and so on, or cpu', "device") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise KontextError("there is no CUDA device here", "device")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise KontextError(f"there is no {device} here; cards, counted from 0: {torch.cuda.device_count()}", "device")
    if device.type in ("cuda", "cpu"):
        return device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # a torch without XPU asserts
        raise KontextError(f"{device} cannot be used here: {first_line(error)}", "device") from None
    return device


def _check_folder(path: Path) -> None:
    if not (path / "model_index.json").is_file() or not (path / "transformer").is_dir():
        raise KontextError(f"not a FLUX pipeline in diffusers' layout: {path}", "checkpoint")


def _from_folder(path: Path, dtype: torch.dtype, nf4: bool) -> Pipeline:
    _check_folder(path)
    from diffusers import FluxKontextPipeline, FluxTransformer2DModel

    components: dict[str, Any] = {}
    try:
        with _no_loading_bars():
            if nf4:
                options = {"quantization_config": _nf4_config(dtype), dtype_argument(): dtype}
                components["transformer"] = FluxTransformer2DModel.from_pretrained(path / "transformer", **options)
            return FluxKontextPipeline.from_pretrained(path, **{dtype_argument(): dtype}, **components)
    except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise KontextError(f"could not be loaded as a FLUX pipeline: {error}", "checkpoint") from None


def _check_file(path: Path, base: Path | None) -> Path:
    """Return the base folder, which a file needs."""
    names = tensor_names(path)
    refused = why_not_loaded(checkpoint_facts(path), "diffusers")
    if refused is not None:
        raise KontextError(f"{path.name}: {refused}", "checkpoint")
    if not any(name.endswith(_FLUX_TENSORS) for name in names):
        raise KontextError(f"not a FLUX checkpoint: {path.name} has none of FLUX's tensors", "checkpoint")
    if base is None:
        raise KontextError("needed beside a single file: a folder in diffusers' layout with the other parts", "base")
    if not (base / "model_index.json").is_file():
        raise KontextError(f"not a pipeline in diffusers' layout: {base}", "base")
    return base


def _from_file(path: Path, base: Path | None, dtype: torch.dtype, nf4: bool) -> Pipeline:
    base = _check_file(path, base)
    from diffusers import FluxKontextPipeline, FluxTransformer2DModel, GGUFQuantizationConfig

    options: dict[str, Any] = {dtype_argument(): dtype, "config": str(base / "transformer")}
    if path.suffix.lower() == ".gguf":
        options["quantization_config"] = GGUFQuantizationConfig(compute_dtype=dtype)
    elif nf4:
        options["quantization_config"] = _nf4_config(dtype)
    with _no_loading_bars():
        try:
            weights = read_transformer(path, dtype)
            transformer = FluxTransformer2DModel.from_single_file(weights, **options)
        except KontextError:
            raise
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise KontextError(f"{path.name} could not be loaded: {error}", "checkpoint") from None
        return FluxKontextPipeline.from_pretrained(base, transformer=transformer, **{dtype_argument(): dtype})


@contextmanager
def _no_loading_bars() -> Iterator[None]:
    """Hide the libraries' bars while the context lasts: one for the pipeline, one for each text encoder."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    libraries: tuple[Any, ...] = (diffusers_logging, transformers_logging)
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def tensor_names(path: Path) -> list[str]:
    """Read the names of all tensors in a file, from its header.

    Raises:
        KontextError: an unknown format, or a damaged file.
    """
    match path.suffix.lower():
        case ".safetensors":
            from safetensors import SafetensorError, safe_open

            try:
                with safe_open(path, framework="pt") as file:
                    return list(file.keys())
            except (SafetensorError, OSError) as error:
                raise KontextError(f"{path.name} is not a safetensors file: {error}", "checkpoint") from None
        case ".gguf":
            from gguf import GGUFReader

            try:
                return [tensor.name for tensor in GGUFReader(path).tensors]
            except (ValueError, OSError, IndexError, KeyError) as error:
                raise KontextError(f"{path.name} is not a GGUF file: {error}", "checkpoint") from None
    raise KontextError(f"{path.name}: only .safetensors, .gguf and folders can be read", "checkpoint")


def dtype_argument() -> str:
    """Return diffusers' name of the dtype argument. 0.42 renamed it; the last version for Python 3.10 is 0.41."""
    import diffusers

    major, minor = (int(part) for part in diffusers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (0, 42) else "torch_dtype"


def _nf4_config(dtype: torch.dtype) -> Any:
    from diffusers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
