from typing import Any

from gradio import components as components
from gradio import context as context
from gradio.components import HTML as HTML
from gradio.components import Button as Button
from gradio.components import Checkbox as Checkbox
from gradio.components import ColorPicker as ColorPicker
from gradio.components import Dropdown as Dropdown
from gradio.components import File as File
from gradio.components import Image as Image
from gradio.components import Number as Number
from gradio.components import Radio as Radio
from gradio.components import Slider as Slider
from gradio.components import State as State
from gradio.components import Textbox as Textbox
from gradio.layouts import Accordion as Accordion
from gradio.layouts import Column as Column
from gradio.layouts import Group as Group
from gradio.layouts import Row as Row

class Error(Exception):
    def __init__(self, message: str = ...) -> None: ...

def Warning(message: str = ...) -> None: ...
def update(elem_id: str | None = None, **kwargs: Any) -> dict[str, Any]: ...
