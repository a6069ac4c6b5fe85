"""Under what pictures are made: the group of tasks, how many references, which sampler and how many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from benchmarks.frontier.samplers import SAMPLERS, Sampler
from benchmarks.frontier.tasks import KINDS, Group


@dataclass(frozen=True)
class Condition:
    """One table of the benchmark.

    Attributes:
        group: of the tasks.
        references: none to two.
        sampler: one of ``SAMPLERS``.
        steps: sampler steps.
    """

    group: Group
    references: int
    sampler: Sampler
    steps: int

    @property
    def key(self) -> str:
        """Its name on the command line and in the JSON: ``"editing-2-euler-20"``."""
        return f"{self.group}-{self.references}-{self.sampler}-{self.steps}"

    @property
    def calls(self) -> int:
        """Calls of the transformer in a sampling: Heun makes two in every step but the last."""
        return 2 * self.steps - 1 if self.sampler == "heun" else self.steps

    @property
    def complete(self) -> bool:
        """Whether all methods are compared, or only some."""
        return (self.sampler, self.steps) == ("euler", 20)

    @property
    def side(self) -> int:
        """Width and height of the pictures, in pixels: for editing with two references what the model was trained on
        last, and half of that for the rest, which takes a quarter of the time."""
        return 256 if self.complete and (self.group, self.references) == ("editing", 2) else 128

    @property
    def title(self) -> str:
        """In words: ``"Editing, two references, Euler 20 steps"``."""
        count = ("no references", "one reference", "two references")[self.references]
        return f"{self.group.capitalize()}, {count}, {SAMPLERS[self.sampler].title} {self.steps} steps"

    @classmethod
    def parse(cls, key: str) -> Condition:
        """Return the condition of a key.

        Raises:
            ValueError: there is none.
        """
        try:
            group, references, sampler, steps = key.split("-")
            condition = cls(cast(Group, group), int(references), cast(Sampler, sampler), int(steps))
        except ValueError:
            raise ValueError(f"not a condition: {key!r}; an example is {CONDITIONS[0].key}") from None
        known = (condition.group, condition.references) in KINDS and sampler in SAMPLERS and condition.steps > 0
        if not known or condition.key != key:
            raise ValueError(f"not a condition: {key!r}; an example is {CONDITIONS[0].key}")
        return condition


def _of_group(group: Group, *references: int) -> tuple[Condition, ...]:
    """Return what a group is measured under: Euler for each number of references, and two of them otherwise."""
    others: tuple[tuple[Sampler, int], ...] = (("euler", 28), ("dpmpp2m", 20), ("heun", 10))
    return (
        *(Condition(group, count, "euler", 20) for count in references),
        *(Condition(group, 2, sampler, steps) for sampler, steps in others),
    )


CONDITIONS = (*_of_group("editing", 2, 1, 0), *_of_group("copying", 2, 1))
"""What ``python dev.py bench`` measures, in the order of the document."""
