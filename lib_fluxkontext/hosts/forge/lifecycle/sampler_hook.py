"""Tell when a sampling ends, however it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lib_fluxkontext.hosts.forge.runtime.protocols import Sampler

METHODS = ("sample", "sample_img2img")
_MISSING = object()


class SamplerEndHook:
    """Wraps the next sampling of one sampler object, then removes itself.

    Forge has no callback between the last step and the VAE's decoding in a hires pass, and none at all after a failure.
    What the sampling holds would stay on the GPU through decoding, or until the next run.

    Args:
        sampler: Forge's.
        on_end: called once when the sampling ends, by return, interrupt or exception; not after ``remove``.
        on_start: called when the sampling begins, which is after every extension's callbacks.
    """

    def __init__(
        self, sampler: Sampler, on_end: Callable[[], object], on_start: Callable[[], object] = lambda: None
    ) -> None:
        self._sampler: Sampler | None = sampler
        self._on_start: Callable[[], object] | None = on_start
        self._on_end: Callable[[], object] | None = on_end
        self._before = {method: vars(sampler).get(method, _MISSING) for method in METHODS}
        self._own = {method: self._wrap(getattr(sampler, method)) for method in METHODS}
        for method, wrapper in self._own.items():
            setattr(sampler, method, wrapper)

    def _wrap(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def sample(*args: Any, **kwargs: Any) -> Any:
            try:
                if self._on_start is not None:
                    self._on_start()
                return original(*args, **kwargs)
            finally:
                on_end = self._on_end
                self.remove()
                if on_end is not None:
                    on_end()

        return sample

    def remove(self) -> None:
        """Restore what was on the sampler before; a second call does nothing.

        Where another extension has wrapped this hook since, its wrapper stays, and the hook inside passes through.
        """
        sampler, self._sampler = self._sampler, None
        own, self._own = self._own, {}  # wrappers refer to this hook, and it to the generation: no cycle may hold that
        self._on_end = self._on_start = None
        if sampler is None:
            return
        attributes = vars(sampler)
        for method, before in self._before.items():
            if attributes.get(method) is not own[method]:
                continue
            if before is _MISSING:
                del attributes[method]
            else:
                attributes[method] = before
