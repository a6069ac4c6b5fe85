"""One run through the blocks under First Block Cache: the first measures, the rest compute or stand aside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from lib_fluxkontext.caching.first_block import FirstBlockCache
from lib_fluxkontext.caching.sample_key import Decision, Step, Stream
from lib_fluxkontext.hooks.adapter import TransformerLayout


class BlockPass:
    """Replacements for the blocks' ``forward`` during one forward of the transformer.

    The first block always runs. On a hit its hook already returns the finished image tokens, alone: neither
    references nor text, because nothing after it reads them any more, and the other blocks hand on what they
    are given. On a miss everything runs, and the last block's hook stores what came of it.

    Blocks may write into their inputs (Forge Neo's do), so what is compared is kept by value.

    Args:
        layout: of the transformer.
        cache: decides and keeps.
        streams: one key a row.
        step: the sampler step.
        sigmas: (B,) noise levels.
        generated: tokens of the picture.
        due: rows that may be reused here but not computed; one flag a row, or none at all.
        forced: rows that are computed without asking the cache.
    """

    def __init__(
        self,
        layout: TransformerLayout,
        cache: FirstBlockCache,
        streams: Sequence[Stream],
        step: Step,
        sigmas: Tensor,
        generated: int,
        due: Sequence[bool] = (),
        forced: frozenset[int] = frozenset(),
    ) -> None:
        self.layout = layout
        self.cache = cache
        self.streams = streams
        self.step = step
        self.sigmas = sigmas
        self.generated = generated
        self.due = due or (False,) * len(streams)
        self.forced = forced
        self.decisions: list[Decision] = []
        self.missing: list[int] = []
        """Rows that still need a run of their own, after a pass in which only some hit."""
        self.finished: list[int] = list(range(len(streams)))
        """Rows whose output this pass gives."""
        self.computed: list[int] = list(range(len(streams)))
        """Rows that this pass, or the one for the missing, computes."""
        self._aside = False
        self._given: tuple[Tensor, Tensor] | None = None
        self._first_residual: Tensor | None = None
        self._first_output: Tensor | None = None
        self._text_tokens = 0

    def hook(self, block: nn.Module, first: bool, last: bool) -> Callable[..., Any]:
        """The forward that stands in for ``block``'s."""
        original = block.forward
        if first:
            return lambda *args, **kwargs: self._first(original, args, kwargs)

        def rest(*args: Any, **kwargs: Any) -> Any:
            if self._aside:
                return self.layout.unchanged(block, args, kwargs)
            output = original(*args, **kwargs)
            if last:
                self._store(self.layout.last_image(output, self._text_tokens))
            return output

        return rest

    def for_missing(self, rows: Tensor) -> BlockPass:
        """A pass over the missing rows alone that starts from the first block's output of this one."""
        follow_up = BlockPass(
            self.layout,
            self.cache,
            [self.streams[row] for row in self.missing],
            self.step,
            self.sigmas[rows.to(self.sigmas.device)],
            self.generated,
        )
        image, text = self._given
        follow_up._given = (image[rows], text[rows])
        follow_up._measured(image[rows], text, self._first_residual[rows])
        return follow_up

    def _first(self, original: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        if self._given is not None:
            return self.layout.join(*self._given)
        before = self.layout.block_image(args, kwargs)[:, : self.generated].clone()
        output = original(*args, **kwargs)
        image, text = self.layout.split(output)
        residual = image[:, : self.generated] - before
        self.decisions = self._decide(residual)
        hits = [decision.reuse for decision in self.decisions]
        self.computed = [row for row, hit in enumerate(hits) if not hit and not self.due[row]]
        if len(self.computed) == len(hits):
            self._measured(image, text, residual)
            return output
        self._aside = True
        self.finished = [row for row, hit in enumerate(hits) if hit]
        self.missing = self.computed
        if self.missing:
            self._given = (image.clone(), text.clone())
            self._first_residual = residual
        return self.layout.join(self._finished(image, hits), text[:, :0])

    def _decide(self, residual: Tensor) -> list[Decision]:
        if not self.forced:
            return self.cache.decide(self.streams, self.step, self.sigmas, residual)
        open_rows = [row for row in range(len(self.streams)) if row not in self.forced]
        decisions = dict.fromkeys(self.forced, Decision(False))
        if open_rows:
            streams = [self.streams[row] for row in open_rows]
            decided = self.cache.decide(streams, self.step, self.sigmas[open_rows], residual[open_rows])
            decisions.update(zip(open_rows, decided, strict=True))
        return [decisions[row] for row in range(len(self.streams))]

    def _finished(self, image: Tensor, hits: Sequence[bool]) -> Tensor:
        """(B, n, d): fresh first-block output plus stored residual where it hit; the other rows are not used."""
        image = image[:, : self.generated]
        if not any(hits):
            return image
        if all(hits):
            return image + self.cache.residual(self.streams, self.sigmas)
        rows = [row for row, hit in enumerate(hits) if hit]
        image = image.clone()
        image[rows] += self.cache.residual([self.streams[row] for row in rows], self.sigmas[rows])
        return image

    def _measured(self, image: Tensor, text: Tensor, residual: Tensor) -> None:
        self._first_residual = residual
        self._first_output = image[:, : self.generated].clone()
        self._text_tokens = text.shape[1]

    def _store(self, image: Tensor) -> None:
        rest = image[:, : self.generated] - self._first_output
        self.cache.store(self.streams, self.step, self.sigmas, self._first_residual, rest)
