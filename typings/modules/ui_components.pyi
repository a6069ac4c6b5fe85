from typing import Any

from gradio.components import Checkbox, ColorPicker
from typing_extensions import Self

class FormColorPicker(ColorPicker): ...

class InputAccordion(Checkbox):
    """A function that returns ``InputAccordionImpl``; the class is what it behaves as."""

    def __enter__(self) -> Self: ...
    def __exit__(self, *args: Any) -> None: ...
