"""``dev.py gpu`` without a CUDA device: its exit codes, and its parts on the CPU at small size."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.gpu import __main__ as command
from benchmarks.gpu import checks, full_size, results
from benchmarks.gpu.checks import SMALL
from benchmarks.gpu.document import CHECKS, FULL_SIZE, PARTS, TITLES, page
from benchmarks.gpu.results import CheckResult, Part
from lib_fluxkontext.caching.key_values import KeyValues
from lib_fluxkontext.caching.kv_store import KVStore
from lib_fluxkontext.hooks import runner
from lib_fluxkontext.sampling.vram import GIB

CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """At this size threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def cpu_as_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command run with the CPU in place of a card."""
    monkeypatch.setattr(command, "missing_device", lambda: None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)


@pytest.mark.parametrize(
    ("built_for", "nvml", "program", "words"),
    [
        (None, False, None, "sees none"),
        ("12.8", True, "/usr/bin/nvidia-smi", "sees none"),
        (None, True, None, "was built without CUDA, though there is an NVIDIA card"),
        (None, False, "/usr/bin/nvidia-smi", "pytorch.org/get-started"),
    ],
)
def test_without_a_cuda_device_there_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    built_for: str | None,
    nvml: bool,
    program: str | None,
    words: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=lambda: None) if nvml else None)
    monkeypatch.setattr(shutil, "which", lambda name: program)
    assert command.main(["--output", str(tmp_path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.splitlines()) == 1
    assert words in shown.err
    assert torch.__version__ in shown.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("check", checks.CHECKS, ids=lambda check: check.__name__)
def test_every_check_passes_on_the_cpu(check: Callable[[torch.device], CheckResult]) -> None:
    result = check(CPU)
    assert result.passed is not False, result.detail
    assert result.passed is not None or check is checks.forge_reserves
    assert result.detail


def test_wrong_keys_and_values_from_host_memory_fail_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    right = KVStore.get

    def wrong(store: KVStore, *arguments: Any) -> KeyValues:
        found = right(store, *arguments)
        return KeyValues(found.keys, found.values + 1) if store.place == "host" else found

    monkeypatch.setattr(KVStore, "get", wrong)
    assert checks.streamed_equals_resident(CPU).passed is False
    result = checks.stored_equal_recomputed(CPU)
    assert result.passed is False
    assert "(host)" in result.detail
    assert "(device)" not in result.detail


def test_a_clock_that_is_wrong_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    from lib_fluxkontext.telemetry.clock import _HostSpan

    right = _HostSpan.seconds
    monkeypatch.setattr(_HostSpan, "seconds", lambda span: right(span) + 1.0)
    assert checks.clock_is_right(CPU).passed is False


def test_a_hook_or_a_tensor_that_is_left_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    right = runner.patched_attr
    contexts = []  # or the garbage collector would end them

    class Left:
        """A patch that a failure leaves in place."""

        def __init__(self, *arguments: Any) -> None:
            self.context = right(*arguments)
            contexts.append(self.context)

        def __enter__(self) -> None:
            self.context.__enter__()

        def __exit__(self, kind: object, *failure: object) -> None:
            if kind is None:
                self.context.__exit__(None, None, None)

    monkeypatch.setattr(runner, "patched_attr", Left)
    monkeypatch.setattr(KVStore, "clear", lambda store: None)
    result = checks.out_of_memory_leaves_nothing(CPU)
    assert result.passed is False
    assert "patched attribute" in result.detail
    assert "the closed session holds" in result.detail


def test_full_size_at_small_size_has_seconds_of_every_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(full_size, "STEPS", 5)
    monkeypatch.setattr(full_size, "HOST_MARGIN", 0)  # whatever else this machine does
    part = full_size.full_size(CPU, SMALL, side=64, dtype=torch.float32, rounds=2)
    assert part.skipped is None
    assert {(run.references, run.name) for run in part.runs} == set(full_size.KEYS)
    for run in part.runs:
        assert run.failure is None
        assert len(run.costs) == 2
        for cost in run.costs:
            assert cost.computed is not None
            assert (cost.kept is not None) == (run.name in (full_size.RESIDENT, full_size.STREAMED))
            assert (cost.reused is not None) == (run.name == full_size.REUSED)
    results.save(tmp_path / "gpu.json", {FULL_SIZE: part})
    assert results.load(tmp_path / "gpu.json") == {FULL_SIZE: part}
    assert page({FULL_SIZE: part}).count("| 2 | ") == len(full_size.RUNS)


def test_a_budget_takes_as_many_blocks_as_fill_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "STEPS", 1)
    monkeypatch.setattr(full_size, "KEYS", [(0, full_size.UNCACHED), (0, full_size.COMPARED)])
    config = SMALL | {"num_layers": 4, "num_single_layers": 8}
    three = full_size.weight_bytes(config | {"num_layers": 3, "num_single_layers": 6}, torch.float32)
    part = full_size.within_budget(CPU, 2 * three + 1000, config, side=32, dtype=torch.float32)
    assert "3 + 6 blocks" in part.recipe
    assert part.constants is None
    too_small = full_size.within_budget(CPU, 1000, config, side=32, dtype=torch.float32)
    assert too_small.skipped == "not even three blocks fill half of it"
    for budget in full_size.BUDGETS:
        half = budget * 2**30 // 2
        fitting = full_size.fitting_config(full_size.FULL, half, torch.bfloat16)
        assert fitting is not None
        assert 0.7 * half < full_size.weight_bytes(fitting, torch.bfloat16) <= half


class FakeCard:
    """A card as torch describes it, and the shares of it that this process was allowed."""

    name = "a card"

    def __init__(self, monkeypatch: pytest.MonkeyPatch, total: int) -> None:
        self.total_memory = total
        self.shares: list[float] = []
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: self)
        monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
        monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", self.limit)

    def limit(self, share: float, device: torch.device) -> None:
        self.shares.append(share)


def test_a_budget_limits_the_process_and_the_limit_is_lifted(monkeypatch: pytest.MonkeyPatch) -> None:
    card = FakeCard(monkeypatch, 80 * GIB)

    def failing(*_: object, **__: object) -> Part:
        assert card.shares == [11.5 / 80]
        raise RuntimeError("the driver died")

    monkeypatch.setattr(full_size, "_measure", failing)
    with pytest.raises(RuntimeError, match="the driver died"):
        full_size.within_budget(torch.device("cuda", 0), 12 * GIB)
    assert card.shares == [11.5 / 80, 1.0]


def test_a_budget_above_the_card_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    card = FakeCard(monkeypatch, 8 * GIB)
    part = full_size.within_budget(torch.device("cuda", 0), 12 * GIB)
    assert part.skipped == "the card itself has 8.0 GiB"
    assert "a card, 8.0 GiB, driver" in part.machine
    assert card.shares == []


def test_what_does_not_fit_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object, **__: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(full_size, "KEYS", [(0, full_size.UNCACHED), (0, full_size.COMPARED)])
    monkeypatch.setattr(full_size, "sample", out_of_memory)
    part = full_size.full_size(CPU, SMALL, side=32, dtype=torch.float32, rounds=1)
    assert part.skipped == "no run could be made: memory ran out"
    monkeypatch.setattr(full_size, "build", out_of_memory)
    monkeypatch.setattr(full_size, "weight_bytes", lambda config, dtype: 2**20)
    part = full_size.full_size(CPU, SMALL, side=32, dtype=torch.float32, rounds=1)
    assert part.skipped == "memory ran out: CUDA out of memory"
    monkeypatch.setattr(full_size, "free_bytes", lambda device: 2**20)
    part = full_size.full_size(CPU, SMALL, side=32, dtype=torch.float32, rounds=1)
    assert part.skipped is not None
    assert part.skipped.startswith("it needs 0.0 GiB at least")


def test_what_main_memory_has_no_room_for_is_not_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_size, "STEPS", 1)
    monkeypatch.setattr(full_size, "KEYS", [(1, full_size.UNCACHED), (1, full_size.STREAMED)])
    monkeypatch.setattr(full_size, "HOST_MARGIN", 2**60)
    part = full_size.full_size(CPU, SMALL, side=32, dtype=torch.float32, rounds=1)
    resident, streamed = part.runs
    assert resident.failure is None
    assert streamed.costs == ()
    assert streamed.failure is not None
    assert "of main memory" in streamed.failure
    assert streamed.failure in page({FULL_SIZE: part})


def test_constants_are_fitted_to_the_peaks() -> None:
    per_token, fixed, buffers = 1000, 50_000, 5
    hidden, side, tokens = 64, 64, 16

    def run(references: int, name: str) -> results.Run:
        cache = buffers * tokens * hidden * 4 if name == full_size.COMPARED else 0
        peak = fixed + per_token * (full_size.TEXT_TOKENS + tokens * (1 + references)) + cache
        return results.Run(references, name, 0, (full_size.Cost(1.0, 1.0, None, None, peak, peak),))

    runs = [run(*key) for key in full_size.KEYS]
    constants = full_size._fit(runs, SMALL, side, torch.float32)
    assert constants is not None
    assert constants.activation_bytes == pytest.approx(per_token)
    assert constants.fixed_bytes == pytest.approx(fixed)
    assert constants.cache_buffers == pytest.approx(buffers)


@pytest.mark.usefixtures("cpu_as_card")
def test_what_was_measured_survives_a_failure_later(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def measured(device: torch.device) -> Part:
        return Part("a card", checks=(CheckResult("a check", True, "near"),))

    def failing(device: torch.device) -> Part:
        raise RuntimeError("the driver died")

    results.save(tmp_path / "gpu.json", {"budget-8": Part("an older card", skipped="too small")})
    monkeypatch.setattr(command, "describe", str)
    monkeypatch.setattr(command, "chosen_parts", lambda only: [(CHECKS, measured), (FULL_SIZE, failing)])
    with pytest.raises(RuntimeError, match="the driver died"):
        command.main(["--output", str(tmp_path)])
    assert results.load(tmp_path / "gpu.json") == {
        "budget-8": Part("an older card", skipped="too small"),
        CHECKS: measured(CPU),
    }
    text = (tmp_path / "gpu.md").read_text(encoding="utf-8")
    assert "| a check | passed | near |" in text
    assert "an older card. **Not measured yet.** Skipped: too small." in text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.json", "gpu.md"]


@pytest.mark.usefixtures("cpu_as_card")
@pytest.mark.parametrize(("passed", "code"), [(True, 0), (None, 0), (False, 1)])
def test_a_failed_check_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, passed: bool | None, code: int
) -> None:
    monkeypatch.setattr(command, "describe", str)
    monkeypatch.setattr(command, "run_checks", lambda device: iter([CheckResult("a check", passed, "–")]))
    assert command.main(["--only", "checks", "--output", str(tmp_path)]) == code


@pytest.mark.parametrize(("only", "names"), [(None, PARTS), ("checks", PARTS[:1]), ("budgets", PARTS[2:])])
def test_parts_can_be_chosen(only: str | None, names: tuple[str, ...]) -> None:
    assert tuple(name for name, _ in command.chosen_parts(only)) == names


def test_the_document_names_what_was_not_measured() -> None:
    text = page({CHECKS: Part("a card", checks=(CheckResult("a check", True, "near"),))})
    assert "Not measured: Full size, A budget of 12 GB, A budget of 8 GB." in text
    assert text.count("**Not measured yet.**") == 3
    assert "All parts were measured." in page({name: Part("a card") for name in TITLES})


def test_the_document_in_docs_is_what_the_saved_results_give() -> None:
    assert (command.DOCS / "gpu.md").read_text(encoding="utf-8") == page(results.load(command.DOCS / "gpu.json"))
