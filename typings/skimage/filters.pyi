from typing import Any

import numpy.typing as npt

def difference_of_gaussians(image: npt.NDArray[Any], low_sigma: float, high_sigma: float) -> npt.NDArray[Any]: ...
