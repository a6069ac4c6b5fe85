"""Hang references and cache on a transformer for the length of one model call, and let go whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.cache.first_block import Decision, FirstBlockCache, Step, Stream
from lib_fluxkontext.references.tokens import ReferenceTokens
from lib_fluxkontext.transformer.block_pass import BlockPass
from lib_fluxkontext.transformer.layout import TransformerLayout, named_arguments


class AppendedReferences:
    """Reference tokens as the transformer wants them: moved and converted once, not at every step."""

    def __init__(self, tokens: ReferenceTokens) -> None:
        self.source = tokens
        self._tokens = tokens.tokens
        self._ids = tokens.ids

    def release(self) -> None:
        """Hold no copy on the transformer's device any more."""
        self._tokens, self._ids = self.source.tokens, self.source.ids

    def append(self, image: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n, C) and (B, n, 3) or (n, 3) → the same with the references behind.

        Ids become float32: what a host keeps in bfloat16 is exact up to 256, beyond it would not be.

        Raises:
            ValueError: the transformer's tokens are of another width, as those of a Fill checkpoint are.
        """
        if image.shape[-1] != self._tokens.shape[-1]:
            raise ValueError(f"image tokens have {image.shape[-1]} channels, references {self._tokens.shape[-1]}")
        self._tokens = self._tokens.to(image.device, image.dtype)
        self._ids = self._ids.to(ids.device)
        batch = image.shape[0]
        more_ids = self._ids[0] if ids.ndim == 2 else self._ids.expand(batch, -1, -1)
        return (
            torch.cat((image, self._tokens.expand(batch, -1, -1)), dim=1),
            torch.cat((ids.to(torch.float32), more_ids), dim=-2),
        )


@dataclass
class ModelCall:
    """One call of the model: what goes in beside the host's own arguments, and what came of it.

    Attributes:
        streams: one key an image, in batch order.
        step: the sampler step.
        sigmas: (B,) noise levels.
        image_tokens: tokens of the whole picture; a forward on fewer is a tile, and tiles are not cached.
        references: appended to the image tokens, or None.
        cache: None computes every step.
        decisions: filled by the call, one an image; empty where no cache was at work.
        forwards: how often the transformer ran.
        tiled: whether it ran on something else than the whole picture, as it does where another extension tiles.
    """

    streams: Sequence[Stream]
    step: Step
    sigmas: Tensor
    image_tokens: int
    references: AppendedReferences | None = None
    cache: FirstBlockCache | None = None
    decisions: list[Decision] = field(default_factory=list)
    forwards: int = 0
    tiled: bool = False


@contextmanager
def replaced(target: object, name: str, value: Any) -> Iterator[None]:
    """Set an instance attribute, and put back what was there (or was not) in any case."""
    attributes = vars(target)
    missing = object()
    before = attributes.get(name, missing)
    attributes[name] = value
    try:
        yield
    finally:
        if before is missing:
            del attributes[name]
        else:
            attributes[name] = before


@contextmanager
def attached(transformer: nn.Module, layout: TransformerLayout, call: ModelCall) -> Iterator[None]:
    """While the context lasts, ``transformer`` sees the references and obeys the cache.

    Only the instance's forward and its blocks' are replaced, never a class's. With neither references nor
    cache nothing is touched.
    """
    if call.references is None and call.cache is None:
        yield
        return
    name = layout.forward_name(transformer)
    original = getattr(transformer, name)

    def forward(*args: Any, **kwargs: Any) -> Tensor | tuple:
        arguments = named_arguments(original, args, kwargs)
        generated = arguments[layout.image_argument].shape[1]
        if call.references is not None:
            image, ids = call.references.append(arguments[layout.image_argument], arguments[layout.ids_argument])
            arguments |= {layout.image_argument: image, layout.ids_argument: ids}
        call.forwards += 1
        # diffusers returns a tuple of one; Forge the tensor itself.
        output = _run(transformer, layout, call, original, arguments, generated)
        return (output[0][:, :generated], *output[1:]) if isinstance(output, tuple) else output[:, :generated]

    with replaced(transformer, name, forward):
        yield


def _run(
    transformer: nn.Module, layout: TransformerLayout, call: ModelCall, original: Any, arguments: dict, generated: int
) -> Any:
    """One forward, its blocks under the cache where that is possible."""
    batch = arguments[layout.image_argument].shape[0]
    if call.forwards > 1 or generated != call.image_tokens or batch != len(call.streams):
        call.tiled = True
    if call.cache is None:
        return original(**arguments)
    if call.tiled:  # a tile's place in the picture is not known here, so it cannot own a state
        call.cache.clear()
        return original(**arguments)
    blocks = layout.blocks(transformer)
    first_pass = BlockPass(layout, call.cache, call.streams, call.step, call.sigmas, generated)
    with _hooked(blocks, first_pass):
        output = original(**arguments)
    call.decisions.extend(first_pass.decisions)
    missing = first_pass.missing
    if not missing:
        return output
    # Some images hit and some missed. The pass above has finished the hits; finish the others alone, from the
    # first block's output on, so that no block's arguments need slicing.
    rows = torch.tensor(missing, device=arguments[layout.image_argument].device)
    some = {name: _rows(value, rows, batch, name in layout.unbatched) for name, value in arguments.items()}
    with _hooked(blocks, first_pass.for_missing(rows)):
        computed = original(**some)
    # Merged from parts rather than written into: a host may run under inference mode and keep the output.
    hits, late = _tensor(output), _tensor(computed)
    late_row = {row: place for place, row in enumerate(missing)}
    merged = [late[late_row[r]] if r in late_row else hits[r] for r in range(batch)]
    merged = torch.stack([row[:generated] for row in merged])
    return (merged, *output[1:]) if isinstance(output, tuple) else merged


@contextmanager
def _hooked(blocks: Sequence[nn.Module], block_pass: BlockPass) -> Iterator[None]:
    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            hook = block_pass.hook(block, first=index == 0, last=index == len(blocks) - 1)
            stack.enter_context(replaced(block, "forward", hook))
        yield


def _rows(value: Any, rows: Tensor, batch: int, unbatched: bool) -> Any:
    if unbatched or not isinstance(value, Tensor) or value.shape[:1] != (batch,):
        return value
    return value[rows]


def _tensor(output: Any) -> Tensor:
    return output[0] if isinstance(output, tuple) else output
