from collections.abc import Callable
from typing import Any

from typing_extensions import Self

class OptionInfo:
    section: tuple[str, str] | None
    def __init__(
        self,
        default: object = None,
        label: str = "",
        component: Callable[..., object] | None = None,
        component_args: dict[str, Any] | None = None,
        *,
        infotext: str | None = None,
    ) -> None: ...
    def info(self, info: str) -> Self: ...
    def needs_reload_ui(self) -> Self: ...

class Options:
    data: dict[str, Any]
    def add_option(self, key: str, info: OptionInfo) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
