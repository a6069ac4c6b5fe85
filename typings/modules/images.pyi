from typing import Any

from PIL.Image import Image

def read_info_from_image(image: Image) -> tuple[str | None, dict[str, Any]]: ...
def flatten(img: Image, bgcolor: str) -> Image: ...
def resize_image(resize_mode: int, im: Image, width: int, height: int) -> Image: ...
def save_image(
    image: Image,
    path: str,
    basename: str,
    seed: int | None = None,
    prompt: str | None = None,
    extension: str = "png",
    info: str | None = None,
    *,
    suffix: str = "",
) -> tuple[str, str | None]: ...
