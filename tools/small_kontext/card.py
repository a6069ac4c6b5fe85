"""The results in the small model's card, between two comments, as ``evaluate --card`` measured them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.machine import machine

BEGIN, END = "<!-- results: evaluate --more --card -->", "<!-- end of results -->"

MAIN = "canvas and references 256x256"
WHOLE = {"mean": "mean", "worst": "worst pair", "autoencoder": "autoencoder alone"}


def write_results(card: Path, found: Mapping[str, Any], photographs: str, pairs: int | None) -> None:
    """Replace what stands between the comments.

    Args:
        card: the model's README.md.
        found: what ``evaluate`` measured, by title.
        photographs: which were used.
        pairs: of them for each instruction; None for all.

    Raises:
        ValueError: the comments are missing.
    """
    text = card.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(f"{card} has no {BEGIN} … {END}")
    card.write_text(f"{before}{BEGIN}\n{results(found, photographs, pairs)}\n{END}{after}", encoding="utf-8")


def results(found: Mapping[str, Any], photographs: str, pairs: int | None) -> str:
    """The section's text."""
    alone = [
        f"{title.removeprefix('autoencoder ')}×{title.removeprefix('autoencoder ')}: {mean(values.values()):.2f} dB"
        for title, values in found.items()
        if title.startswith("autoencoder ")
    ]
    cases = {title: rows for title, rows in found.items() if not title.startswith("autoencoder ")}
    parts = [
        f"`python -m tools.small_kontext.evaluate --more --card{f' --pairs {pairs}' if pairs else ''}`, {machine()}. "
        f"{photographs}.",
        f"Autoencoder alone, whole photographs: {', '.join(alone)}.",
        "Mean PSNR in dB against the exact answer, every kind at 256×256 with references of that size; of a kind with "
        "many instructions every pair of photographs gets another one. The last column bounds the first.",
        _table(
            [
                ("instruction", *WHOLE.values()),
                *((f"`{kind}`", *(f"{row[name]:.2f}" for name in WHOLE)) for kind, row in cases.pop(MAIN).items()),
            ]
        ),
    ]
    if cases:
        kinds = list(dict.fromkeys(kind for rows in cases.values() for kind in rows))
        lines = [("case", *(f"`{kind}`" for kind in kinds))]
        for title, rows in cases.items():
            lines.append((title, *(f"{rows[kind]['mean']:.1f}" if kind in rows else "" for kind in kinds)))
        parts += ["Other cases, 128×128 where nothing else is said, means:", _table(lines)]
    return "\n\n".join(parts)


def _table(rows: list[tuple[str, ...]]) -> str:
    head, *body = rows
    rule = "|".join(["---", *["---:"] * (len(head) - 1)])
    return "\n".join([f"| {' | '.join(head)} |", f"|{rule}|", *(f"| {' | '.join(row)} |" for row in body)])
