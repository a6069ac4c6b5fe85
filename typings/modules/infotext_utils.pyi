from typing import Any

from gradio.components import Component

paste_fields: dict[str, dict[str, Any]]

def send_image_and_dimensions(x: object) -> tuple[Any, ...]: ...
def register_paste_params_button(binding: ParamBinding) -> None: ...

class ParamBinding:
    def __init__(
        self, paste_button: Component, tabname: str, source_text_component: Component | None = None
    ) -> None: ...
