"""How long a prompt is for T5, the text encoder that reads Flux's instructions, as Forge encodes it.

Forge and Forge Neo never cut the tokens off: they hand on as many as there are, padded to at least 256.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, Protocol

MAX_TOKENS = 512
"""What FLUX.1 dev and Kontext are made for, the end token counted: Black Forest Labs' prompting guide for Kontext names
it, and their ``flux`` repository cuts prompts off there."""

TOKENIZER = "backend/huggingface/black-forest-labs/FLUX.1-dev/tokenizer_2"
"""In both hosts; the files of all FLUX.1 models are the same."""

STEPS = 20
"""For which prompt editing (``[cat:dog:0.5]``) is resolved; the longest of its texts is the same for nearly any."""

BREAK = ["BREAK", -1]
"""What Forge's parser makes of the word."""


class Tokenizer(Protocol):
    """A tokenizer of transformers."""

    def __call__(self, texts: list[str], **options: Any) -> Any: ...


def t5_tokens(prompt: str) -> int | None:
    """Count a prompt's T5 tokens, the end token among them.

    Not counted are comments, tags of LoRAs, and marks of emphasis as far as the settings give them a meaning. Of
    prompts joined by ``AND`` and texts that follow one another by prompt editing, the longest counts. Of a prompt with
    ``BREAK``, the part before it does, because for Flux that is all that Forge uses.

    Args:
        prompt: as typed.

    Returns:
        The number, or None where there is no tokenizer, or where Forge cannot parse the prompt (``(word:1.2.3)``).
    """
    tokenizer = _tokenizer()
    if tokenizer is None:
        return None
    try:
        return max(_count(tokenizer, text) for text in _texts(prompt))
    except ValueError:
        return None


def _texts(prompt: str) -> set[str]:
    """Return the texts that Forge encodes for a prompt."""
    from modules import extra_networks, prompt_parser
    from modules.processing_scripts.comments import strip_comments

    text, _ = extra_networks.parse_prompt(strip_comments(prompt))
    _, parts, _ = prompt_parser.get_multicond_prompt_list([text])
    schedules = prompt_parser.get_learned_conditioning_prompt_schedules(parts, STEPS)
    return {text for schedule in schedules for _, text in schedule}


def _count(tokenizer: Tokenizer, text: str) -> int:
    """Count a text's tokens: Forge tokenizes what has the same emphasis together."""
    from backend.text_processing import parsing
    from modules import shared

    parsed = parsing.parse_prompt_attention(text, shared.opts.emphasis)
    pieces = [piece for piece, _ in takewhile(lambda part: part != BREAK, parsed)]
    if not pieces:
        return 1
    tokens = tokenizer(pieces, truncation=False, add_special_tokens=False, verbose=False)["input_ids"]
    return sum(map(len, tokens)) + 1


@lru_cache(maxsize=1)
def _tokenizer() -> Tokenizer | None:
    """Load the tokenizer that Forge ships; None where a fork has none."""
    from modules import paths

    folder = Path(paths.script_path) / TOKENIZER
    if not folder.is_dir():  # transformers would take the path for a repository's name
        return None
    from transformers import AutoTokenizer

    tokenizer: Tokenizer = AutoTokenizer.from_pretrained(str(folder))
    return tokenizer
