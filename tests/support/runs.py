"""Runs for tests of the run log and of its tables."""

from __future__ import annotations

import dataclasses

from lib_fluxkontext.history.record import Run

RUN = Run(
    made="2026-11-21 14:05:09",
    checkpoint="flux1-kontext-dev-Q8_0",
    low_bits="Automatic",
    loras="",
    sampler="Euler",
    scheduler="Simple",
    steps=20,
    size="1024×768",
    images=1,
    seed=7,
    reference_tokens=8192,
    cache="0.14, forecast",
    reference_refresh=4,
    reused_share=0.55,
    computed_seconds=6.0,
    kept_seconds=2.5,
    reused_seconds=0.2,
    sampling_seconds=50.0,
    encode_seconds=1.5,
    memory_bytes=9 * 2**30,
    on_card=True,
    settings="{}",
    thumbnail=b"\xff\xd8",
)


def run(**changes: object) -> Run:
    """``RUN`` with changes."""
    return dataclasses.replace(RUN, **changes)
