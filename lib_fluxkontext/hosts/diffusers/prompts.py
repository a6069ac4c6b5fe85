"""Embedded prompts, kept between generations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from lib_fluxkontext.bounded_cache import BoundedCache

MAX_BYTES = 512 * 2**20
"""Default bound. FLUX's embedding of a prompt is a 512×4096 tensor, 4 MiB in bfloat16."""


class PromptCache:
    """A ``BoundedCache`` of embedded prompts, in main memory.

    Prompts are embedded one at a time, so that an embedding does not depend on what else is in a batch.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.embedded = 0
        """Prompts that went through the text encoders."""
        self._held: BoundedCache[tuple[Tensor, Tensor]] = BoundedCache(
            max_bytes, lambda embedding: sum(tensor.nbytes for tensor in embedding)
        )

    def embed(self, pipeline: Any, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Embed a batch of prompts.

        Returns:
            (B, tokens, d) of T5 and (B, d) of CLIP, on the device that samples.
        """
        found = {prompt: self._embed(pipeline, prompt) for prompt in dict.fromkeys(prompts)}
        device = pipeline._execution_device
        texts, pooled = zip(*(found[prompt] for prompt in prompts), strict=True)
        return torch.cat(texts).to(device), torch.cat(pooled).to(device)

    def clear(self) -> None:
        """Forget everything: the text encoders are others now."""
        self._held.clear()

    def _embed(self, pipeline: Any, prompt: str) -> tuple[Tensor, Tensor]:
        held = self._held.get(prompt)
        if held is not None:
            return held
        text, pooled, _ = pipeline.encode_prompt(prompt=prompt, max_sequence_length=_text_tokens(pipeline))
        self.embedded += 1
        embedding = (text.cpu(), pooled.cpu())
        self._held.put(prompt, embedding)
        return embedding


def _text_tokens(pipeline: Any) -> int:
    """Return 512 as in the pipeline's own default, or what a small text encoder's tokenizer allows."""
    return min(512, int(pipeline.tokenizer_2.model_max_length))
