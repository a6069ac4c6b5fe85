from typing import Any, Literal

import numpy.typing as npt

def warp_polar(
    image: npt.NDArray[Any],
    *,
    radius: float | None = None,
    output_shape: tuple[int, int] | None = None,
    scaling: Literal["linear", "log"] = "linear",
) -> npt.NDArray[Any]: ...
