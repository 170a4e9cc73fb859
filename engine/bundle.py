"""A model bundle on disk: opened, verified against its manifest, and asked for its parts.

A bundle is optimum's folder layout plus `safelight.json`. A folder without that file is a plain
optimum export: it is accepted, what the loop needs is read from its configurations, and `verified`
is False.
"""

import hashlib
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, Unpack

from engine.control import Control
from engine.errors import BundleError
from engine.hashes import HashCache
from engine.jsonfile import read_json
from engine.manifest import MANIFEST_NAME, TEXT_ENCODERS, FileEntry, Manifest, read_manifest
from engine.onnxheader import read_onnx_header
from engine.plainexport import data_file, describe_plain_export
from engine.request import DEFAULT_SCHEDULE, GenerationRequest
from engine.tokenizer import Tokenizer
from engine.training import Training

__all__ = ["Bundle", "RequestFields"]

CONFIG_LIMIT = 1 << 20  # bytes of a scheduler configuration; the trained_betas of one have 20 KiB
FORCE_ZEROS = "force_zeros_for_empty_prompt"  # in diffusers' model_index.json; true where absent
FILES_LIMIT = 1024  # entries in a bundle's folders; ours have 20


class RequestFields(TypedDict, total=False):
    """What a request may give; everything else comes from the bundle's defaults."""

    negative_prompt: str
    width: int
    height: int
    steps: int
    sampler: str
    schedule: str
    guidance_scale: float
    count: int
    eta: float
    noise: str
    decoder: str
    controls: tuple[Control, ...]
    refiner: str
    refiner_switch: float
    upscaler: str
    prompt_syntax: str
    clip_skip: int
    guidance_start: float
    guidance_end: float
    reuse_every: int
    kv_downsampling: int
    vae_tiling: str


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One opened bundle. hash: hex sha256 that identifies graphs, weights and configurations.

    verified: every file's sha256 is what the manifest says. bytes: of all files together.
    zero_empty: an empty negative prompt is all zeros, as Stable Diffusion XL was trained.
    """

    path: Path
    manifest: Manifest
    verified: bool
    hash: str
    training: Training = field(repr=False)
    zero_empty: bool = False

    @classmethod
    def open(cls, path: Path, *, hash_cache: Path | None) -> "Bundle":
        """Open the bundle in folder `path` and verify it.

        hash_cache: a file that remembers hashes by size, times and inode, so that a large bundle
        is read through once. Raises BundleError when it is missing, damaged or not acceptable.
        """
        if not path.is_dir():
            raise BundleError(f"there is no bundle '{path.name}'", hint="`safelight models ls`")
        verified = (path / MANIFEST_NAME).is_file()
        files = dict(_files(path))
        with HashCache.open(hash_cache) as hashes:
            if verified:
                manifest = read_manifest(path)
                _verify(manifest.files, files, hashes)
                identity = hashes.sha256(files[MANIFEST_NAME])
                # The manifest's hash stands for all files, which were verified just now.
                hashes.once(f"graphs of {identity}", lambda: _check_graphs(path, manifest))
            else:
                manifest = describe_plain_export(path)
                identity = _identity(files, hashes)
        return cls.described(path, manifest, identity, verified=verified)

    @classmethod
    def described(
        cls, path: Path, manifest: Manifest, identity: str, *, verified: bool = False
    ) -> "Bundle":
        """Make the bundle of a manifest that stands in no file: of a checkpoint that was never
        exported, whose graphs only a back end of its own can give.

        path: a folder with tokenizers and configurations as a bundle has them. identity: a hex
        sha256. Raises BundleError where the noise schedule is missing or not acceptable.
        """
        training = Training()  # of what has no noise levels: any do
        if not manifest.add_on:
            config = path / "scheduler" / "scheduler_config.json"
            read = Training.from_config(read_json(config, CONFIG_LIMIT, constants=True))
            training = replace(read, family=manifest.family)
        return cls(
            path=path,
            manifest=manifest,
            verified=verified,
            hash=identity,
            training=training,
            zero_empty=_zeroes_empty(path, manifest.family),
        )

    @property
    def name(self) -> str:
        """Name the bundle as its manifest does."""
        return self.manifest.name

    @property
    def bytes(self) -> int:
        """Add up the sizes of its files, in bytes."""
        return sum(entry.bytes for entry in self.manifest.files.values())

    def model(self, component: str) -> Path:
        """Give the .onnx file of a component. Raises BundleError where the bundle has none."""
        found = self.manifest.components.get(component)
        if found is None:
            names = ", ".join(sorted(self.manifest.components))
            raise BundleError(f"bundle '{self.name}' has no {component}", hint=f"it has: {names}")
        return self.path / found.file

    def output_names(self, component: str) -> list[str]:
        """Name a component's outputs in its graph's order, compared when it was opened."""
        return list(self.manifest.components[component].outputs)

    def tokenizers(self) -> list[Tokenizer]:
        """Read the bundle's tokenizers, one a text encoder."""
        folders = (
            name.replace("text_encoder", "tokenizer") for name in self.manifest.text_encoders
        )
        return [Tokenizer(self.path / name, limit=self.manifest.token_limit) for name in folders]

    def request(
        self, *, prompt: str, seed: int, **given: Unpack[RequestFields]
    ) -> GenerationRequest:
        """Make a request; what is not given comes from the bundle. Raises RequestError."""
        defaults = self.manifest.defaults
        fields: RequestFields = {
            "width": self.manifest.default_width,
            "height": self.manifest.default_height,
            "steps": defaults.steps,
            "sampler": defaults.sampler,
            "schedule": DEFAULT_SCHEDULE.get(given.get("sampler", ""), defaults.schedule),
            "guidance_scale": defaults.guidance_scale,
        }
        return GenerationRequest(prompt=prompt, seed=seed, **(fields | given))


def _zeroes_empty(folder: Path, family: str) -> bool:
    """Say whether an empty negative prompt is all zeros: in XL, unless its pipeline says no."""
    index = folder / "model_index.json"
    if family != "sdxl" or not index.is_file():
        return family == "sdxl"
    return read_json(index, CONFIG_LIMIT).get(FORCE_ZEROS) is not False


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield every file that is not hidden by its name in the bundle, at most FILES_LIMIT."""
    found = 0
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if any(part.startswith(".") for part in parts) or path.is_dir():
            continue
        found += 1
        if found > FILES_LIMIT:
            raise BundleError(f"'{folder.name}' has more than {FILES_LIMIT} files: no bundle")
        if not stat.S_ISREG(path.stat().st_mode):
            raise BundleError(f"'{folder.name}': {path.name} is no ordinary file")
        yield "/".join(parts), path


def _verify(wanted: Mapping[str, FileEntry], files: Mapping[str, Path], hashes: HashCache) -> None:
    stray = sorted(set(files) - set(wanted) - {MANIFEST_NAME})
    if stray:
        raise BundleError(
            f"{stray[0]} is in the bundle and not in its manifest",
            hint="remove what does not belong to the bundle, or export it again",
        )
    for name, entry in wanted.items():
        if name not in files:
            raise BundleError(f"the bundle lacks {name}", hint="export or fetch it again")
        size = files[name].stat().st_size
        if size != entry.bytes:
            raise BundleError(
                f"{name} has {size} bytes, its manifest says {entry.bytes}",
                hint="it is damaged or was changed: export or fetch it again",
            )
        if hashes.sha256(files[name]) != entry.sha256:
            raise BundleError(
                f"{name} is not what its manifest says: its sha256 differs",
                hint="it is damaged or was changed: export or fetch it again",
            )


def _check_graphs(folder: Path, manifest: Manifest) -> None:
    """Refuse a manifest that says of its graphs what is not so.

    A text encoder's outputs also have to stand in the graph's order, since they are taken by place.
    """
    for name, component in manifest.components.items():
        header = read_onnx_header(folder / component.file)
        data = data_file(header, folder, component.file.rpartition("/")[0])
        if (header.inputs, header.outputs, data) != (
            component.inputs,
            component.outputs,
            component.data_file,
        ) or (name in TEXT_ENCODERS and list(header.outputs) != list(component.outputs)):
            raise BundleError(
                f"{component.file} has other inputs, outputs or weights than its manifest says",
                hint="export it again",
            )


def _identity(files: Mapping[str, Path], hashes: HashCache) -> str:
    whole = hashlib.sha256()
    for name, path in files.items():
        whole.update(f"{name}\0{hashes.sha256(path)}\n".encode())
    return whole.hexdigest()
