"""Latents kept between generations: bounded, and honest about what was there."""

from __future__ import annotations

import pytest
import torch

from lib_fluxkontext.references.latent_cache import LatentCache, UncacheableLatent

LATENT = torch.zeros(1, 16, 4, 4)
BYTES = LATENT.nelement() * 4


def test_a_second_time_encodes_nothing() -> None:
    store, count = LatentCache(), []

    def encode() -> torch.Tensor:
        count.append(1)
        return LATENT

    assert [store.get("a", encode)[1] for _ in range(3)] == [False, True, True]
    assert len(count) == 1


def test_the_least_recently_used_goes_first() -> None:
    store = LatentCache(max_bytes=2 * BYTES)
    for key in ("a", "b", "a", "c"):
        store.get(key, lambda: LATENT)
    assert [store.get(key, lambda: LATENT)[1] for key in ("a", "c", "b")] == [True, True, False]
    assert store.held_bytes <= 2 * BYTES


@pytest.mark.parametrize("bound", [0, 1, BYTES - 1])
def test_one_that_is_larger_than_the_bound_serves_and_is_not_kept(bound: int) -> None:
    store = LatentCache(max_bytes=bound)
    assert [store.get("a", lambda: LATENT)[1] for _ in range(2)] == [False, False]
    assert store.held_bytes == 0


def test_a_new_bound_holds_at_once() -> None:
    store = LatentCache()
    for key in ("a", "b", "c"):
        store.get(key, lambda: LATENT)
    store.resize(2 * BYTES)
    assert [store.get(key, lambda: LATENT)[1] for key in ("b", "c")] == [True, True]
    store.resize(0)
    assert len(store) == 0
    store.resize(BYTES)
    assert [store.get("a", lambda: LATENT)[1] for _ in range(2)] == [False, True]


def test_a_failed_encode_keeps_nothing() -> None:
    store = LatentCache()

    def fail() -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        store.get("a", fail)
    assert len(store) == 0


def test_what_is_kept_is_not_the_callers_tensor() -> None:
    store, mine = LatentCache(), LATENT.clone()
    store.get("a", lambda: mine)
    mine += 1
    assert store.get("a", lambda: mine)[0].abs().max() == 0


def test_a_makeshift_latent_serves_once_and_is_not_kept() -> None:
    def on_tiles() -> torch.Tensor:
        raise UncacheableLatent(LATENT + 1)

    store = LatentCache()
    latent, kept = store.get("a", on_tiles)
    assert latent.max() == 1
    assert not kept
    assert len(store) == 0
