"""Reads a checkpoint's folder without torch: what it is, whether it fits, where its weights lie.

Only safetensors are read. A pickle (.ckpt, .bin, .pt) runs whatever code its maker put inside.
"""

import hashlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import BundleError
from engine.jsonfile import Fields, read_json
from engine.tokenizer import Tokenizer
from engine.training import Training
from export.errors import MissingError, SourceError
from export.recipes import FAMILIES, Recipe

__all__ = ["Checkpoint", "Tensor", "fingerprint", "open_checkpoint"]

CONFIG_LIMIT = 1 << 20  # bytes of one configuration; real ones have 2 KiB
HEADER_LIMIT = 16 << 20  # bytes of a safetensors header; SDXL's UNet has 0.2 MiB
TOKENIZER_LIMIT = 64 << 20  # bytes of one tokenizer file
NOTICE_LIMIT = 1 << 20  # bytes of one licence or notice file
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
OLD_SCALING = 0.18215  # of SD 1.x's VAE; configurations of 2022 leave it out
WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# What UNets of other families have beside sample, timestep and text.
FOREIGN = (
    "addition_embed_type",
    "class_embed_type",
    "encoder_hid_dim_type",
    "time_cond_proj_dim",
)
NOTICES = ("LICENSE", "LICENCE", "NOTICE", "ATTRIBUTION")
PICKLE_HINT = (
    "save it again with safetensors (diffusers: save_pretrained(..., safe_serialization=True)),"
    " or take the publisher's .safetensors files"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tensor:
    """Where one weight lies: file, key in it, dtype as safetensors names it, shape."""

    file: Path
    key: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A folder that fits a recipe. configs: sub-folder -> configuration, `scheduler` included.

    tensors: sub-folder -> key -> Tensor. sizes: what '@name' stands for in the recipe.
    files: tokenizer and notice files by their names in the bundle. training: the noise levels.
    """

    folder: Path
    recipe: Recipe
    index: Mapping[str, object]
    configs: Mapping[str, Mapping[str, object]]
    tensors: Mapping[str, Mapping[str, Tensor]]
    sizes: Mapping[str, int]
    scaling_factor: float
    training: Training
    files: Mapping[str, Path]


def open_checkpoint(folder: Path) -> Checkpoint:
    """Recognise a diffusers folder and index its weights. Raises SourceError, MissingError."""
    if folder.is_file():
        raise _not_a_folder(folder)
    if not folder.is_dir():
        raise MissingError(f"there is no folder '{folder.name}'")
    try:
        return _open(folder)
    except BundleError as error:  # the strict JSON reader's own words
        raise SourceError(f"in '{folder.name}': {error}", hint=error.hint) from error


def _open(folder: Path) -> Checkpoint:
    if not (folder / "model_index.json").is_file():
        raise SourceError(
            f"'{folder.name}' has no model_index.json, so it is no diffusers folder",
            hint="give the folder that holds model_index.json, unet/, vae/, text_encoder/",
        )
    index = read_json(folder / "model_index.json", CONFIG_LIMIT)
    recipe = _recognise(index)
    configs = {"scheduler": _config(folder, "scheduler", "scheduler_config.json", constants=True)}
    tensors: dict[str, Mapping[str, Tensor]] = {}
    for part in sorted({part.folder for part in recipe.components}):
        configs[part] = _config(folder, part, "config.json")
        tensors[part] = dict(_tensors(_weight_files(folder / part)))
    sizes = _sizes(configs)
    files = _side_files(folder)
    _check_tokenizer(folder / "tokenizer", configs["text_encoder"], sizes["token_limit"])
    return Checkpoint(
        folder=folder,
        recipe=recipe,
        index=index,
        configs=configs,
        tensors=tensors,
        sizes=sizes,
        scaling_factor=_scaling_factor(configs["vae"]),
        training=Training.from_config(configs["scheduler"]),
        files=files,
    )


def fingerprint(checkpoint: Checkpoint) -> str:
    """Give the sha256 over names and contents of all weight files and configurations, as hex."""
    files = {tensor.file for part in checkpoint.tensors.values() for tensor in part.values()}
    files |= set(checkpoint.files.values())
    files |= {checkpoint.folder / "model_index.json"}
    for part in checkpoint.configs:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        files.add(checkpoint.folder / part / name)
    whole = hashlib.sha256()
    for path in sorted(files):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(checkpoint.folder).as_posix()}\0{digest}\n".encode())
    return whole.hexdigest()


def _not_a_folder(path: Path) -> SourceError:
    if path.suffix.lower() in PICKLES:
        return SourceError(
            f"'{path.name}' is a pickle: loading it runs whatever code is inside", hint=PICKLE_HINT
        )
    return SourceError(
        f"'{path.name}' is a file; a diffusers folder is needed",
        hint="give the folder that holds model_index.json",
    )


def _recognise(index: Mapping[str, object]) -> Recipe:
    pipeline = index.get("_class_name")
    found = {
        part: value[1]
        for part, value in index.items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)
    }
    for recipe in FAMILIES.values():
        if pipeline not in recipe.pipelines:
            continue
        wrong = [
            f"{part} is {found.get(part, 'missing')}, {name} is needed"
            for part, name in recipe.classes.items()
            if found.get(part, "").removesuffix("Fast") != name
        ]
        if wrong:
            raise SourceError(f"this {pipeline} has another make: {'; '.join(wrong)}")
        return recipe
    known = ", ".join(name for recipe in FAMILIES.values() for name in recipe.pipelines)
    raise SourceError(
        f"a checkpoint of class '{str(pipeline)[:60]}' cannot be exported", hint=f"known: {known}"
    )


def _config(folder: Path, part: str, name: str, *, constants: bool = False) -> dict[str, object]:
    path = folder / part / name
    if not path.is_file():
        raise MissingError(f"'{folder.name}' lacks {part}/{name}")
    return read_json(path, CONFIG_LIMIT, constants=constants)


def _weight_files(part: Path) -> list[Path]:
    for stem in WEIGHT_STEMS:
        index = part / f"{stem}.safetensors.index.json"
        for name in (f"{stem}.safetensors", f"{stem}.fp16.safetensors"):
            if (part / name).is_file():
                return [part / name]
        if index.is_file():
            return _shards(index)
    pickles = sorted(path.name for path in part.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise SourceError(
            f"{part.name}/{pickles[0]} is a pickle: loading it runs whatever code is inside",
            hint=PICKLE_HINT,
        )
    raise MissingError(f"{part.name}/ has no .safetensors file")


def _shards(index: Path) -> list[Path]:
    table = Fields(read_json(index, HEADER_LIMIT).get("weight_map"), index.name)
    names = sorted({table.text(key) for key in table.each()})
    for name in names:
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise SourceError(f"{index.name} names '{name[:60]}', which is no shard beside it")
        if not (index.parent / name).is_file():
            raise MissingError(f"{index.parent.name}/ lacks its shard {name}")
    return [index.parent / name for name in names]


def _tensors(files: list[Path]) -> Iterator[tuple[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    for file in files:
        _check_header(file)
        label = f"{file.parent.name}/{file.name}"
        try:
            with safe_open(file, framework="np") as opened:
                for key in opened.keys():  # noqa: SIM118  a method of the library, no mapping
                    part = opened.get_slice(key)
                    yield (
                        key,
                        Tensor(
                            file=file,
                            key=key,
                            dtype=part.get_dtype(),
                            shape=tuple(part.get_shape()),
                        ),
                    )
        except SafetensorError as error:
            raise SourceError(
                f"{label} is damaged or cut short: {error}", hint="fetch that file again"
            ) from error


def _check_header(file: Path) -> None:
    size = file.stat().st_size
    with file.open("rb") as opened:
        start = opened.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    label = f"{file.parent.name}/{file.name}"
    if length == 0 or length > size - 8:
        raise SourceError(f"{label} is cut short or is no safetensors file")
    if length > HEADER_LIMIT:
        raise SourceError(f"{label} has a header of {length} bytes; at most {HEADER_LIMIT}")


def _sizes(configs: Mapping[str, Mapping[str, object]]) -> dict[str, int]:
    text = Fields(dict(configs["text_encoder"]), "text_encoder/config.json")
    unet = Fields(dict(configs["unet"]), "unet/config.json")
    vae = Fields(dict(configs["vae"]), "vae/config.json")
    if unet.integer("in_channels", 1, 64) != 4 or vae.integer("latent_channels", 1, 64) != 4:
        raise SourceError("this is no text-to-picture model with 4 latent channels")
    for key in FOREIGN:
        if configs["unet"].get(key) not in {None, "default"}:
            raise SourceError(f"the unet has {key}: it belongs to another family")
    blocks = len(vae.items("block_out_channels"))
    if blocks != 4:
        raise SourceError(f"the vae has {blocks} resolutions; 4 are needed (8 pixels a latent)")
    width = text.integer("hidden_size", 1, 65536)
    if unet.integer("cross_attention_dim", 1, 65536) != width:
        raise SourceError(
            "unet and text encoder do not fit: cross_attention_dim is not hidden_size"
        )
    return {
        "token_limit": text.integer("max_position_embeddings", 3, 4096),
        "embed_dim": width,
        "latent_side": unet.integer("sample_size", 1, 1024),
        "unet_factor": 2 ** (len(unet.items("block_out_channels")) - 1),
    }


def _scaling_factor(vae: Mapping[str, object]) -> float:
    given = vae.get("scaling_factor") is not None
    fields = Fields(dict(vae), "vae/config.json")
    return fields.number("scaling_factor", 1e-4, 1e4) if given else OLD_SCALING


def _side_files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in TOKENIZER_FILES:
        path = folder / "tokenizer" / name
        if path.is_file():
            found[f"tokenizer/{name}"] = _bounded(path, TOKENIZER_LIMIT)
    names = {name.removeprefix("tokenizer/") for name in found}
    if not ("tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names):
        raise MissingError(f"'{folder.name}' lacks tokenizer/vocab.json and merges.txt")
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.split(".")[0].upper() in NOTICES:
            found[path.name] = _bounded(path, NOTICE_LIMIT)
    return found


def _check_tokenizer(folder: Path, text: Mapping[str, object], limit: int) -> None:
    rows = Fields(dict(text), "text_encoder/config.json").integer("vocab_size", 2, 1 << 24)
    highest = Tokenizer(folder, limit=limit).highest_id()
    if highest >= rows:
        raise SourceError(
            f"the tokenizer gives ids up to {highest}, the text encoder knows {rows} tokens"
        )


def _bounded(path: Path, limit: int) -> Path:
    if path.stat().st_size > limit:
        raise SourceError(f"{path.parent.name}/{path.name} has more than {limit} bytes")
    return path
