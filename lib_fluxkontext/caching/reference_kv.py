"""Reference reuse: references never change, so their keys and values serve several steps.

On a refresh step all tokens run, and each block's keys (after rotary embedding) and values of the reference tokens are
kept (the first block's alone, where every computed step is a refresh). On the steps between, only text and image tokens
run, and attention reads the kept ones. What is kept is exact at the step it was made; later it is stale by what the
references' own tokens would have changed.

RegionE (Chen et al., arXiv:2510.25590) keeps keys and values of one reference of the output's size;
here there are any number, of any size, and First Block Cache works on top.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from lib_fluxkontext.caching.kv_store import KeptLayers, KeptUse, out_of_memory
from lib_fluxkontext.caching.sample_key import Step, Stream

NOT_KEPT = "Keys and values of the references did not fit into memory: the other steps computed all tokens."
NOT_SEEN = "Reference reuse found no attention to hook in this model: all tokens were computed."


@dataclass(frozen=True)
class ReuseConfig:
    """When to run the references.

    Attributes:
        refresh_every: they run in the first step that is computed so many sampler steps after the last refresh, or
            later; 1 or more. Where every step is computed that is one step in so many. Steps that First Block Cache
            reuses count too: what is kept grows stale with sigma, not with work done.
        refresh_last: they run in the last sampler step too.
    """

    refresh_every: int
    refresh_last: bool = False

    @property
    def kept_blocks(self) -> int | None:
        """How many blocks' keys and values are read again, from the first on, or None for all.

        With references in every computed step that is the block by which First Block Cache decides on the others: one
        of 57.
        """
        return 1 if self.refresh_every == 1 else None


@dataclass
class _Stream:
    """Where one stream stands: its newest computed step, and the one in which its references ran."""

    computed: int
    refreshed: int


class ReferenceReuse:
    """What one sampling pass keeps of its references, by stream.

    When a stream is refreshed depends on its own computed steps alone, so that a batch equals single runs.
    """

    def __init__(self, config: ReuseConfig, layers: KeptLayers) -> None:
        self.config = config
        self.layers = layers
        self.refreshes = 0
        self.notes: list[str] = []
        self._streams: dict[Stream, _Stream] = {}

    @property
    def given_up(self) -> bool:
        """Whether all tokens run from here on."""
        return bool(self.notes)

    def has(self, stream: Stream) -> bool:
        """Whether this stream's references are kept."""
        return stream in self._streams

    def due(self, stream: Stream, step: Step) -> bool:
        """Whether the references must run if this step is computed."""
        state = self._streams.get(stream)
        if state is None or self.config.kept_blocks is not None:
            return True
        if state.computed == step.index:  # second-order samplers call twice in a step
            return False
        late = step.index - state.refreshed >= self.config.refresh_every
        return late or (step.last and self.config.refresh_last)

    def begin_refresh(self, streams: Sequence[Stream]) -> None:
        """The references of these streams are about to run: what was kept of them is not used any more."""
        for stream in streams:
            self._streams.pop(stream, None)
        self.layers.begin(streams)

    def keep(self, layer: int, streams: Sequence[Stream], keys: Tensor, values: Tensor) -> None:
        """Keep one block's keys and values; gives up where memory does not suffice.

        Args:
            layer: place of the block among all blocks.
            streams: one key a row.
            keys: (B, …) of the reference tokens alone, after rotary embedding, in the attention's own axes.
            values: likewise.
        """
        if self.given_up:
            return
        try:
            self.layers.put(layer, streams, keys, values)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            self.give_up(NOT_KEPT)

    def computed(self, stream: Stream, step: Step, refreshed: bool, blocks: int) -> None:
        """A stream's step was computed.

        Args:
            stream: whose.
            step: which.
            refreshed: whether its references ran and were kept.
            blocks: how many blocks must have been seen for what is kept to be whole.
        """
        if self.given_up:
            return
        if not refreshed:
            self._streams[stream].computed = step.index
        elif self.layers.count(stream) == blocks:
            self.refreshes += 1
            self._streams[stream] = _Stream(step.index, step.index)
        else:
            self.give_up(NOT_SEEN)

    def drop(self, streams: Sequence[Stream]) -> None:
        """Forget some streams."""
        for stream in streams:
            self._streams.pop(stream, None)
        self.layers.drop(streams)

    def give_up(self, note: str) -> None:
        """Free everything and keep nothing more."""
        self.notes.append(note)
        self.clear()

    def clear(self) -> None:
        """Forget every stream."""
        self._streams.clear()
        self.layers.clear()

    def use(self) -> KeptUse:
        """What was kept, for the report."""
        return KeptUse(self.layers.peak_bytes, self.layers.place, self.refreshes)

    def finish(self) -> KeptUse:
        """Sampling is over: forget everything, and say what was kept."""
        self.clear()
        return self.use()
