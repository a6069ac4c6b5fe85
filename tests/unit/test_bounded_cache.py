"""What is kept up to a number of bytes; the least recently used goes first."""

from __future__ import annotations

from lib_fluxkontext.bounded_cache import BoundedCache


def test_what_was_used_last_stays_and_the_bytes_are_those_that_are_held() -> None:
    cache: BoundedCache[str] = BoundedCache(6, len)
    for key, value in (("a", "aa"), ("b", "bb"), ("c", "cc")):
        cache.put(key, value)
    assert cache.get("a") == "aa"
    cache.put("d", "ddd")  # b and c go
    assert [cache.get(key) for key in "abcd"] == ["aa", None, None, "ddd"]
    assert (cache.held_bytes, len(cache)) == (5, 2)


def test_a_key_that_comes_again_is_counted_once() -> None:
    cache: BoundedCache[str] = BoundedCache(6, len)
    for value in ("a", "aaaa", "aaa"):
        cache.put("a", value)
    assert (cache.get("a"), cache.held_bytes, len(cache)) == ("aaa", 3, 1)


def test_one_larger_than_the_bound_is_not_kept_and_takes_nothing_with_it_but_its_own_former_value() -> None:
    cache: BoundedCache[str] = BoundedCache(3, len)
    cache.put("a", "a")
    cache.put("b", "b")
    cache.put("a", "aaaa")
    assert [cache.get(key) for key in "ab"] == [None, "b"]
    assert cache.held_bytes == 1


def test_a_smaller_bound_holds_at_once_and_clearing_leaves_nothing() -> None:
    cache: BoundedCache[str] = BoundedCache(9, len)
    for key in "abc":
        cache.put(key, key)
    cache.resize(1)
    assert [cache.get(key) for key in "abc"] == [None, None, "c"]
    cache.clear()
    assert (cache.held_bytes, len(cache)) == (0, 0)
