"""One forward of the transformer: which images run with their references, which on kept ones, which not at all.

Images of a batch go different ways. Those that need the same are run together:

1. **light**: text and image tokens alone; attention reads the kept keys and values of the references. First Block
   Cache decides here. An image that it would compute, but whose references are due, goes on to 2.
2. **full**: references behind the image tokens; their keys and values are kept for the steps to come.

Without reference reuse everything is full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lib_fluxkontext.caching.kv_store import out_of_memory
from lib_fluxkontext.caching.reference_kv import NOT_KEPT, NOT_SEEN
from lib_fluxkontext.caching.sample_key import Decision
from lib_fluxkontext.hooks.adapter import TransformerLayout
from lib_fluxkontext.hooks.attention import AttentionTap
from lib_fluxkontext.hooks.block_run import BlockPass
from lib_fluxkontext.hooks.model_call import ModelCall
from lib_fluxkontext.hooks.patch import replaced


class ForwardPlan:
    """Runs one forward.

    Args:
        transformer: whose blocks are hooked.
        layout: what it calls things.
        call: references, caches and streams; its counts and decisions are filled in.
        original: the transformer's own forward.
        arguments: of that forward, by name, the references not yet in them.
    """

    def __init__(
        self,
        transformer: nn.Module,
        layout: TransformerLayout,
        call: ModelCall,
        original: Callable[..., Any],
        arguments: Mapping[str, Any],
    ) -> None:
        self._layout = layout
        self._call = call
        self._cache = call.caches.cache
        self._reuse = call.caches.reuse
        self._correction = call.caches.correction
        self._original = original
        self._arguments = dict(arguments)
        self._blocks = layout.blocks(transformer)
        self._kept_blocks = self._blocks[: self._reuse.config.kept_blocks] if self._reuse is not None else ()
        self._batch, self._generated = arguments[layout.image_argument].shape[:2]
        self._others: tuple | None = None
        self._done: dict[int, Tensor] = {}
        self._decisions: dict[int, Decision] = {}

    def run(self) -> Any:
        """The forward's output, as the transformer gives it, over the generated image's tokens."""
        call = self._call
        call.forwards += 1
        if call.forwards > 1 or self._generated != call.image_tokens or self._batch != len(call.streams):
            call.tiled = True
        if call.tiled:  # a tile's place in the picture is not known here, so it cannot own a state
            for state in (self._cache, self._reuse, self._correction):
                if state is not None:
                    state.clear()
        if call.tiled or (self._cache is None and self._reuse is None):
            return self._as_given(self._forward(range(self._batch), references=True))
        image = self._image_within_memory()
        decisions = [self._decisions[row] for row in range(self._batch)]
        call.decisions.extend(decisions)
        if self._correction is not None:
            exact = [not (one.reuse or one.references_kept) for one in decisions]
            image = self._correction.corrected(call.streams, call.sigmas, exact, image)
        return self._as_given(image)

    def _image_within_memory(self) -> Tensor:
        """(B, n, C). What is kept of the references must never be why a generation fails."""
        try:
            return self._image()
        except (RuntimeError, MemoryError) as error:
            if self._reuse is None or not self._reuse.layers.held_bytes or not out_of_memory(error):
                raise
        self._reuse.give_up(NOT_KEPT)
        self._done.clear()
        return self._image()

    def _image(self) -> Tensor:
        rows = range(self._batch)
        light = [row for row in rows if self._may_go_light(row)]
        full = [row for row in rows if row not in light]
        decided = self._light(light) if light else []
        if full or decided:
            self._full(sorted(full + decided), frozenset(decided))
        return torch.stack([self._done[row] for row in rows]) if self._batch > 1 else self._done[0][None]

    def _may_go_light(self, row: int) -> bool:
        call = self._call
        stream = call.streams[row]
        if self._reuse is None or not self._reuse.has(stream):
            return False
        if not self._reuse.due(stream, call.step):
            return True
        return self._cache is not None and self._cache.may_reuse(stream, call.step)

    def _light(self, rows: Sequence[int]) -> list[int]:
        """Run images on kept references; returns those that must be computed with theirs."""
        call = self._call
        due = [self._reuse.due(call.streams[row], call.step) for row in rows]
        computed, unseen = self._group(rows, references=False, keeps=False, due=due)
        if unseen:  # attention did not come by: these images have not seen their references
            self._reuse.give_up(NOT_SEEN)
            if self._cache is not None:
                self._cache.clear()
            return list(rows)
        for row in computed:
            self._reuse.computed(call.streams[row], call.step, False, len(self._kept_blocks))
            distance = self._decisions[row].distance
            self._decisions[row] = Decision(False, distance, references_kept=True)
        return [row for row, is_due in zip(rows, due, strict=True) if is_due and row not in self._done]

    def _full(self, rows: Sequence[int], decided: frozenset[int]) -> None:
        call = self._call
        keeps = self._reuse is not None and not self._reuse.given_up and not call.step.last
        if keeps:
            self._reuse.begin_refresh([call.streams[row] for row in rows])
        computed, _ = self._group(rows, references=True, keeps=keeps, decided=decided)
        if keeps:
            for row in computed:
                self._reuse.computed(call.streams[row], call.step, True, len(self._kept_blocks))
            self._reuse.drop([call.streams[row] for row in rows if row not in computed])

    def _group(
        self,
        rows: Sequence[int],
        references: bool,
        keeps: bool,
        due: Sequence[bool] = (),
        decided: frozenset[int] = frozenset(),
    ) -> tuple[list[int], int]:
        """Run some images the same way, under First Block Cache where there is one.

        Args:
            rows: which.
            references: whether their tokens run.
            keeps: whether their keys and values are kept then.
            due: rows that must not be computed here, only reused; one flag a row, or none.
            decided: rows that must be computed, whatever the cache would say.

        Returns:
            The rows that were computed, and how many blocks ran past the attention hook.
        """
        call = self._call
        places = list(range(len(rows)))
        block_pass = None
        if self._cache is not None:
            forced = frozenset(place for place in places if rows[place] in decided)
            streams = [call.streams[row] for row in rows]
            block_pass = BlockPass(
                self._layout, self._cache, streams, call.step, self._sigmas(rows), self._generated, due or (), forced
            )
        tap = self._tap(rows, references, keeps)
        output = self._forward(rows, references, tap, block_pass)
        unseen = tap.unseen if tap else 0
        finished, computed = places, places
        if block_pass is not None:
            for place in set(places) - block_pass.forced:
                self._decisions[rows[place]] = block_pass.decisions[place]
            finished, computed = block_pass.finished, block_pass.computed
        else:
            self._decisions.update((row, Decision(False)) for row in rows)
        self._done.update((rows[place], output[place]) for place in finished)
        if block_pass is not None and block_pass.missing:
            # The pass above has finished the others; these go on from the first block's output, so that no block's
            # arguments need slicing.
            late = [rows[place] for place in block_pass.missing]
            tap = self._tap(late, references, keeps)
            index = torch.tensor(block_pass.missing, device=output.device)
            output = self._forward(late, references, tap, block_pass.for_missing(index))
            unseen += tap.unseen if tap else 0
            self._done.update(zip(late, output, strict=True))
        return [rows[place] for place in computed], unseen

    def _sigmas(self, rows: Sequence[int]) -> Tensor:
        return self._call.sigmas if len(rows) == self._batch else self._call.sigmas[list(rows)]

    def _tap(self, rows: Sequence[int], references: bool, keeps: bool) -> AttentionTap | None:
        call = self._call
        if self._reuse is None or (references and not keeps):
            return None
        tokens = call.references.count if references else 0
        streams = [call.streams[row] for row in rows]
        return AttentionTap(self._layout, self._reuse, streams, tokens, keeps)

    def _forward(
        self,
        rows: Sequence[int],
        references: bool,
        tap: AttentionTap | None = None,
        block_pass: BlockPass | None = None,
    ) -> Tensor:
        """(rows, n, C): the transformer's own forward on some images, with what is hooked on its blocks."""
        layout, call = self._layout, self._call
        arguments = self._arguments if len(rows) == self._batch else self._only(rows)
        image, ids = arguments[layout.image_argument], arguments[layout.ids_argument]
        if call.references is not None:
            image, ids = call.references.append(image, ids) if references else (image, ids.to(torch.float32))
            arguments = {**arguments, layout.image_argument: image, layout.ids_argument: ids}
        with ExitStack() as stack:
            if tap is not None:
                stack.enter_context(tap.hooked(self._kept_blocks))
            if block_pass is not None:
                stack.enter_context(_hooked(self._blocks, block_pass))
            output = self._original(**arguments)
        if isinstance(output, tuple):  # diffusers' is one of a single tensor
            output, *others = output
            self._others = tuple(others)
        return output[:, : self._generated]

    def _only(self, rows: Sequence[int]) -> dict[str, Any]:
        index = torch.tensor(list(rows), device=self._arguments[self._layout.image_argument].device)
        return {name: self._only_of(name, value, index) for name, value in self._arguments.items()}

    def _only_of(self, name: str, value: Any, index: Tensor) -> Any:
        batched = isinstance(value, Tensor) and value.shape[:1] == (self._batch,)
        return value[index] if batched and name not in self._layout.unbatched else value

    def _as_given(self, image: Tensor) -> Any:
        return image if self._others is None else (image, *self._others)


@contextmanager
def _hooked(blocks: Sequence[nn.Module], block_pass: BlockPass) -> Iterator[None]:
    with ExitStack() as stack:
        for index, block in enumerate(blocks):
            hook = block_pass.hook(block, first=index == 0, last=index == len(blocks) - 1)
            stack.enter_context(replaced(block, "forward", hook))
        yield
