"""One run through the blocks under First Block Cache: the first block measures, the others compute or pass through."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.first_block import FirstBlockCache
from lib_fluxkontext.caching.sample_key import Decision, SampleKey, Step
from lib_fluxkontext.hooks.adapter import Args, Kwargs, TransformerAdapter
from lib_fluxkontext.hooks.patch import patched_attr


@dataclass(frozen=True)
class FirstBlockOutput:
    """What the first block returned.

    Attributes:
        image: (B, N, d), references included.
        text: (B, t, d).
        residual: (B, n, d), output − input over the generated image's tokens.
    """

    image: Tensor
    text: Tensor
    residual: Tensor

    def rows(self, index: Tensor) -> FirstBlockOutput:
        """Select some rows."""
        return FirstBlockOutput(self.image[index], self.text[index], self.residual[index])


class BlockRun:
    """Stand-ins for the blocks' ``forward`` during one forward of the transformer.

    The first block always runs. On a hit its hook already returns the finished image tokens, alone: neither references
    nor text, because nothing after it reads them any more, and the other blocks return what they are given. On a miss
    everything runs, and the last block's hook stores the result.

    Blocks may write into their inputs (Forge Neo's do), so what is compared is cloned first.

    Args:
        adapter: of the transformer.
        cache: decides and stores.
        samples: one key per row.
        step: the sampler step.
        sigmas: (B,) noise levels.
        image_tokens: tokens of the generated image.
        reuse_only: rows that may be reused here but not computed.
        forced: rows that are computed without asking the cache.
        resume_from: start from this output instead of running the first block; all rows are then computed.
    """

    def __init__(
        self,
        adapter: TransformerAdapter,
        cache: FirstBlockCache,
        samples: Sequence[SampleKey],
        step: Step,
        sigmas: Tensor,
        image_tokens: int,
        reuse_only: frozenset[int] = frozenset(),
        forced: frozenset[int] = frozenset(),
        resume_from: FirstBlockOutput | None = None,
    ) -> None:
        self._adapter = adapter
        self._cache = cache
        self._samples = samples
        self._step = step
        self._sigmas = sigmas
        self._image_tokens = image_tokens
        self._reuse_only = reuse_only
        self._forced = forced
        self._resume_from = resume_from
        self._pass_through = False
        self._split_output: FirstBlockOutput | None = None
        """Kept only for rows that are missing."""
        self._first_image: Tensor | None = None
        self._first_residual: Tensor | None = None
        self._text_tokens = 0
        self.decisions: list[Decision] = []
        """One per row, those of forced rows without meaning."""
        self.missing: list[int] = []
        """Rows that still need a run of their own, after a run in which only some hit."""
        self.finished: list[int] = list(range(len(samples)))
        """Rows whose output this run gives."""
        self.computed: list[int] = list(range(len(samples)))
        """Rows that this run, or the one for the missing, computes."""
        if resume_from is not None:
            self._measure(resume_from)

    @contextmanager
    def installed(self, blocks: Sequence[nn.Module]) -> Iterator[None]:
        """Hook the blocks while the context lasts."""
        with ExitStack() as stack:
            for index, block in enumerate(blocks):
                hook = self._first_hook(block) if index == 0 else self._rest_hook(block, index == len(blocks) - 1)
                stack.enter_context(patched_attr(block, "forward", hook))
            yield

    def resume_missing(self, index: Tensor) -> BlockRun:
        """Make the run for the missing rows alone, which starts from this run's first-block output.

        Args:
            index: ``missing`` as a tensor, on the device of the tokens.
        """
        assert self._split_output is not None  # rows are missing only after a run that split
        return BlockRun(
            self._adapter,
            self._cache,
            [self._samples[row] for row in self.missing],
            self._step,
            self._sigmas[index.to(self._sigmas.device)],
            self._image_tokens,
            resume_from=self._split_output.rows(index),
        )

    def _first_hook(self, block: nn.Module) -> Callable[..., Any]:
        original = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._resume_from is not None:
                return self._adapter.join(self._resume_from.image, self._resume_from.text)
            return self._run_first(original, args, kwargs)

        return forward

    def _rest_hook(self, block: nn.Module, last: bool) -> Callable[..., Any]:
        original = block.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            if self._pass_through:
                return self._adapter.unchanged(block, args, kwargs)
            output = original(*args, **kwargs)
            if last:
                self._store(self._adapter.last_image(output, self._text_tokens))
            return output

        return forward

    def _run_first(self, original: Callable[..., Any], args: Args, kwargs: Kwargs) -> Any:
        before = self._adapter.block_image(args, kwargs)[:, : self._image_tokens].clone()
        output = original(*args, **kwargs)
        image, text = self._adapter.split(output)
        residual = image[:, : self._image_tokens] - before
        self.decisions = self._decide(residual)
        hits = [row for row, decision in enumerate(self.decisions) if decision.reuse]
        self.computed = [row for row in self.computed if row not in hits and row not in self._reuse_only]
        if len(self.computed) == len(self._samples):
            self._measure(FirstBlockOutput(image, text, residual))
            return output
        self._pass_through = True
        self.finished = hits
        self.missing = self.computed
        if self.missing:
            self._split_output = FirstBlockOutput(image.clone(), text.clone(), residual)
        return self._adapter.join(self._reused_image(image, hits), text[:, :0])

    def _decide(self, residual: Tensor) -> list[Decision]:
        if not self._forced:
            return self._cache.decide(self._samples, self._step, self._sigmas, residual)
        open_rows = [row for row in range(len(self._samples)) if row not in self._forced]
        decisions = dict.fromkeys(self._forced, Decision(False))
        if open_rows:
            samples = [self._samples[row] for row in open_rows]
            decided = self._cache.decide(samples, self._step, self._sigmas[open_rows], residual[open_rows])
            decisions.update(zip(open_rows, decided, strict=True))
        return [decisions[row] for row in range(len(self._samples))]

    def _reused_image(self, image: Tensor, hits: Sequence[int]) -> Tensor:
        """Add the stored residual to the first block's output, (B, n, d), where it hit; other rows are not used."""
        image = image[:, : self._image_tokens]
        if not hits:
            return image
        if len(hits) == len(self._samples):
            return self._within_bounds(image + self._cache.residual(self._samples, self._sigmas))
        image = image.clone()
        rows = list(hits)
        image[rows] += self._cache.residual([self._samples[row] for row in rows], self._sigmas[rows])
        return self._within_bounds(image)

    def _within_bounds(self, image: Tensor) -> Tensor:
        """Keep float16 within what the last block would have let through, which a reused step does not run."""
        if image.dtype != torch.float16:
            return image
        return image.clamp_(-self._adapter.float16_bound, self._adapter.float16_bound)

    def _measure(self, output: FirstBlockOutput) -> None:
        self._first_residual = output.residual
        self._first_image = output.image[:, : self._image_tokens].clone()
        self._text_tokens = output.text.shape[1]

    def _store(self, image: Tensor) -> None:
        assert self._first_residual is not None  # the first block ran before the last
        assert self._first_image is not None
        rest = image[:, : self._image_tokens] - self._first_image
        self._cache.store(self._samples, self._step, self._sigmas, self._first_residual, rest)
