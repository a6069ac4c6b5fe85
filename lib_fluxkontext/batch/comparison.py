"""The table of a comparison: what each cell of the grid cost, and how near it is to the uncached picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lib_fluxkontext.batch.folder import OutputFolder
from lib_fluxkontext.batch.grid import OFF, Cell, Place
from lib_fluxkontext.batch.measures import Measures, measure
from lib_fluxkontext.batch.quality import Quality, compare
from lib_fluxkontext.batch.record import read_failed_record, read_record


@dataclass(frozen=True)
class Entry:
    """A line of the table.

    Attributes:
        place: in the grid.
        picture: the file, or None where it was not made.
        reason: why not.
        measures: what it cost.
        quality: against the uncached picture; None of that itself, and where that is missing.
        speed_up: against the uncached picture's sampling; None likewise.
    """

    place: Place
    picture: Path | None = None
    reason: str | None = None
    measures: Measures = field(default_factory=Measures)
    quality: Quality | None = None
    speed_up: float | None = None

    @property
    def is_reference(self) -> bool:
        """Whether others are compared with it."""
        return self.place.cache == OFF

    @property
    def memory(self) -> int | None:
        """Bytes: of the card at its peak, or of the process where there is no card."""
        return self.measures.vram_peak if self.measures.device else self.measures.process_memory


@dataclass(frozen=True)
class Comparison:
    """All of a comparison.

    Attributes:
        prompt: the instruction.
        images: the references, in order.
        facts: what all pictures share, such as ``"seed 0"``.
        entries: in the grid's order.
    """

    prompt: str
    images: Sequence[Path]
    facts: Sequence[str]
    entries: Sequence[Entry]

    @property
    def caches(self) -> list[str]:
        """Columns of the picture grid."""
        return list(dict.fromkeys(entry.place.cache for entry in self.entries))

    @property
    def groups(self) -> dict[tuple[str, str, int], dict[str, Entry]]:
        """Rows of the picture grid: (checkpoint, LoRA, steps) → cache → entry."""
        groups: dict[tuple[str, str, int], dict[str, Entry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.place.group, {})[entry.place.cache] = entry
        return groups

    @property
    def has_card(self) -> bool:
        """Whether memory is that of a card."""
        return any(entry.measures.device for entry in self.entries)

    @property
    def devices(self) -> list[str]:
        """Cards that made the pictures."""
        return list(dict.fromkeys(entry.measures.device for entry in self.entries if entry.measures.device))


def read_comparison(folder: Path, cells: Sequence[Cell], images: Sequence[Path]) -> Comparison:
    """Read what was made of a grid, and compare the pictures.

    Args:
        folder: of the output.
        cells: of ``grid.make_grid``, at least one.
        images: the references.
    """
    files = OutputFolder(folder)
    made = [_entry(cell, files) for cell in cells]
    references = {entry.place.group: entry for entry in made if entry.is_reference}
    row = cells[0].row
    facts = [f"{row.width}×{row.height}", f"seed {row.seed}", f"guidance {row.guidance:g}"]
    return Comparison(
        row.prompt, images, facts, [_compared(entry, references.get(entry.place.group)) for entry in made]
    )


def group_label(group: tuple[str, str, int], groups: Sequence[tuple[str, str, int]]) -> list[str]:
    """Say what a row of the grid is, without what all rows have in common; steps are always said."""
    checkpoint, lora, steps = group
    parts = []
    if checkpoint and len({other[0] for other in groups}) > 1:
        parts.append(checkpoint)
    if len({other[1] for other in groups}) > 1:
        parts.append(lora or "no LoRA")
    return [*parts, f"{steps} steps" if steps != 1 else "1 step"]


def _entry(cell: Cell, files: OutputFolder) -> Entry:
    record = read_record(files.record_path(cell.row.key))
    if record is None:
        failed = read_failed_record(files.failed_path(cell.row.key))
        return Entry(cell.place, reason=failed["reason"] if failed else "not made")
    return Entry(cell.place, files.picture_path(cell.row.key), measures=measure(record["report"]))


def _compared(entry: Entry, reference: Entry | None) -> Entry:
    if entry.is_reference or entry.picture is None or reference is None or reference.picture is None:
        return entry
    with Image.open(entry.picture) as picture, Image.open(reference.picture) as exact:
        quality = compare(picture, exact)
    before, now = reference.measures.sampling_seconds, entry.measures.sampling_seconds
    speed_up = before / now if before and now else None
    return Entry(entry.place, entry.picture, None, entry.measures, quality, speed_up)
