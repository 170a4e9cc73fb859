"""Reads a LoRA's alpha where it is not a tensor: in diffusers' notes or PEFT's configuration.

diffusers writes the configuration of each component into the file's metadata, PEFT writes its one
configuration beside the file (github.com/huggingface/peft, LoraConfig).
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import BundleError
from engine.jsonfile import Fields, parse_json, read_json
from export.errors import SourceError
from export.tensor_file import TensorFile, shown

__all__ = ["MERGED", "Alphas", "read_alphas"]

MERGED = "LoRA, LoCon, LoHa, LoKr, DoRA and whole differences"  # what can be merged
NOTE = "lora_adapter_metadata"  # diffusers/loaders/lora_base.py
PEFT_FILE = "adapter_model.safetensors"
PEFT_CONFIG = "adapter_config.json"
CONFIG_LIMIT = 16 << 20  # bytes; one that names every layer of SDXL has 0.2 MiB
ALPHA_LIMIT = 1e6  # real ones are 1 to 1024
PREFIXES = ("unet.", "text_encoder_2.", "text_encoder.")


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """One component's alpha and rank. alphas, ranks: layer, or the end of one, or `^` and a layer
    -> what is said of it alone.
    """

    alpha: float
    rank: float
    alphas: Mapping[str, float]
    ranks: Mapping[str, float]
    rooted: bool
    dora: bool

    def strength(self, layer: str, rank: int | None) -> float:
        """Give what `layer`'s product is multiplied by. rank None: the one that is noted."""
        alpha = _said(self.alphas, layer, self.alpha)
        divisor = _said(self.ranks, layer, self.rank) if rank is None else rank
        return alpha / (math.sqrt(divisor) if self.rooted else divisor)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alphas:
    """What a file's notes say of alpha: component -> configuration, '' for every component."""

    configs: Mapping[str, Config]

    def strength(self, component: str, name: str, rank: int | None) -> float:
        """Give alpha / rank (or alpha / sqrt(rank)) of a parameter; 1 where nothing is said."""
        config = self._config(component)
        return config.strength(name.removesuffix(".weight"), rank) if config else 1.0

    def is_dora(self, component: str) -> bool:
        """Say whether each of a component's layers must have a magnitude."""
        config = self._config(component)
        return config is not None and config.dora

    def _config(self, component: str) -> Config | None:
        return self.configs.get(component) or self.configs.get("")


def read_alphas(source: TensorFile) -> Alphas:
    """Read the notes in `source` or beside it. Raises SourceError when they are not acceptable."""
    beside = source.file.with_name(PEFT_CONFIG)
    try:
        if NOTE in source.metadata:
            return _split(parse_json(source.metadata[NOTE].encode(), NOTE))
        if source.file.name == PEFT_FILE and beside.is_file():
            return Alphas(configs={"": _config(read_json(beside, CONFIG_LIMIT), PEFT_CONFIG)})
    except BundleError as error:  # the strict JSON reader's own words
        raise SourceError(f"in {source.file.name}: {error}", hint=error.hint) from error
    return Alphas(configs={})


def _split(notes: Mapping[str, object]) -> Alphas:
    parts: dict[str, dict[str, object]] = {}
    for key, value in notes.items():
        prefix = next((prefix for prefix in PREFIXES if key.startswith(prefix)), "")
        parts.setdefault(prefix.rstrip("."), {})[key.removeprefix(prefix)] = value
    return Alphas(
        configs={part: _config(fields, f"{NOTE} {part}") for part, fields in parts.items()}
    )


def _config(values: Mapping[str, object], where: str) -> Config:
    if values.get("lora_bias"):
        raise SourceError(f"this file is a LoRA with biases; only {MERGED} can be merged")
    # 8 is the configurations' own default of both; LoHa's and LoKr's call it alpha alone. Only of
    # LoKr the factors may not show the rank.
    fields = Fields({"lora_alpha": values.get("alpha", 8), "r": 8, **values}, where)
    noted = values.get("peft_type") == "LOKR"
    return Config(
        alpha=fields.number("lora_alpha", -ALPHA_LIMIT, ALPHA_LIMIT),
        rank=fields.number("r", 1, ALPHA_LIMIT) if noted else 1,
        alphas=_patterns(values, "alpha_pattern", -ALPHA_LIMIT, where),
        ranks=_patterns(values, "rank_pattern", 1, where) if noted else {},
        rooted=values.get("use_rslora") is True,
        dora=values.get("use_dora") is True,
    )


def _patterns(
    values: Mapping[str, object], key: str, least: float, where: str
) -> Mapping[str, float]:
    table = values.get(key) or {}
    if not isinstance(table, dict):
        raise SourceError(f"{where}: '{key}' is no object")
    found: dict[str, float] = {}
    for pattern, value in table.items():
        if not re.fullmatch(r"\^?[\w.]+", str(pattern)):
            raise SourceError(f"{where}: the pattern '{shown(str(pattern))}' is no layer")
        fields = Fields({key: value}, where)
        found[str(pattern)] = fields.number(key, least, ALPHA_LIMIT)
    return found


def _said(patterns: Mapping[str, float], layer: str, usual: float) -> float:
    return next((each for pattern, each in patterns.items() if _matches(pattern, layer)), usual)


def _matches(pattern: str, layer: str) -> bool:
    spellings = (layer, f"text_model.{layer}")  # newer modules of CLIP leave the beginning out
    if pattern.startswith("^"):
        return pattern[1:] in spellings
    return any(f".{spelling}".endswith(f".{pattern}") for spelling in spellings)
