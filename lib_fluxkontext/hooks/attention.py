"""Reads and replaces what attention sees, block by block, for the length of one forward of the transformer.

Blocks call an attention function of their module with queries, keys and values after rotary embedding. That function
is a module's global, so every call that does not come from a block of this transformer, in this thread, goes through
untouched.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.reference_kv import ReferenceReuse
from lib_fluxkontext.caching.sample_key import Stream
from lib_fluxkontext.hooks.adapter import TransformerLayout
from lib_fluxkontext.hooks.patch import replaced


class AttentionTap:
    """One forward over some streams: keeps the references' keys and values, or hands the kept ones to attention.

    Args:
        layout: of the transformer.
        reuse: where they are kept.
        streams: one key a row of the forward.
        reference_tokens: how many of the last tokens are references, where they run.
        keeps: True keeps, False hands back.
    """

    def __init__(
        self,
        layout: TransformerLayout,
        reuse: ReferenceReuse,
        streams: Sequence[Stream],
        reference_tokens: int,
        keeps: bool,
    ) -> None:
        self._layout = layout
        self._reuse = reuse
        self._streams = streams
        self._reference_tokens = reference_tokens
        self._keeps = keeps
        self._thread = threading.get_ident()
        self._block: int | None = None
        """The block that runs now and has not called attention yet."""
        self.unseen = 0
        """Blocks that ran and never called attention: their references were neither kept nor handed back."""

    @contextmanager
    def hooked(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """While it lasts, the blocks' attention goes through here. A block without that function computes as ever."""
        name = self._layout.attention_function
        with ExitStack() as stack:
            for module in {sys.modules[type(block).__module__] for block in blocks}:
                if callable(vars(module).get(name)):
                    stack.enter_context(replaced(module, name, self._attention(vars(module)[name])))
            for index, block in enumerate(blocks):
                stack.enter_context(replaced(block, "forward", self._block_forward(index, block.forward)))
            yield

    def _block_forward(self, index: int, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            self._block = index
            try:
                return original(*args, **kwargs)
            finally:
                self.unseen += self._block is not None
                self._block = None

        return forward

    def _attention(self, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        axis = self._layout.sequence_axis

        def attention(queries: Tensor, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            block = self._block
            if block is None or threading.get_ident() != self._thread:
                return original(queries, keys, values, *args, **kwargs)
            self._block = None  # a second attention in the block, an IP adapter's, reads other keys
            if self._keeps:
                start = keys.shape[axis] - self._reference_tokens
                of_references = (one.narrow(axis, start, self._reference_tokens) for one in (keys, values))
                self._reuse.keep(block, self._streams, *of_references)
            else:
                kept_keys, kept_values = self._reuse.layers.get(block, self._streams, keys.device)
                keys = torch.cat((keys, kept_keys), dim=axis)
                values = torch.cat((values, kept_values), dim=axis)
            return original(queries, keys, values, *args, **kwargs)

        return attention
