"""A manifest in YAML: a list of rows, or ``defaults``, ``rows`` and a ``grid`` whose lists are multiplied.

Only what YAML 1.2 calls a number, ``true``, ``false`` or ``null`` is one: in YAML 1.1, which PyYAML reads by itself,
``off``, the name of a preset, is false, and ``12:30`` is 750.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from lib_fluxkontext.batch.columns import MAX_ROWS, RawRow
from lib_fluxkontext.batch.expand import counted, grid_size, merge, multiply
from lib_fluxkontext.batch.row import RowError
from lib_fluxkontext.errors import KontextError, first_line
from lib_fluxkontext.settings import describe, unknown_name

if TYPE_CHECKING:
    from yaml import Node

MAX_BYTES = 2_000_000
"""Of a YAML file, which is held in memory whole."""

MAX_VALUES = 500_000
"""Values of a YAML file after its aliases are followed: a small file can have billions."""

SECTIONS = ("defaults", "rows", "grid")

_MERGE_TAG = "tag:yaml.org,2002:merge"
_PATTERNS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "merge": (r"<<", "<"),
}
"""YAML 1.2's core schema: tag → pattern and first characters. Whole numbers are tried first."""


@dataclass
class _Section:
    """A mapping of the file.

    Attributes:
        line: where it begins, from 1.
        values: name → value.
        lines: name → line.
    """

    line: int = 1
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)


def read_yaml(file: BinaryIO) -> Iterator[RawRow | RowError]:
    """Read the rows of a YAML manifest, multiplied by its grid; the grid's last name changes fastest.

    Args:
        file: opened for reading, at its start.

    Raises:
        KontextError: PyYAML is not installed, or the file is longer than ``MAX_BYTES``.
    """
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise KontextError(f"more than {MAX_BYTES:,} bytes of YAML; JSONL and CSV may have any length", "manifest")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield RowError(line, None, f"not UTF-8 (byte 0x{data[error.start]:02x}); save it as UTF-8")
        return
    try:
        import yaml
    except ImportError:
        raise KontextError("a YAML manifest needs PyYAML: pip install pyyaml", "manifest") from None
    if wrong := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line = text.count("\n", 0, wrong.start()) + 1
        yield RowError(line, None, f"U+{ord(wrong[0]):04X} is a character that YAML does not allow")
        return
    yield from _Reader(yaml, text).rows()


class _Reader:
    """Reads one file; collects what is wrong beside what is right."""

    def __init__(self, yaml: Any, text: str) -> None:
        self._yaml = yaml
        self._loader = _loader_type(yaml)(text)
        self._errors: list[RowError] = []

    def rows(self) -> Iterator[RawRow | RowError]:
        yaml = self._yaml
        try:
            root = self._loader.get_single_node()
            if root is not None:
                _count_values(root, {})
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            yield RowError(mark.line + 1 if mark else 1, None, f"not YAML: {error.problem or error.context}")
        except yaml.YAMLError as error:
            yield RowError(1, None, f"not YAML: {first_line(error)}")
        except RecursionError:
            yield RowError(1, None, "not YAML: nested too deeply")
        except KontextError as error:
            yield RowError(1, None, error.reason)
        else:
            if root is not None:
                yield from self._rows_of(root)

    def _rows_of(self, root: Node) -> Iterator[RawRow | RowError]:
        sections: dict[str, Node] = {"rows": root}
        if isinstance(root, self._yaml.MappingNode):
            sections = self._sections(root)
        elif not isinstance(root, self._yaml.SequenceNode):
            yield RowError(_line(root), None, f"allowed: a list of rows, or {', '.join(SECTIONS)}")
            return
        defaults = self._section(sections["defaults"], "defaults") if "defaults" in sections else _Section()
        grid = self._section(sections["grid"], "grid") if "grid" in sections else _Section()
        lists = self._lists(grid)
        yield from self._reported()
        if grid_size(lists) > MAX_ROWS:
            yield RowError(grid.line, "grid", f"makes {counted(grid_size(lists))} pictures; at most {MAX_ROWS:,}")
            return
        if "rows" not in sections:
            if "grid" in sections:
                yield from (RawRow(grid.line, merge(defaults.values, cell)) for cell in multiply(lists))
            return
        rows = sections["rows"]
        if not isinstance(rows, self._yaml.SequenceNode):
            yield RowError(_line(rows), "rows", "allowed: a list of rows")
            return
        for node in rows.value:
            row = self._section(node, None)
            for name in row.values.keys() & lists.keys():
                self._errors.append(RowError(row.lines.get(name, row.line), name, "given in the row and in the grid"))
            if self._errors:
                yield from self._reported()
                continue
            values = merge(defaults.values, row.values)
            yield from (RawRow(row.line, merge(values, cell)) for cell in multiply(lists))

    def _reported(self) -> Iterator[RowError]:
        errors, self._errors = self._errors, []
        yield from errors

    def _sections(self, root: Any) -> dict[str, Node]:
        sections = {}
        for key, value in root.value:
            if key.value not in SECTIONS:
                name = str(key.value)[:60]
                self._errors.append(RowError(_line(key), name, unknown_name(name, SECTIONS)))
            elif key.value in sections:
                self._errors.append(RowError(_line(key), key.value, "given twice"))
            else:
                sections[key.value] = value
        return sections

    def _section(self, node: Node, name: str | None) -> _Section:
        """Construct a mapping of names to values."""
        section = _Section(_line(node))
        if not isinstance(node, self._yaml.MappingNode):
            self._errors.append(RowError(section.line, name, "allowed: columns and their values"))
            return section
        for key, _ in node.value:
            if key.tag == _MERGE_TAG or not isinstance(key, self._yaml.ScalarNode):
                continue
            if key.value in section.lines:
                self._errors.append(RowError(_line(key), key.value[:60], "given twice"))
            section.lines[key.value] = _line(key)
        try:
            values = self._loader.construct_mapping(node, deep=True)
        except self._yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self._errors.append(RowError(mark.line + 1 if mark else section.line, name, f"not YAML: {error.problem}"))
        except (ValueError, RecursionError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
            # PyYAML's constructors raise these on a tag that its value does not suit: !!int x, !!timestamp x
            self._errors.append(RowError(section.line, name, f"not YAML: {first_line(error)}"))
        else:
            section.values = {str(key): value for key, value in values.items()}
        return section

    def _lists(self, grid: _Section) -> dict[str, Any]:
        """Return what each name of the grid goes through: a list, a range, or one value."""
        lists: dict[str, Any] = {}
        for name, value in grid.values.items():
            try:
                lists[name] = _grid_values(value)
            except KontextError as error:
                self._errors.append(RowError(grid.lines.get(name, grid.line), name[:60], error.reason))
        return lists


def _grid_values(value: object) -> Any:
    if isinstance(value, Mapping):
        ends = [value.get(name) for name in ("from", "to")]
        step = value.get("step", 1)
        numbers = [number for number in (*ends, step) if isinstance(number, int) and not isinstance(number, bool)]
        if len(numbers) < 3 or not set(value) <= {"from", "to", "step"} or numbers[2] < 1 or numbers[0] > numbers[1]:
            raise KontextError("allowed: a list, or whole numbers {from: 1, to: 10}, with step: 2 if you like")
        return range(numbers[0], numbers[1] + 1, numbers[2])
    if not isinstance(value, list):
        return [value]
    if not value:
        raise KontextError("got an empty list; allowed: one value or more")
    for inner in value:
        if isinstance(inner, (list, Mapping)):
            raise KontextError(f"got {describe(inner)} in a list; allowed: single values")
    return value


def _line(node: Node) -> int:
    line: int = node.start_mark.line + 1
    return line


def _loader_type(yaml: Any) -> Any:
    """Return PyYAML's safe loader with the types of YAML 1.2; libyaml's, ten times as fast, where it is there."""
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    loader: Any = type("ManifestLoader", (base,), {"yaml_implicit_resolvers": {}})
    for tag, (pattern, first) in _PATTERNS.items():
        characters = ["" if character == "\0" else character for character in first]
        loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"^(?:{pattern})$"), characters)
    return loader


def _count_values(node: Node, known: dict[int, int | None]) -> int:
    """Count a node's values with all aliases followed, each node once.

    Raises:
        KontextError: more than ``MAX_VALUES``, or a node that contains itself.
    """
    if id(node) in known:
        count = known[id(node)]
        if count is None:
            raise KontextError(f"not YAML: what begins in line {_line(node)} contains itself")
        return count
    known[id(node)] = None
    total = 1
    if not isinstance(node.value, str):
        for child in node.value:
            for one in child if isinstance(child, tuple) else (child,):
                total += _count_values(one, known)
    if total > MAX_VALUES:
        raise KontextError(f"more than {MAX_VALUES:,} values once its aliases are followed")
    known[id(node)] = total
    return total
