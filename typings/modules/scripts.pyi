from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from gradio.components import Component

class ScriptArgument:
    """An entry of ``/sdapi/v1/script-info`` (``modules.api.models.ScriptArg``)."""

    value: Any

class ScriptInfo:
    args: list[ScriptArgument]

class Script:
    args_from: int
    args_to: int
    is_img2img: bool
    controls: Sequence[Component] | None
    api_info: ScriptInfo | None
    infotext_fields: list[tuple[Component, Any]] | None
    paste_field_names: list[str] | None
    sorting_priority: int
    def title(self) -> str: ...
    def show(self, is_img2img: bool) -> Any: ...
    def ui(self, is_img2img: bool) -> list[Any]: ...

class ScriptClassData(NamedTuple):
    script_class: type
    path: str
    basedir: str
    module: ModuleType

class ScriptRunner:
    alwayson_scripts: list[Script]

AlwaysVisible: object
scripts_data: list[ScriptClassData]
scripts_img2img: ScriptRunner
scripts_txt2img: ScriptRunner
