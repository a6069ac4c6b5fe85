"""Which format loads in which host, as the tests found it: they run here, and their own record is read."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/forge/api/test_formats.py", "tests/diffusers/test_formats.py")


@dataclass(frozen=True)
class Case:
    """A test that said what it proved.

    Attributes:
        what: ``"format"``, ``"low_bits"`` or ``"text_encoder"``.
        name: which one.
        host: that it ran in.
        passed: whether it held.
        lora: whether a LoRA was part of it.
    """

    what: str
    name: str
    host: str
    passed: bool
    lora: bool


def run_tests(folder: Path) -> list[Case]:
    """Run the tests of formats in every host that is installed here, and return what they recorded."""
    record = folder / "formats.xml"
    command = [sys.executable, "-m", "pytest", "-q", "--all-hosts", f"--junitxml={record}", *TESTS]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    if code not in (0, 1):  # 1: tests failed, which the matrix shows
        raise SystemExit(f"pytest ended with {code}")
    return list(read_record(record))


def read_record(path: Path) -> Iterator[Case]:
    """Return the cases in a JUnit file of pytest's that recorded a host."""
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        said = {one.get("name"): one.get("value", "") for one in case.iter("property")}
        if case.find("skipped") is not None:
            continue
        for what in ("format", "low_bits", "text_encoder"):
            if what in said and "host" in said:
                passed = case.find("failure") is None and case.find("error") is None
                yield Case(what, said[what], said["host"], passed, said.get("lora") == "True")


def table(cases: list[Case], what: str) -> str:
    """Return a Markdown table of one kind of case: a line for each name, a column for each host."""
    hosts = list(dict.fromkeys(case.host for case in cases if case.what == what))
    names = list(dict.fromkeys(case.name for case in cases if case.what == what))
    found = {(case.name, case.host): case for case in cases if case.what == what}
    lines = [f"| {what.replace('_', ' ')} | {' | '.join(hosts)} |", f"|---|{'---|' * len(hosts)}"]
    for name in names:
        lines.append(f"| {name} | {' | '.join(_cell(found.get((name, host)), what) for host in hosts)} |")
    return "\n".join(lines)


def _cell(case: Case | None, what: str) -> str:
    if case is None:
        return "–"
    if not case.passed:
        return "failed"
    return "yes" if case.lora or what != "format" else "yes, LoRA not on the CPU"
