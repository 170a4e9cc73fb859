"""Reads a diffusers folder: configurations, weights, tokenizer and notices, each where it lies."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.jsonfile import Fields, read_json
from engine.tokenizer import Tokenizer
from export.checkpoint import Pieces
from export.errors import MissingError, SourceError
from export.recipes import RECIPES, Recipe
from export.weightfiles import HEADER_LIMIT, PICKLES, Tensor, index_tensors, refuse_pickle

__all__ = [
    "CONFIG_LIMIT",
    "TOKENIZER_FILES",
    "TOKENIZER_LIMIT",
    "open_folder",
    "origin_of",
    "weight_files",
]

CONFIG_LIMIT = 1 << 20  # bytes of one configuration; real ones have 2 KiB
TOKENIZER_LIMIT = 64 << 20  # bytes of one tokenizer file
NOTICE_LIMIT = 1 << 20  # bytes of one licence or notice file
SOURCE_NAME = "safelight-source.json"  # written by `models pull`
NOTE_LIMIT = 1 << 20  # bytes of it
WEIGHT_STEMS = ("diffusion_pytorch_model", "model")
VARIANTS = ("", ".fp16")
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.json",
    "merges.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
NOTICES = ("LICENSE", "LICENCE", "NOTICE", "ATTRIBUTION")


def open_folder(folder: Path) -> Pieces:
    """Recognise a diffusers folder and index its weights. Raises SourceError, MissingError."""
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
        tensors[part] = dict(index_tensors(weight_files(folder / part)))
    tokenizers = sorted(part for part in recipe.classes if part.startswith("tokenizer"))
    files = _side_files(folder, tokenizers)
    for name in tokenizers:
        encoder = name.replace("tokenizer", "text_encoder")
        _check_tokenizer(folder / name, configs[encoder], encoder)
    label, revision, licence = origin_of(folder)
    return Pieces(
        label=label or folder.name,
        kind="hub" if label else "diffusers",
        revision=revision,
        licence=licence,
        recipe=recipe,
        index=index,
        configs=configs,
        tensors=tensors,
        files={name: path.read_bytes() for name, path in files.items()},
        origins=_origins(folder, files, configs, tensors),
        places={part: folder / part for part in tensors},
    )


def origin_of(folder: Path) -> tuple[str, str, str]:
    """Give repository, commit and licence that `models pull` noted, or nothing and "unknown"."""
    note = folder / SOURCE_NAME
    if not note.is_file():
        return "", "", "unknown"
    fields = Fields(read_json(note, NOTE_LIMIT), SOURCE_NAME)
    return (
        fields.text("repository", r"[\w.-]{1,96}(/[\w.-]{1,96})?"),
        fields.text("commit", r"[0-9a-f]{40}"),
        fields.text("licence", r"[^\x00-\x1f]{1,100}"),
    )


def _recognise(index: Mapping[str, object]) -> Recipe:
    pipeline = index.get("_class_name")
    found = {
        part: value[1]
        for part, value in index.items()
        if isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)
    }
    refused = ""
    for recipe in RECIPES:
        if not pipeline or pipeline not in (*recipe.pipelines, recipe.inpainting):
            continue
        wrong = [
            f"{part} is {found.get(part, 'missing')}, {name} is needed"
            for part, name in recipe.classes.items()
            if found.get(part, "").removesuffix("Fast") != name
        ]
        if not wrong:
            return recipe
        refused = refused or f"this {pipeline} has another make: {'; '.join(wrong)}"
    if refused:
        raise SourceError(refused)
    names = [each for recipe in RECIPES for each in (*recipe.pipelines, recipe.inpainting) if each]
    known = ", ".join(dict.fromkeys(names))
    raise SourceError(
        f"a checkpoint of class '{str(pipeline)[:60]}' cannot be exported", hint=f"known: {known}"
    )


def _config(folder: Path, part: str, name: str, *, constants: bool = False) -> dict[str, object]:
    path = folder / part / name
    if not path.is_file():
        raise MissingError(f"'{folder.name}' lacks {part}/{name}")
    return read_json(path, CONFIG_LIMIT, constants=constants)


def weight_files(part: Path) -> list[Path]:
    """Give the safetensors files of a part. Raises SourceError, MissingError."""
    for stem in WEIGHT_STEMS:
        whole = [part / f"{stem}{variant}.safetensors" for variant in VARIANTS]
        indexes = [part / f"{stem}.safetensors.index{variant}.json" for variant in VARIANTS]
        # Plain before fp16, and one whole file before shards, as the libraries choose.
        for path, index in zip(whole, indexes, strict=True):
            if path.is_file():
                return [path]
            if index.is_file():
                return _shards(index)
    pickles = sorted(path.name for path in part.iterdir() if path.suffix in PICKLES)
    if pickles:
        raise refuse_pickle(f"{part.name}/{pickles[0]}")
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


def _side_files(folder: Path, tokenizers: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part in tokenizers:
        names = {name for name in TOKENIZER_FILES if (folder / part / name).is_file()}
        if not ("tokenizer.json" in names or {"vocab.json", "merges.txt"} <= names):
            raise MissingError(f"'{folder.name}' lacks {part}/vocab.json and merges.txt")
        for name in sorted(names):
            found[f"{part}/{name}"] = _bounded(folder / part / name, TOKENIZER_LIMIT)
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name.split(".")[0].upper() in NOTICES:
            found[path.name] = _bounded(path, NOTICE_LIMIT)
    return found


def _origins(
    folder: Path,
    files: Mapping[str, Path],
    configs: Mapping[str, object],
    tensors: Mapping[str, Mapping[str, Tensor]],
) -> dict[str, Path]:
    paths = {tensor.file for part in tensors.values() for tensor in part.values()}
    paths |= {*files.values(), folder / "model_index.json"}
    for part in configs:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        paths.add(folder / part / name)
    return {path.relative_to(folder).as_posix(): path for path in sorted(paths)}


def _check_tokenizer(folder: Path, config: Mapping[str, object], encoder: str) -> None:
    text = Fields(dict(config), f"{encoder}/config.json")
    rows = text.integer("vocab_size", 2, 1 << 24)
    limit = text.integer("max_position_embeddings", 3, 4096)
    highest = Tokenizer(folder, limit=limit).highest_id()
    if highest >= rows:
        raise SourceError(
            f"the tokenizer gives ids up to {highest}, the text encoder knows {rows} tokens"
        )


def _bounded(path: Path, limit: int) -> Path:
    if path.stat().st_size > limit:
        raise SourceError(f"{path.parent.name}/{path.name} has more than {limit} bytes")
    return path
