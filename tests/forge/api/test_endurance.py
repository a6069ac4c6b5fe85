"""Fifty generations in a row, also failed and interrupted ones, leave neither memory nor handles behind."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Any

import psutil

from tests.support.forge_server import ForgeServer, Result
from tests.support.images import encode_image
from tests.support.leaks import assert_falls_to, counted, handles, threads
from tests.support.payloads import HOOKS, first_pass, kontext, step_kinds, two_references
from tests.support.photos import cat, woman

WARM_UP = 10
GENERATIONS = 50
MEASURED = 40
"""After each of the last so many generations the server's memory is measured. What the allocator keeps of freed memory
jumps by MiB from one to the next, up and down, so that a trend takes many of them."""

LATENT_BYTES = 16 * 64 * 64 * 4
"""A cached latent of the 512×512 photograph; the cached keys and values of a generation have 16 MiB."""

SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 4}
KINDS = ("computed", "reused", "kept", "reused")
HIRES: dict[str, Any] = {
    "enable_hr": True,
    "hr_scale": 2,
    "hr_upscaler": "Latent",
    "hr_second_pass_steps": 2,
    "denoising_strength": 0.5,
    "hr_additional_modules": ["Use same choices"],
    "hr_cfg": 1.0,
}


def everything_on(**more: Any) -> dict[str, Any]:
    """Return settings with two references and all caches, with which the steps are ``KINDS``."""
    caches = {"cache": True, "cache_threshold": 1.0, "cache_max_consecutive": 1, "reference_refresh": 4}
    small_cat = encode_image(cat().resize((96, 64)))
    return two_references(image2=small_cat, sizing="no change", **caches) | more


def generate(server: ForgeServer, number: int) -> Result:
    """Generate; of ten, one is a hires fix, one an img2img, and three follow a refused, failed or interrupted one."""
    match number % 10:
        case 3:
            return server.txt2img(**kontext(everything_on()), **SMALL, **HIRES, seed=number)
        case 5:
            return server.img2img(woman(), **kontext(everything_on()), **SMALL, seed=number)
        case 7:
            refused = server.txt2img(**kontext(everything_on(sizing="crop")), **SMALL)
            assert refused.status == 422
        case 8:
            failed = server.txt2img(**kontext(everything_on(), **{HOOKS: {"fail_at_call": 3}}), **SMALL)
            assert failed.status == 500
        case 9:
            stopped = server.txt2img(**kontext(everything_on(), **{HOOKS: {"interrupt_at_step": 2}}), **SMALL)
            assert len(first_pass(stopped)["steps"]) < SMALL["steps"]
    return server.txt2img(**kontext(everything_on()), **SMALL, seed=number)


def held(server: ForgeServer, process: psutil.Process) -> int:
    """Return the server's physical memory in bytes, after a garbage collection."""
    server.get("/small-flux/settle")
    return process.memory_info().rss


def growth(memory: Sequence[int]) -> float:
    """Fit the growth per generation as Theil and Sen do: the median slope between all pairs, which no jump moves."""
    return median((later - earlier) / (j - i) for (i, earlier), (j, later) in combinations(enumerate(memory), 2))


def test_fifty_generations_leave_neither_memory_nor_handles_behind(forge: ForgeServer) -> None:
    process = psutil.Process(forge.process.pid)
    for number in range(WARM_UP):
        assert generate(forge, number).status == 200
    alive = counted(forge)
    opened, started = handles(process), threads(forge)
    memory = []
    for number in range(GENERATIONS):
        result = generate(forge, number)
        assert result.status == 200, result.reply
        assert tuple(step_kinds(result)) == KINDS
        if number >= GENERATIONS - MEASURED:
            memory.append(held(forge, process))
    assert growth(memory) < LATENT_BYTES / 2
    assert_falls_to(lambda: handles(process), opened, "open handles")
    assert_falls_to(lambda: threads(forge), started, "threads")
    assert counted(forge) == alive


def test_decoded_photographs_are_freed_with_their_generation(forge: ForgeServer) -> None:
    """At once, not when Python happens to collect garbage: two photographs of 12 megapixels are 72 MB."""
    for number in range(3):
        assert generate(forge, number).status == 200
    alive = counted(forge, collect=False)["ours"]
    assert "Reference" not in alive
    assert "Generation" not in alive
