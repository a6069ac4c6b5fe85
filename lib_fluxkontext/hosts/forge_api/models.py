"""Checkpoints and LoRAs by the names that people give them. Forge ignores a name it does not know, and goes on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any

from lib_fluxkontext.hosts.forge_api.client import ForgeClient

SUFFIXES = (".safetensors", ".gguf", ".ckpt", ".pt", ".pth", ".bin", ".sft")

Entry = dict[str, Any]
"""What Forge says about a file."""


class UnknownModel(Exception):
    """A name that the server has no file for."""

    def __init__(self, reason: str, field: str) -> None:
        self.reason = reason
        self.field = field
        super().__init__(f"{field}: {reason}")


class Models:
    """The server's files, asked for once; an unknown name makes it read its folders again, once for each name."""

    def __init__(self, client: ForgeClient) -> None:
        self._client = client
        self._checkpoints: dict[str, Entry] = {}
        self._loras: dict[str, Entry] = {}
        self._unknown: set[tuple[str, str]] = set()
        self._selected: str | None = None

    def forget(self) -> None:
        """Ask again: the server was restarted. The checkpoint that was selected at first stays the default."""
        self._checkpoints.clear()
        self._loras.clear()
        self._unknown.clear()

    def selected(self) -> Entry:
        """Return the checkpoint that was selected there when this, or ``checkpoint``, was first called.

        Raises:
            UnknownModel: none is.
        """
        return self.checkpoint("")

    def checkpoint(self, name: str) -> Entry:
        """Return a checkpoint by its title, name, file name or hash; the selected one for an empty name.

        Raises:
            UnknownModel: the server has no such file.
        """
        if self._selected is None:  # in any case: the request for a row may select another
            self._selected = str(self._client.options().get("sd_model_checkpoint") or "")
        name = name or self._selected
        if not name:
            raise UnknownModel("none is selected at the server, and none is given", "checkpoint")
        return self._find("checkpoint", name, self._checkpoints, self._client.checkpoints, _checkpoint_names)

    def lora(self, name: str) -> str:
        """Return the name that a prompt calls a LoRA by.

        Raises:
            UnknownModel: the server has no such file.
        """
        return str(self._find("lora", name, self._loras, self._client.loras, _lora_names)["name"])

    def _find(
        self,
        field: str,
        name: str,
        known: dict[str, Entry],
        read: Callable[[bool], list[Entry]],
        names_of: Callable[[Entry], Iterable[str]],
    ) -> Entry:
        for refresh in (False, True):
            if not known or (refresh and name not in known and (field, name) not in self._unknown):
                known.update({other: entry for entry in read(refresh) for other in names_of(entry)})
            if name in known:
                return known[name]
        self._unknown.add((field, name))
        similar = difflib.get_close_matches(name, known, n=1)
        hint = f'; did you mean "{similar[0]}"?' if similar else ""
        raise UnknownModel(f'the server has no "{name}"{hint}', field)


def model_name(checkpoint: Entry) -> str:
    """Return what infotext calls a checkpoint: its file's name without the ending."""
    return PurePath(str(checkpoint["filename"]).replace("\\", "/")).stem


def _checkpoint_names(entry: Entry) -> set[str]:
    title = str(entry["title"])
    path = title.rsplit(" [", 1)[0]  # below the folder of checkpoints
    names = {title, path, path.replace("\\", "/"), str(entry["model_name"]), _file_name(entry["filename"])}
    names |= {str(entry[name]) for name in ("hash", "sha256") if entry.get(name)}
    return names | {_without_suffix(name) for name in names}


def _lora_names(entry: Entry) -> set[str]:
    names = {str(entry["name"]), _file_name(entry["path"])}
    return names | {_without_suffix(name) for name in names} | {str(entry["alias"])} - {"None", ""}


def _file_name(path: object) -> str:
    return str(path).replace("\\", "/").rsplit("/", 1)[-1]


def _without_suffix(name: str) -> str:
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)
