"""The one exception that users are meant to read."""

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
