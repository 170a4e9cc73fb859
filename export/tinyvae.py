"""Reads a tiny autoencoder (TAESD, github.com/madebyollin/taesd) that `--tiny-vae` names.

In diffusers' form (a folder with config.json) or the original one: two .safetensors files, whose
keys are the places of layers in a row; they are told by those keys, not by their names.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from engine.errors import BundleError
from engine.jsonfile import Fields, read_json
from export.checkpoint import Checkpoint
from export.companions import with_parts
from export.errors import MissingError, SourceError
from export.folder import CONFIG_LIMIT, weight_files
from export.weightfiles import PICKLES, Tensor, index_tensors, refuse_pickle

__all__ = ["PART", "with_tiny_vae"]

PART = "tiny_vae"
CLASS = "AutoencoderTiny"
HALVES = ("decoder", "encoder")
STAGES = 4  # resolutions: 8 pixels a latent
CHANNELS = 4
LAYERS_LIMIT = 256  # layers in a row; TAESD's longer half has 20
# The original decoder begins with a clamp, a layer of its own without weights; diffusers' has none.
FIRST = {"decoder": 1, "encoder": 0}
SPLIT = re.compile(r"(\d{1,3})\.(.+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    """What was read. place: a diffusers folder or the file named. files: all that was looked at."""

    config: Mapping[str, object]
    tensors: Mapping[str, Tensor]
    place: Path
    files: tuple[Path, ...]


def with_tiny_vae(checkpoint: Checkpoint, place: Path) -> Checkpoint:
    """Add the tiny autoencoder in `place` to a checkpoint. Raises SourceError, MissingError."""
    try:
        found = _from_folder(place) if place.is_dir() else _from_file(place)
        _check(found.config, place.name)
    except BundleError as error:  # the strict JSON reader's own words
        raise SourceError(f"in '{place.name}': {error}", hint=error.hint) from error
    halves = {name.partition(".")[0] for name in found.tensors}
    strange = sorted(halves - set(HALVES))
    if strange or "decoder" not in halves:
        what = f"the weight '{strange[0][:60]}'" if strange else "no decoder"
        raise SourceError(f"'{place.name}' has {what}, so it is no tiny autoencoder")
    pieces = checkpoint.pieces
    origins = {f"--tiny-vae {file.name}": file for file in found.files}
    pieces = replace(
        pieces,
        configs=dict(pieces.configs) | {PART: found.config},
        tensors=dict(pieces.tensors) | {PART: found.tensors},
        origins=dict(pieces.origins) | origins,
        places=dict(pieces.places) | {PART: found.place},
    )
    names = (f"{PART}_{half}" for half in HALVES if half in halves)
    return with_parts(replace(checkpoint, pieces=pieces), *names)


def _from_folder(folder: Path) -> _Found:
    if not (folder / "config.json").is_file():
        parts = sorted(folder.glob("*.safetensors"))
        decoders = [file for file in parts if _half(index_tensors([file])) == "decoder"]
        if len(decoders) != 1:
            raise MissingError(
                f"'{folder.name}' has neither config.json nor one TAESD decoder",
                hint="give diffusers' folder of an AutoencoderTiny, or the decoder's file",
            )
        return _from_file(decoders[0])
    config = read_json(folder / "config.json", CONFIG_LIMIT)
    if config.get("_class_name", CLASS) != CLASS:
        raise SourceError(
            f"'{folder.name}' is of class '{str(config['_class_name'])[:60]}'; {CLASS} is needed"
        )
    files = weight_files(folder)
    return _Found(
        config=config,
        tensors=dict(index_tensors(files)),
        place=folder,
        files=(folder / "config.json", *files),
    )


def _from_file(file: Path) -> _Found:
    if not file.is_file():
        raise MissingError(f"there is no tiny autoencoder '{file.name}'")
    if file.suffix.lower() in PICKLES:
        raise refuse_pickle(f"'{file.name}'")
    if file.suffix.lower() != ".safetensors":
        raise SourceError(
            f"'{file.name}' is no tiny autoencoder", hint="give a .safetensors file or a folder"
        )
    stored = dict(index_tensors([file]))
    if any(name.startswith("decoder.layers.") for name in stored):  # diffusers' own names
        if (file.parent / "config.json").is_file():
            return _from_folder(file.parent)
        return _Found(config=_config(stored), tensors=stored, place=file, files=(file,))
    half = _half(stored.items())
    if half is None:
        raise SourceError(
            f"'{file.name}' is no tiny autoencoder: its weights are named otherwise than TAESD's",
            hint="TAESD's decoder has '1.weight', diffusers' form 'decoder.layers.0.weight'",
        )
    other = _beside(file, half)
    files = (file,) if other is None else (file, other)
    tensors: dict[str, Tensor] = {}
    for each in files:
        own = dict(index_tensors([each]))
        tensors |= _renamed(own, _half(own.items()) or half)
    return _Found(config=_config(tensors), tensors=tensors, place=file, files=files)


def _half(stored: Iterable[tuple[str, Tensor]]) -> str | None:
    """Tell TAESD's halves apart by their first layer: a convolution of colours in the encoder, one
    of latents behind the clamp in the decoder.
    """
    shapes = {name: tensor.shape for name, tensor in stored}
    if not all(SPLIT.fullmatch(name) for name in shapes):
        return None
    found = [half for half, first in FIRST.items() if len(shapes.get(f"{first}.weight", ())) == 4]
    return found[0] if len(found) == 1 else None


def _beside(file: Path, half: str) -> Path | None:
    """Find the other half beside a file that is called after its own, or None."""
    wanted = next(each for each in HALVES if each != half)
    if half not in file.name:
        return None
    other = file.with_name(file.name.replace(half, wanted))
    if not other.is_file():
        return None
    return other if _half(index_tensors([other])) == wanted else None


def _renamed(stored: Mapping[str, Tensor], half: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        match = SPLIT.fullmatch(name)
        if match is not None:
            place = int(match[1]) - FIRST[half]
            found[f"{half}.layers.{place}.{match[2]}"] = tensor
    return found


def _config(tensors: Mapping[str, Tensor]) -> dict[str, object]:
    """Read the configuration off the weights; what they do not say is as TAESD has it."""
    config: dict[str, object] = {"_class_name": CLASS, "scaling_factor": 1.0}
    for half in HALVES:
        stem = f"{half}.layers."
        rows = {name.removeprefix(stem): t for name, t in tensors.items() if name.startswith(stem)}
        places = {int(name.partition(".")[0]) for name in rows if SPLIT.fullmatch(name)}
        if not places:
            continue
        if max(places) > LAYERS_LIMIT:
            raise SourceError(f"the {half} has {max(places)} layers; at most {LAYERS_LIMIT}")
        counts, convolutions = [], []
        blocks = 0
        for place in sorted(places):
            if f"{place}.conv.0.weight" in rows:
                blocks += 1
                continue
            counts.append(blocks)
            convolutions.append(rows.get(f"{place}.weight"))
            blocks = 0
        # The decoder begins with a convolution, the encoder ends with one; blocks lie between.
        first = convolutions[0] if convolutions else None
        if first is None or len(first.shape) != 4 or counts[0]:
            raise SourceError(f"the {half} does not begin with a convolution, as TAESD's does")
        last = convolutions[-1]
        if half == "decoder":
            config["latent_channels"] = first.shape[1]
        elif last is not None:
            config["latent_channels"] = last.shape[0]
        config[f"num_{half}_blocks"] = counts[1:]
        config[f"{half}_block_out_channels"] = [first.shape[0]] * (len(counts) - 1)
    return config


def _check(config: Mapping[str, object], label: str) -> None:
    fields = Fields(dict(config), f"{PART}/config.json")
    known = fields.each()
    channels = fields.integer("latent_channels", 1, 1024) if "latent_channels" in known else 4
    if channels != CHANNELS:
        raise SourceError(
            f"'{label}' has {channels} latent channels; {CHANNELS} are needed",
            hint="taesd fits Stable Diffusion 1.x and 2.x, taesdxl fits XL, the others fit neither",
        )
    for key, wanted in (("in_channels", 3), ("out_channels", 3), ("upsampling_scaling_factor", 2)):
        if key in known:
            fields.integer(key, wanted, wanted)
    for half in HALVES:
        for key, most in ((f"num_{half}_blocks", 64), (f"{half}_block_out_channels", 4096)):
            stages = fields.items(key) if key in known else [1] * STAGES
            if len(stages) != STAGES:
                raise SourceError(
                    f"'{label}' has {len(stages)} resolutions; {STAGES} are needed (8 pixels a"
                    " latent)"
                )
            for each in stages:
                Fields({key: each}, f"{PART}/config.json").integer(key, 0, most)
