"""End a generation from inside a script callback, where Forge swallows exceptions and goes on.

A callback that raises is logged and forgotten: the user would get a picture made without the reference. So a method
that Forge calls next on this one object is made to raise instead. What it raises reaches the API as an HTTP status and
the page as the message under the picture.
"""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException

from lib_fluxkontext.errors import KontextError, first_line


class FluxKontext(HTTPException):
    """What the user sees: the class name stands before the reason in Forge's page."""

    def __str__(self) -> str:
        return str(self.detail)


def http_error(error: BaseException) -> FluxKontext:
    """Convert to 422 for what the user can change in the request, 500 for what broke here; the reason in one line."""
    if isinstance(error, KontextError):
        return FluxKontext(status_code=422, detail=str(error))
    line = first_line(error) if str(error) else ""
    return FluxKontext(status_code=500, detail=f"Flux Kontext failed: {type(error).__name__}: {line}")


def abort_generation(error: BaseException, *targets: tuple[object, tuple[str, ...]]) -> None:
    """Make methods of objects of this one generation raise when Forge calls them next.

    Args:
        error: why; anything but a ``KontextError`` is logged with its traceback too.
        targets: objects, and the names of their methods.
    """
    report_unexpected(error)
    raised = http_error(error)

    def abort(*args: Any, **kwargs: Any) -> None:
        raise raised

    for target, methods in targets:
        for method in methods:
            setattr(target, method, abort)


def report_unexpected(error: BaseException) -> None:
    """Log what broke here with its traceback: the user gets one line, and whoever mends it needs the rest.

    Called from an ``except``; logged now, so that no frame is kept alive.
    """
    if not isinstance(error, KontextError):
        from modules import errors

        errors.report("Flux Kontext failed", exc_info=True)
