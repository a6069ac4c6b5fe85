"""What a sampling under a cache cost, in a measure that all caches share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Work:
    """Work of the transformer over one sampling.

    Attributes:
        evaluations: sum over its calls of (tokens that the last single block processed, text included) / (tokens of an
            uncached call: text, picture and references).
        calls: how often it was called.
    """

    evaluations: float = 0.0
    calls: int = 0
