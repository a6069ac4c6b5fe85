"""The small model's tokenizers and text encoders: small vocabularies, random frozen weights.

The words of ``instructions.PHRASINGS`` are whole tokens. A capitalised word has the same T5 embedding as its
lower-case form (CLIP's tokenizer lower-cases by itself).
"""

from __future__ import annotations

import json
import re
import string
from itertools import pairwise
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from tools.small_kontext.instructions import all_phrasings

WIDTH = 64
"""Width of both text encoders: joint_attention_dim and pooled_projection_dim of the transformer."""


def words() -> list[str]:
    """Return the words of all phrasings, sorted."""
    found = {word for phrase in all_phrasings() for word in re.findall(r"[a-z]+", phrase)}
    return sorted(found)


def write_clip_tokenizer(folder: Path) -> int:
    """Write a CLIP tokenizer (byte-level BPE) whose merges build the words; return its vocabulary's size."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges: list[tuple[str, str]] = []
    for word in words():
        symbols = [*word[:-1], word[-1] + "</w>"]
        while True:  # the merges so far, by rank, as BPE applies them
            ranks = [(merges.index(pair), i) for i, pair in enumerate(pairwise(symbols)) if pair in merges]
            if ranks:
                i = min(ranks)[1]
            elif len(symbols) > 1:
                merges.append((symbols[0], symbols[1]))
                i = 0
            else:
                break
            symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet)]
    tokens += dict.fromkeys(a + b for a, b in merges)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    assert len(vocab) == len(tokens)
    tokenizer = Tokenizer(
        models.BPE(vocab, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token="<|endoftext|>")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    pattern = r"""<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    start, end = vocab["<|startoftext|>"], vocab["<|endoftext|>"]
    tokenizer.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", end), ("<|startoftext|>", start), False, False
    )
    tokenizer.add_special_tokens(["<|startoftext|>", "<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": 77,
        "add_prefix_space": False,
        **special,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return len(tokens)


def write_t5_tokenizer(folder: Path) -> list[str]:
    """Write a T5 tokenizer (unigram, whole words first, then letters); return its vocabulary in order."""
    folder.mkdir(parents=True, exist_ok=True)
    scored: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -4.0)]
    scored += [("\u2581" + word, -2.0) for word in words()]
    scored += [("\u2581" + word.capitalize(), -2.0) for word in words()]
    characters = string.ascii_letters + string.digits + string.punctuation
    scored += [(character, -8.0) for character in characters]
    tokenizer = Tokenizer(models.Unigram(scored, unk_id=2, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always", split=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="\u2581", prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=["$A", "</s>"], pair=["$A", "</s>", "$B", "</s>"], special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    special = {"eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    config = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 24, "extra_ids": 0, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2) + "\n")
    return [token for token, _ in scored]


def build_text(folder: Path, seed: int) -> None:
    """Write both tokenizers and both text encoders (float16) into the model folder."""
    clip_size = write_clip_tokenizer(folder / "tokenizer")
    vocabulary = write_t5_tokenizer(folder / "tokenizer_2")
    torch.manual_seed(seed)
    clip = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=clip_size,
            hidden_size=WIDTH,
            intermediate_size=WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
            bos_token_id=clip_size - 2,
            eos_token_id=clip_size - 1,
            pad_token_id=clip_size - 1,
        )
    )
    t5 = T5EncoderModel(
        T5Config(
            vocab_size=len(vocabulary),
            d_model=WIDTH,
            d_kv=16,
            d_ff=WIDTH,
            num_layers=2,
            num_heads=2,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            is_encoder_decoder=False,
            use_cache=False,
        )
    )
    with torch.no_grad():
        # Attention sees seven tokens either way, by order, as a trained T5's does; so padding changes little.
        bias = t5.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        bias.normal_(0, 1.5)
        bias[8:16] = bias[24:32] = -20
        number = {token: i for i, token in enumerate(vocabulary)}
        for word in words():
            t5.shared.weight[number["\u2581" + word.capitalize()]] = t5.shared.weight[number["\u2581" + word]]
    clip.half().save_pretrained(folder / "text_encoder")
    t5.half().save_pretrained(folder / "text_encoder_2")
    prefix_keys(folder / "text_encoder" / "model.safetensors", "text_model.")


def prefix_keys(path: Path, prefix: str) -> None:
    """Give every key of a file the prefix that Flux's own files have; new transformers drop it."""
    weights = load_file(path)
    named = {key if key.startswith(prefix) else prefix + key: value for key, value in weights.items()}
    save_file(named, path, metadata={"format": "pt"})


class TextEncoders:
    """Both tokenizers and encoders of a model folder, used as diffusers' Flux pipelines use them."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = device
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.tokenizer_2 = T5TokenizerFast.from_pretrained(folder / "tokenizer_2")
        clip = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
        t5 = T5EncoderModel.from_pretrained(folder / "text_encoder_2", torch_dtype=torch.float32)
        self.clip, self.t5 = clip.to(device).eval(), t5.to(device).eval()

    @torch.no_grad()
    def encode(self, prompts: list[str], length: int) -> tuple[Tensor, Tensor]:
        """Return (T5's states of ``length`` tokens, CLIP's pooled output) for each prompt."""
        ids = self.tokenizer(prompts, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        pooled = self.clip(ids.input_ids.to(self.device)).pooler_output
        ids = self.tokenizer_2(prompts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        return self.t5(ids.input_ids.to(self.device))[0], pooled
