"""How many T5 tokens a prompt has for the host's own libraries."""

from __future__ import annotations

import json
import subprocess

from lib_fluxkontext.hosts.forge.runtime.prompt_tokens import TOKENIZER
from tests.support.forge_install import Host

COUNT = """
import json, sys
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file(sys.argv[1])
pieces = tokenizer.encode_batch(json.loads(sys.argv[2]), add_special_tokens=False)
print(sum(len(piece.ids) for piece in pieces) + 1)
"""
"""Counts pieces of text with what transformers' fast tokenizers are made of, which loads sooner, and the end token."""


def count(host: Host, *pieces: str) -> int:
    """Count tokens with the host's own tokenizer."""
    command = [host.python, "-c", COUNT, str(host.root / TOKENIZER / "tokenizer.json"), json.dumps(pieces)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
