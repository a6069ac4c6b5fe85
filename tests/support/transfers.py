"""Files that are dropped on an element of the page, or pasted into it, as the browser's events."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tests.support.forge_page import ForgePage

_SEND = """(element, [kind, files]) => {
    const transfer = new DataTransfer();
    for (const [name, type, data] of files) {
        const bytes = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type }));
    }
    const how = { bubbles: true, cancelable: true, composed: true };
    element.dispatchEvent(
        kind === "drop"
            ? new DragEvent("drop", { ...how, dataTransfer: transfer })
            : new ClipboardEvent("paste", { ...how, clipboardData: transfer }),
    );
}"""

_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}


def send_files(page: ForgePage, selector: str, kind: Literal["drop", "paste"], paths: Sequence[Path]) -> None:
    """Drop files on an element, or paste them while it has the focus."""
    files = [[path.name, _TYPES[path.suffix], base64.b64encode(path.read_bytes()).decode()] for path in paths]
    page.page.locator(selector).first.evaluate(_SEND, [kind, files])
