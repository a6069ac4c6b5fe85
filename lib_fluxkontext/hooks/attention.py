"""Hooks on what attention sees, block by block, for the length of one forward of the transformer.

Blocks call an attention function of their module with queries, keys and values after rotary embedding. That function
is a module's global, so every call that does not come from a block of this transformer, in this thread, passes through
untouched.
"""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.reference_kv import ReferenceKVCache
from lib_fluxkontext.caching.sample_key import SampleKey
from lib_fluxkontext.hooks.adapter import TransformerAdapter
from lib_fluxkontext.hooks.patch import patched_attr


class AttentionHooks(ABC):
    """Hooks for one forward over some samples.

    Args:
        adapter: of the transformer.
        cache: of the references' keys and values.
        samples: one key per row of the forward.
    """

    def __init__(self, adapter: TransformerAdapter, cache: ReferenceKVCache, samples: Sequence[SampleKey]) -> None:
        self._cache = cache
        self._samples = samples
        self._axis = adapter.sequence_axis
        self._function_name = adapter.attention_function
        self._thread = threading.get_ident()
        self._block: int | None = None
        """The block that runs now and has not called attention yet."""
        self.unhooked_blocks = 0
        """Blocks that ran and never called attention: their references were neither stored nor read."""

    @abstractmethod
    def on_attention(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the keys and values that the block's attention shall see."""

    @contextmanager
    def installed(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Hook the blocks' attention while the context lasts. A block without that function computes as ever."""
        with ExitStack() as stack:
            for module in {sys.modules[type(block).__module__] for block in blocks}:
                function = vars(module).get(self._function_name)
                if callable(function):
                    stack.enter_context(patched_attr(module, self._function_name, self._hook_attention(function)))
            for index, block in enumerate(blocks):
                stack.enter_context(patched_attr(block, "forward", self._mark_block(index, block.forward)))
            yield

    def _mark_block(self, index: int, original: Callable[..., Any]) -> Callable[..., Any]:
        def forward(*args: Any, **kwargs: Any) -> Any:
            self._block = index
            try:
                return original(*args, **kwargs)
            finally:
                self.unhooked_blocks += self._block is not None
                self._block = None

        return forward

    def _hook_attention(self, original: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def attention(queries: Tensor, keys: Tensor, values: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            block = self._block
            if block is None or threading.get_ident() != self._thread:
                return original(queries, keys, values, *args, **kwargs)
            self._block = None  # a second attention in the block, an IP adapter's, reads other keys
            keys, values = self.on_attention(block, keys, values)
            return original(queries, keys, values, *args, **kwargs)

        return attention


class StoreReferenceKV(AttentionHooks):
    """Store the keys and values of the reference tokens, which are appended to the image tokens.

    Args:
        adapter: of the transformer.
        cache: where they are stored.
        samples: one key per row of the forward.
        reference_tokens: how many of the last tokens are references.
    """

    def __init__(
        self,
        adapter: TransformerAdapter,
        cache: ReferenceKVCache,
        samples: Sequence[SampleKey],
        reference_tokens: int,
    ) -> None:
        super().__init__(adapter, cache, samples)
        self._reference_tokens = reference_tokens

    def on_attention(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        start = keys.shape[self._axis] - self._reference_tokens
        reference_keys = keys.narrow(self._axis, start, self._reference_tokens)
        reference_values = values.narrow(self._axis, start, self._reference_tokens)
        self._cache.put(block, self._samples, reference_keys, reference_values)
        return keys, values


class ReadReferenceKV(AttentionHooks):
    """Append cached keys and values of the references, which do not run."""

    def on_attention(self, block: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        cached = self._cache.store.get(block, self._samples, keys.device)
        return torch.cat((keys, cached.keys), dim=self._axis), torch.cat((values, cached.values), dim=self._axis)
