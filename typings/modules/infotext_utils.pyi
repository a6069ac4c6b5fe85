from typing import Any

paste_fields: dict[str, dict[str, Any]]

def send_image_and_dimensions(x: object) -> tuple[Any, ...]: ...
