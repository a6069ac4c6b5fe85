from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from gradio.components import Component
from gradio.layouts import BlockContext

class Dependency(Protocol):
    """What calling an event listener returns."""

    def then(self, fn: Callable[..., object] | None, *, js: str | None = None) -> Dependency: ...

class EventListener(Protocol):
    """A method such as ``button.click``."""

    def __call__(
        self,
        fn: Callable[..., object] | None,
        inputs: Sequence[Component] | None = None,
        outputs: Sequence[Component | BlockContext] | None = None,
        *,
        show_progress: Literal["full", "minimal", "hidden"] = "full",
        trigger_mode: Literal["once", "multiple", "always_last"] | None = None,
        js: str | None = None,
    ) -> Dependency: ...
