"""Takes an upscaler's .onnx file onto the shelf: looked at, run once, and described.

No torch module stands behind it, so there is no parity report: what is known of it is what its own
graph says, that it runs, and its hashes.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from engine.durable import flush_folder
from safelight.exits import UsageError
from safelight.intake import Progress, beside, copy_files

if TYPE_CHECKING:
    from engine import Backend, Bundle
    from engine.manifest import Component, FileEntry, Manifest, TensorSpec

__all__ = ["take_in_upscaler"]

MAX_BYTES = 2 << 30  # of graph and weights together; the largest known have 200 MB
OWN = ("config.json", "model.onnx")  # names that the bundle gives to files of its own
COPY_SHARE = 0.5  # of the progress; the rest is the run and the hashes
HINT = (
    "an upscaler takes one picture f[B, 3, H, W] in 0..1 and gives one, 2, 3, 4 or 8 times larger"
)
# Of the trial picture, where the graph leaves them free: not square, multiples of all windows used.
TRIAL = (48, 64)


def take_in_upscaler(
    source: Path,
    target: Path,
    backend: "Backend",
    progress: Progress,
    *,
    licence: str = "unknown",
) -> "Bundle":
    """Make the new bundle folder `target` of the .onnx file `source` and open it.

    backend: what runs it once. licence: for the manifest. Raises UsageError for what is no file
    that can be taken, BundleError for what is no upscaler or does not run; then nothing is left
    behind.
    """
    from engine import Bundle
    from engine.manifest import MANIFEST_NAME, UPSCALER, write_manifest
    from engine.onnxheader import read_onnx_header

    files = [source.name]
    _check_file(source)
    header = read_onnx_header(source)
    files += _data_files(source, header.data_files)
    size = sum((source.parent / name).stat().st_size for name in files)
    if size > MAX_BYTES:
        raise UsageError(f"'{source.name}' has {size} bytes; at most {MAX_BYTES} are taken")
    _check_ports(source.name, header.inputs, header.outputs)
    with beside(target) as partial:
        part = partial / UPSCALER
        copy_files(
            source.parent, files, part, lambda stage, done: progress(stage, done * COPY_SHARE)
        )
        (part / source.name).rename(part / "model.onnx")
        progress("run it once", COPY_SHARE)
        scale = _try(part / "model.onnx", source.name, header.inputs, backend)
        text = json.dumps({"scale": scale}) + "\n"
        (part / "config.json").write_text(text, encoding="utf-8")
        component = _component(header.inputs, header.outputs, files[1:])
        labels = (source.name, target.name, licence)
        manifest = _manifest(labels, component, dict(_entries(partial)))
        (partial / MANIFEST_NAME).write_bytes(write_manifest(manifest))
        progress("verify the copy", 0.9)
        bundle = Bundle.open(partial, hash_cache=None)
        flush_folder(part)
        flush_folder(partial)
        if target.exists():
            raise UsageError(f"a model '{target.name}' has come meanwhile; it is not overwritten")
        partial.rename(target)
        flush_folder(target.parent)
    return replace(bundle, path=target)


def _check_file(source: Path) -> None:
    if source.is_symlink() or not source.is_file():
        if not source.exists():
            raise FileNotFoundError(2, "there is no file of that name", str(source))
        raise UsageError(
            f"'{source.name}' is no ordinary file", hint="make a copy of the file itself (cp -L)"
        )
    if len(source.name) > 200 or not source.name.isprintable() or "\\" in source.name:
        raise UsageError("the file's name cannot be kept", hint="give it a shorter, plain name")


def _data_files(source: Path, names: frozenset[str]) -> list[str]:
    """Give the one file of weights beside the graph, or none."""
    if not names:
        return []
    name = min(names)
    beside_it = source.parent / name
    # A name with a folder in it could lead anywhere.
    if len(names) > 1 or Path(name).name != name or name in {source.name, *OWN}:
        raise UsageError(
            f"'{source.name}' takes its weights from elsewhere: '{name[:60]}'",
            hint="one file of weights in the same folder is taken",
        )
    if beside_it.is_symlink() or not beside_it.is_file():
        raise UsageError(f"'{source.name}' needs its weights, '{name[:60]}', beside it")
    return [name]


def _check_ports(
    label: str, inputs: "Mapping[str, TensorSpec]", outputs: "Mapping[str, TensorSpec]"
) -> None:
    from engine.errors import BundleError

    for kind, ports in (("input", inputs), ("output", outputs)):
        if len(ports) != 1:
            raise BundleError(f"'{label}' has {len(ports)} {kind}s; one is needed", hint=HINT)
    for kind, ports in (("input", inputs), ("output", outputs)):
        (spec,) = ports.values()
        if not spec.dtype.startswith("float") or len(spec.shape) not in {0, 4}:
            raise BundleError(
                f"the {kind} of '{label}' is {spec.dtype} with {len(spec.shape)} dimensions;"
                " a float with 4 is needed",
                hint=HINT,
            )
    (spec,) = inputs.values()
    for place, wanted in ((0, 1), (1, 3)):
        size = spec.shape[place] if spec.shape else 0
        if isinstance(size, int) and size != wanted:
            shown = list(spec.shape)
            raise BundleError(f"the input of '{label}' is {shown}; no [B, 3, H, W]", hint=HINT)


def _try(model: Path, label: str, inputs: "Mapping[str, TensorSpec]", backend: "Backend") -> int:
    """Run a small picture of noise through it and give how much it enlarges."""
    import numpy as np

    from engine.errors import BundleError, EngineError
    from engine.upscale import SCALES

    ((name, spec),) = inputs.items()
    height, width = (
        size if isinstance(size, int) else trial
        for size, trial in zip(spec.shape[2:], TRIAL, strict=True)
    )
    if height * width > 1 << 22:
        raise BundleError(f"'{label}' takes pictures of {width}x{height} alone, which is too large")
    noise = np.random.default_rng(23).random((1, 3, height, width), dtype=np.float32)
    try:
        (found,) = backend.load(model, {name: noise.shape}).run_all({name: noise}).values()
    except EngineError as error:
        raise BundleError(
            f"'{label}' does not run in {backend.name}: {error}", hint=HINT
        ) from error
    scale = found.shape[-1] // width if found.ndim == 4 else 0
    if scale not in SCALES or found.shape != (1, 3, height * scale, width * scale):
        raise BundleError(
            f"'{label}' makes {list(found.shape)} of {list(noise.shape)}, so it is no upscaler",
            hint=HINT,
        )
    if not np.isfinite(found).all():
        raise BundleError(f"'{label}' makes NaN or Inf of a picture of noise: it is damaged")
    return scale


def _component(
    inputs: "Mapping[str, TensorSpec]", outputs: "Mapping[str, TensorSpec]", data: list[str]
) -> "Component":
    from engine.manifest import UPSCALER, Component

    (spec,) = inputs.values()
    return Component(
        file=f"{UPSCALER}/model.onnx",
        data_file=f"{UPSCALER}/{data[0]}" if data else "",
        precision="fp16" if spec.dtype == "float16" else "fp32",
        inputs=inputs,
        outputs=outputs,
    )


def _entries(folder: Path) -> "Iterator[tuple[str, FileEntry]]":
    from engine.manifest import FileEntry

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            name = path.relative_to(folder).as_posix()
            yield name, FileEntry(bytes=path.stat().st_size, sha256=digest)


def _manifest(
    labels: tuple[str, str, str], component: "Component", files: "dict[str, FileEntry]"
) -> "Manifest":
    """Describe it. labels: the file's name, the bundle's, the licence.

    What the format asks of diffusion models alone stands at a neutral value.
    """
    from engine.manifest import (
        FORMAT_VERSION,
        UPSCALER,
        Defaults,
        LatentRgb,
        Manifest,
        Parity,
        Source,
    )

    label, name, licence = labels
    return Manifest(
        format_version=FORMAT_VERSION,
        family=UPSCALER,
        name=name,
        source=Source(kind="onnx", name=label, revision="", sha256=files[component.file].sha256),
        licence=licence,
        prediction_type="sample",
        scaling_factor=1.0,
        latent_channels=4,
        vae_scale_factor=8,
        token_limit=3,
        embed_dim=1,
        default_width=8,
        default_height=8,
        defaults=Defaults(sampler="euler", schedule="leading", steps=1, guidance_scale=1.0),
        latent_rgb=LatentRgb(factors=((0.0,) * 3,) * 4, bias=(0.0,) * 3),
        components={UPSCALER: component},
        files=files,
        parity=Parity(precision="fp32", measures=()),
        exporter={},
        created=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    )
