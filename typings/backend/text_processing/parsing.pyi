from collections.abc import Sequence
from typing import Any

def parse_prompt_attention(text: str, emphasis: str) -> Sequence[Sequence[Any]]: ...
