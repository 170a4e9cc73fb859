"""Makes a bundle from a bundle and LoRAs, without torch and without a checkpoint.

A graph does not depend on its weights' values. So the graphs stay as they are, the weights that a
LoRA changes are written anew, and everything else is copied as it is. The sums are those of an
export (`export.merge`), from the weights that the base holds: the same bits, in seconds.

What the new bundle says of itself: its source is of kind `reweighted`, named after the base, with
the base's identity as revision; the sha256 covers that identity and the LoRAs. `reweighted.json`
names them one by one. The parity report is the base's: of the same graphs, by other weights.
`recheck_bundle` measures the new weights themselves.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from engine.bundle import Bundle
from engine.durable import flush_folder
from engine.hashes import HashCache
from engine.jsonfile import Fields, read_json
from engine.manifest import (
    MANIFEST_NAME,
    FileEntry,
    Manifest,
    Source,
    read_manifest,
    write_manifest,
)
from export.build import Options, beside
from export.errors import ExportError, SourceError
from export.sharing import duplicate

if TYPE_CHECKING:
    from export.weightfiles import Addition

__all__ = ["NOTE_NAME", "Reweighting", "is_reweighted", "reweight_bundle"]

KIND = "reweighted"
NOTE_NAME = "reweighted.json"
NEEDED = ("onnx", "ml_dtypes", "psutil")
CONFIG_LIMIT = 1 << 20  # bytes of a component's configuration
DEFAULTS = Options()
LAYERS_LIMIT = 1024  # of a text encoder; the largest of these families has 32
TEXT_LAYER = re.compile(r"((?:text_model\.)?encoder\.layers\.)(\d{1,4})(\..+)")
Progress = Callable[[str, float], None]
Shapes = dict[str, tuple[int, ...]]
Additions = Mapping[str, Mapping[str, "tuple[Addition, ...]"]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reweighting:
    """base: a bundle's folder. loras: (file, scale), added in this order."""

    base: Path
    loras: tuple[tuple[Path, float], ...]


def reweight_bundle(
    order: Reweighting,
    out: Path,
    *,
    name: str,
    licence: str | None,
    progress: Progress,
    options: Options = DEFAULTS,
) -> Manifest:
    """Make the new bundle folder `out` from a base bundle and LoRAs; whole or not at all.

    progress: called with a stage's name and the done fraction, 0..1. options: its clock and its
    hash cache. Raises SourceError, MissingError, GraphError, BundleError; then nothing is left
    behind.
    """
    _check_libraries()
    if out.exists():
        raise SourceError(f"'{out.name}' exists already", hint="remove it first or choose a name")
    progress("verify the base", 0.0)
    base = _open_base(order, options.hash_cache)
    progress("read the LoRAs", 0.2)
    additions = _additions(base, order.loras)
    digests = _digests(order, options.hash_cache)
    with beside(out) as folder:
        changed = _write(base, folder, additions, progress)
        note = _note(base, order, digests)
        note |= {"weights": {part: len(each) for part, each in additions.items()}}
        (folder / NOTE_NAME).write_text(json.dumps(note, indent=2, sort_keys=True) + "\n", "utf-8")
        progress("hash what is new", 0.9)
        fresh = {file: _entry(folder / file) for file in (*changed, NOTE_NAME)}
        manifest = replace(
            base.manifest,
            name=name,
            source=_source(base, order, digests),
            licence=licence or base.manifest.licence,
            files=dict(base.manifest.files) | fresh,
            created=options.now().astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        (folder / MANIFEST_NAME).write_bytes(write_manifest(manifest))
        for each in (*(path for path in folder.rglob("*") if path.is_dir()), folder):
            flush_folder(each)
        folder.rename(out)
        flush_folder(out.parent)
    progress("done", 1.0)
    return manifest


def is_reweighted(order: Reweighting, bundle: Path, *, hash_cache: Path | None) -> bool:
    """Say whether `bundle` is what `reweight_bundle` would make: same base, same LoRAs and scales.

    Raises SourceError for a base or LoRA that cannot be used, BundleError for a damaged bundle.
    """
    _check_libraries()
    if not (bundle / MANIFEST_NAME).is_file():
        return False
    wanted = _source(_open_base(order, hash_cache), order, _digests(order, hash_cache))
    return read_manifest(bundle).source == wanted


def _check_libraries() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"adding a LoRA to a bundle needs {', '.join(missing)}",
            hint="pip install 'safelight[export]'",
        )


def _open_base(order: Reweighting, hash_cache: Path | None) -> Bundle:
    if not order.loras:
        raise SourceError("no LoRA is named", hint="--lora FILE or --lora FILE:0.8")
    base = Bundle.open(order.base.absolute(), hash_cache=hash_cache)
    if not base.verified:
        raise SourceError(
            f"'{base.path.name}' is a plain ONNX export: nothing says which weight is which",
            hint="`safelight export` makes a bundle from its checkpoint",
        )
    source = base.manifest.source
    if source.kind == KIND:
        raise SourceError(
            f"'{base.path.name}' has LoRAs added already; its weights are rounded and not pristine",
            hint=f"name its base '{source.name}', with all LoRAs together",
        )
    return base


def _source(base: Bundle, order: Reweighting, digests: list[str]) -> Source:
    whole = hashlib.sha256(f"{base.hash}\n".encode())
    for (_, scale), digest in zip(order.loras, digests, strict=True):
        whole.update(f"{scale!r}\0{digest}\n".encode())
    return Source(kind=KIND, name=base.path.name, revision=base.hash, sha256=whole.hexdigest())


def _digests(order: Reweighting, hash_cache: Path | None) -> list[str]:
    from export.tensor_file import open_tensors

    with HashCache.open(hash_cache) as hashes:
        # Looked at first: what is missing or no safetensors file is said in the exporter's words.
        return [hashes.sha256(open_tensors(file).file) for file, _ in order.loras]


def _note(base: Bundle, order: Reweighting, digests: list[str]) -> dict[str, object]:
    return {
        "base": {
            "name": base.path.name,
            "identity": base.hash,
            "source": asdict(base.manifest.source),
        },
        "loras": [
            {"file": file.name, "scale": scale, "sha256": digest}
            for (file, scale), digest in zip(order.loras, digests, strict=True)
        ],
        "parity": "measured on the base: the same graphs with the base's weights",
    }


def _additions(base: Bundle, loras: tuple[tuple[Path, float], ...]) -> Additions:
    """Find what is added to which weight of which graph. Raises SourceError for a misfit."""
    from export.lora import combine, read_lora

    parts = ("unet", *base.manifest.text_encoders)
    stored = {part: _shapes(base, part) for part in parts}
    whole = {
        part: shapes if part == "unet" else _with_unused_layers(base, part, shapes)
        for part, shapes in stored.items()
    }
    found = combine([read_lora(file, scale, whole) for file, scale in loras])
    kept = {
        part: {name: each for name, each in additions.items() if name in stored[part]}
        for part, additions in found.items()
    }
    _check_shared(base, kept.get("unet", {}))
    return {part: additions for part, additions in kept.items() if additions}


def _check_shared(base: Bundle, additions: Mapping[str, object]) -> None:
    """Raise SourceError where the unet's second graphs have a copy of what is to be changed."""
    from export.graphweights import stored_weights

    components = base.manifest.components
    data = components["unet"].data_file
    if not any(name != "unet" and each.data_file == data for name, each in components.items()):
        return
    stored = stored_weights(base.model("unet"), _data(base, "unet"))
    copied = [name for name in additions if stored[name].offset is None]
    if copied:
        raise SourceError(
            f"'{min(copied)}' is so small that each graph of the unet holds it; it cannot be"
            " changed in all of them",
            hint="export the checkpoint with --lora and --with",
        )


def _shapes(base: Bundle, part: str) -> Shapes:
    from export.graphweights import stored_weights

    weights = stored_weights(base.model(part), _data(base, part))
    return {name: weight.shape for name, weight in weights.items()}


def _data(base: Bundle, part: str) -> Path | None:
    name = base.manifest.components[part].data_file
    return base.path / name if name else None


def _with_unused_layers(base: Bundle, part: str, shapes: Shapes) -> Shapes:
    """Add the layers of a text encoder that its graph leaves out, since nothing asks for them.

    A LoRA for SDXL has factors for the first text encoder's last layer; an export reads and drops
    them. All layers of CLIP have the same shapes.
    """
    config = read_json(base.model(part).parent / "config.json", CONFIG_LIMIT, constants=True)
    count = Fields(config, f"{part}/config.json").integer("num_hidden_layers", 1, LAYERS_LIMIT)
    matches = [match for match in map(TEXT_LAYER.fullmatch, shapes) if match]
    layer = {match[1] + "{}" + match[3]: shapes[match[0]] for match in matches if match[2] == "0"}
    more = {name.format(place): shape for name, shape in layer.items() for place in range(count)}
    return more | shapes


def _write(base: Bundle, folder: Path, additions: Additions, progress: Progress) -> list[str]:
    """Fill `folder` and give the names of the files that are not the base's."""
    from export.graphweights import rewrite
    from export.merge import merged

    components = base.manifest.components
    changed: list[str] = []
    for place, part in enumerate(sorted(additions)):
        progress(f"add to {part}", 0.3 + 0.6 * place / len(additions))
        (folder / part).mkdir()
        changes = {
            name: partial(merged, additions=each, name=name)
            for name, each in additions[part].items()
        }
        rewrite(base.model(part), _data(base, part), folder / part, changes)
        changed += [components[part].file, components[part].data_file]
    changed = [file for file in changed if file]
    for file in base.manifest.files:
        if file not in changed:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            duplicate(base.path / file, folder / file)
    return changed


def _entry(path: Path) -> FileEntry:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileEntry(bytes=path.stat().st_size, sha256=digest)
