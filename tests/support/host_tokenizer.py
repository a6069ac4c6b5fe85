"""How many T5 tokens a prompt has for the host's own libraries."""

from __future__ import annotations

import json
import subprocess

from lib_fluxkontext.hosts.forge.runtime.prompt_tokens import TOKENIZER
from tests.support.forge_install import Host

COUNT = """
import json, sys
from transformers import T5TokenizerFast
tokenizer = T5TokenizerFast.from_pretrained(sys.argv[1])
pieces = json.loads(sys.argv[2])
print(sum(map(len, tokenizer(pieces, add_special_tokens=False)["input_ids"])) + 1)
"""
"""Counts pieces of text with the host's own libraries, and the end token."""


def count(host: Host, *pieces: str) -> int:
    """Count tokens with the host's own tokenizer."""
    command = [host.python, "-c", COUNT, str(host.root / TOKENIZER), json.dumps(pieces)]
    return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
