"""The transformer's own forward, on some rows of the batch, with or without the references."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import torch
from torch import Tensor

from lib_fluxkontext.hooks.adapter import TransformerAdapter
from lib_fluxkontext.references.tokens import ReferenceAppender


class RowForward:
    """Calls the original forward with its arguments cut down to some rows.

    Args:
        adapter: of the transformer.
        original: the transformer's own forward, bound.
        arguments: of that forward, by name; of the references, the host's own alone are in them.
        references: appended to the image tokens on request, or None.
        host_reference_tokens: how many of the last image tokens are the host's own references.
    """

    def __init__(
        self,
        adapter: TransformerAdapter,
        original: Callable[..., Any],
        arguments: Mapping[str, Any],
        references: ReferenceAppender | None,
        host_reference_tokens: int = 0,
    ) -> None:
        self._adapter = adapter
        self._original = original
        self._arguments = dict(arguments)
        self._references = references
        self._image: Tensor = self._arguments[adapter.image_argument]
        self._host_reference_tokens = host_reference_tokens
        self._other_outputs: tuple[Any, ...] | None = None

    @property
    def batch(self) -> int:
        """Rows of the batch."""
        return self._image.shape[0]

    @property
    def image_tokens(self) -> int:
        """Tokens of the generated image."""
        return self._image.shape[1] - self._host_reference_tokens

    @property
    def reference_tokens(self) -> int:
        """Tokens of all references, the host's own and ours."""
        return self._host_reference_tokens + (self._references.count if self._references is not None else 0)

    def __call__(
        self, rows: Sequence[int], references: bool, hooks: Sequence[AbstractContextManager[None]] = ()
    ) -> Tensor:
        """Run some rows, (rows, n, C) over the generated image's tokens.

        Args:
            rows: which.
            references: whether the references' tokens run.
            hooks: contexts around the run, the first outermost.
        """
        adapter = self._adapter
        arguments = self._arguments if len(rows) == self.batch else self._select(rows)
        if self.reference_tokens:
            image, ids = arguments[adapter.image_argument], arguments[adapter.ids_argument]
            if not references:
                image, ids = image[:, : self.image_tokens], ids[..., : self.image_tokens, :]
            # Position ids in float32 either way, so that a step is the same with and without the references' tokens.
            if references and self._references is not None:
                image, ids = self._references.append(image, ids, rows)
            else:
                ids = ids.to(torch.float32)
            arguments = {**arguments, adapter.image_argument: image, adapter.ids_argument: ids}
        with ExitStack() as stack:
            for hook in hooks:
                stack.enter_context(hook)
            output = self._original(**arguments)
        if isinstance(output, tuple):  # diffusers returns a tuple of a single tensor
            output, *others = output
            self._other_outputs = tuple(others)
        image_output: Tensor = output[:, : self.image_tokens]
        return image_output

    def host_output(self, image: Tensor) -> Any:
        """Put the image tokens, (B, n, C), into the form in which the transformer returns them."""
        return image if self._other_outputs is None else (image, *self._other_outputs)

    def _select(self, rows: Sequence[int]) -> dict[str, Any]:
        index = torch.tensor(list(rows), device=self._image.device)
        return {name: self._select_value(name, value, index) for name, value in self._arguments.items()}

    def _select_value(self, name: str, value: Any, index: Tensor) -> Any:
        batched = isinstance(value, Tensor) and value.shape[:1] == (self.batch,)
        return value[index] if batched and name not in self._adapter.unbatched else value
