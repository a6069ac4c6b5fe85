"""The one exception that users are meant to read, and helpers for all others."""

from __future__ import annotations


class KontextError(ValueError):
    """A request that cannot be served as it stands.

    Args:
        field: name of the setting at fault (``"image1"``), or None where no single one is.
        reason: one line for a person: what came, and what is allowed.
    """

    def __init__(self, reason: str, field: str | None = None) -> None:
        self.field = field
        self.reason = reason
        # One line whatever a request carried: it ends up in logs, in JSON and under a picture.
        super().__init__(" ".join((f"{field}: {reason}" if field else reason).split()))


OUT_OF_MEMORY_PHRASES = ("out of memory", "not enough memory", "can't allocate memory", "alloc_failed")
"""In lower case: CUDA and Windows, DirectML and the CPU's allocator, Linux, cuBLAS and cuDNN
(``CUBLAS_STATUS_ALLOC_FAILED``)."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. Torch has an exception type for device memory, and only a message for host memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    message = str(error).lower()
    return any(phrase in message for phrase in OUT_OF_MEMORY_PHRASES)


def is_device_failure(error: BaseException) -> bool:
    """Whether a card answers nothing any more, so that all that follows on it would fail, too."""
    if is_out_of_memory(error):
        return False
    return type(error).__name__ == "AcceleratorError" or "CUDA error" in str(error)  # the type: PyTorch 2.8 and later


def first_line(error: BaseException, limit: int | None = None) -> str:
    """Return the first line of an error's message, cut to ``limit`` characters; its type's name if there is none."""
    lines = str(error).splitlines()
    return lines[0][:limit] if lines else type(error).__name__
