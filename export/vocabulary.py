"""CLIP's vocabulary, bundled, as the tokenizer files of a diffusers folder.

`clip/merges.txt.gz` holds the 48,894 merges that CLIP uses of its byte-pair encoding (MIT, see
`clip/LICENSE`). Ids are, in this order: 256 bytes, the same at a word's end, the merges, begin, end
(Radford et al., arXiv 2103.00020, and its code).
"""

import gzip
import json
from pathlib import Path

__all__ = ["BEGIN", "END", "VOCABULARY", "byte_letters", "clip_tokenizer_files"]

BEGIN, END = "<|startoftext|>", "<|endoftext|>"
VOCABULARY = 49408
_FOLDER = Path(__file__).with_name("clip")


def clip_tokenizer_files(limit: int, *, pad: str = END) -> dict[str, bytes]:
    """Give vocab.json, merges.txt and tokenizer_config.json, by name.

    limit: ids in a chunk. pad: what fills a chunk; OpenCLIP's text encoders were trained with "!".
    """
    merges = gzip.decompress((_FOLDER / "merges.txt.gz").read_bytes()).decode().split("\n")[:-1]
    letters = byte_letters()
    tokens = [*letters, *(f"{letter}</w>" for letter in letters)]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += [BEGIN, END]
    config = {
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": END,
        "pad_token": pad,
        "model_max_length": limit,
        "tokenizer_class": "CLIPTokenizer",
    }
    table = {token: number for number, token in enumerate(tokens)}
    return {
        "vocab.json": json.dumps(table, ensure_ascii=False).encode(),
        "merges.txt": "\n".join(["#version: 0.2", *merges, ""]).encode(),
        "tokenizer_config.json": json.dumps(config, indent=2).encode(),
    }


def byte_letters() -> list[str]:
    """Give GPT-2's printable stand-in for each byte value (Radford et al. 2019, its bpe code).

    The first 188 are the printable bytes themselves, in their order; the others follow.
    """
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [value for value in range(256) if value not in set(printable)]
    return [*map(chr, printable), *(chr(256 + number) for number in range(len(others)))]
