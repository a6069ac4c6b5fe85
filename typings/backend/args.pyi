from torch import Tensor

class dynamic_args:  # in Forge Neo; a dict in Forge
    ref_latents: list[Tensor]
    kontext: bool
    klein: bool
