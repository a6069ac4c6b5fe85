"""Know when a sampling ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

METHODS = ("sample", "sample_img2img")


class SamplerEndHook:
    """Stands around the next sampling of one sampler object, then takes itself away.

    Forge has no callback between the last step and the VAE's decoding in a hires pass, and none at all after a
    failure. What the pass holds would stay on the GPU through decoding, or until the next run.

    Args:
        sampler: Forge's sampler.
        end: called once when it ends, by return, interrupt or exception.
    """

    def __init__(self, sampler: Any, end: Callable[[], Any]) -> None:
        self._sampler = sampler
        for method in METHODS:
            setattr(sampler, method, self._around(getattr(sampler, method), end))

    def _around(self, original: Callable, end: Callable[[], Any]) -> Callable:
        def guarded(*args: Any, **kwargs: Any) -> Any:
            try:
                return original(*args, **kwargs)
            finally:
                self.remove()
                end()

        return guarded

    def remove(self) -> None:
        """Take the guard away; a second call does nothing."""
        if self._sampler is None:
            return
        for method in METHODS:
            vars(self._sampler).pop(method, None)
        self._sampler = None
