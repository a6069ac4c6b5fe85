from typing import Any, Literal

import numpy.typing as npt

def phase_cross_correlation(
    reference_image: npt.NDArray[Any],
    moving_image: npt.NDArray[Any],
    *,
    upsample_factor: int = 1,
    normalization: Literal["phase"] | None = "phase",
) -> tuple[npt.NDArray[Any], float, float]: ...
