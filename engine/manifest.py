"""`safelight.json`: what a bundle says about itself, read strictly and written canonically.

The manifest names every file of the bundle with its size and sha256; its own sha256 is the
bundle's identity. What the loop needs to know (prediction type, scaling, limits) stands here, so
that nothing is guessed at run time.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from engine.errors import BundleError
from engine.jsonfile import Fields, parse_json, read_json
from engine.request import SAMPLERS, SCHEDULES

__all__ = [
    "ADD_ONS",
    "FAMILIES",
    "FORMAT_VERSION",
    "MANIFEST_LIMIT",
    "MANIFEST_NAME",
    "PRECISIONS",
    "PREDICTION_TYPES",
    "UPSCALER",
    "Component",
    "Defaults",
    "FileEntry",
    "LatentRgb",
    "Manifest",
    "Measure",
    "Parity",
    "Source",
    "TensorSpec",
    "parse_manifest",
    "read_manifest",
    "write_manifest",
]

FORMAT_VERSION = 1
MANIFEST_NAME = "safelight.json"
MANIFEST_LIMIT = 1 << 20  # bytes; ours have about 8 KiB
UPSCALER = "upscaler"  # a family without diffusion, and the name of its one component
# Family -> components of what draws nothing by itself: no text encoder, tokenizer, VAE, scheduler.
ADD_ONS: Mapping[str, tuple[str, ...]] = {
    "controlnet-sd1": ("controlnet",),
    "controlnet-sdxl": ("controlnet",),
    UPSCALER: (UPSCALER,),
}
FAMILIES = ("sd1", "sd2", "sdxl", "sdxl-refiner", *ADD_ONS)
PRECISIONS = ("fp16", "fp32")
PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")
TEXT_ENCODERS = ("text_encoder", "text_encoder_2")  # in the order of their channels
DTYPES = ("float16", "float32", "int32", "int64")
SOURCE_KINDS = ("diffusers", "hub", "onnx", "optimum", "reweighted", "safetensors")
MAX_BYTES = 1 << 40  # of one file; bounds what a reader allocates or waits for
HEX = r"[0-9a-f]{64}"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
# Relative POSIX paths of plain names: no '..', no hidden files, no drives, at most 4 levels.
FILE = rf"{NAME}(/{NAME}){{0,3}}"
# Above the values of any trained model, low enough to stop nonsense.
BIG = 1e6
BIG_VERSION = 1 << 31


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """Size in bytes and sha256 (hex) of one file of the bundle."""

    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """dtype and shape of one input or output; a text in the shape is a free size by that name."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Component:
    """One network of the bundle. file, data_file: keys of `Manifest.files`.

    data_file is empty when the weights stand in the graph itself. precision: of the stored weights;
    arithmetic of the graph is fp32.
    """

    file: str
    data_file: str
    precision: str
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the weights came from. name: of the file, folder or repository, never a path."""

    kind: str
    name: str
    revision: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Defaults:
    """What a request gets where the user says nothing."""

    sampler: str
    schedule: str
    steps: int
    guidance_scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LatentRgb:
    """A linear preview at 1/8 size: rgb (0..1, clipped) = latents[4] @ factors[4][3] + bias[3]."""

    factors: tuple[tuple[float, ...], ...]
    bias: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Measure:
    """How far one runtime is from the torch reference on one subject.

    subject: a component, trajectory or picture. max_abs, mean_abs: absolute errors over the
    reference's largest value (or over 1 where that is less). psnr: dB against the reference's
    range, 200 for equal.
    """

    subject: str
    runtime: str
    max_abs: float
    mean_abs: float
    cosine: float
    psnr: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """The report of the gate that every bundle passed. precision: of the thresholds applied."""

    precision: str
    measures: tuple[Measure, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Everything in `safelight.json`; fields as in ENGINE.md section 2.

    token_limit: ids in one chunk, with begin and end. embed_dim: of the prompt embeddings.
    vae_scale_factor: pixels a latent. default_width, default_height: pixels. exporter: library ->
    version. created: UTC, ISO 8601.
    """

    format_version: int
    family: str
    name: str
    source: Source
    licence: str
    prediction_type: str
    scaling_factor: float
    latent_channels: int
    vae_scale_factor: int
    token_limit: int
    embed_dim: int
    default_width: int
    default_height: int
    defaults: Defaults
    latent_rgb: LatentRgb
    components: Mapping[str, Component]
    files: Mapping[str, FileEntry]
    parity: Parity
    exporter: Mapping[str, str]
    created: str

    @property
    def add_on(self) -> bool:
        """Say whether it goes with a model and draws nothing by itself."""
        return self.family in ADD_ONS

    @property
    def text_encoders(self) -> tuple[str, ...]:
        """Name the components that encode text, in the order of their channels."""
        found = [name for name in TEXT_ENCODERS if name in self.components]
        return tuple(found) or TEXT_ENCODERS[:1]

    @property
    def pooled_dim(self) -> int:
        """Give the width of the pooled text that unet or ControlNet take, or 0 where none is."""
        return self._port_size("text_embeds", -1)

    @property
    def time_id_count(self) -> int:
        """Count the sizes that they take beside the pooled text, or give 0."""
        return self._port_size("time_ids", -1)

    @property
    def guidance_dim(self) -> int:
        """Give the width of the embedded guidance scale that the unet takes, or 0."""
        return self._port_size("timestep_cond", -1)

    @property
    def unet_channels(self) -> int:
        """Count the channels of the unet's sample: the latents' own, or 9 for inpainting."""
        return self._port_size("sample", 1) or self.latent_channels

    def _port_size(self, port: str, axis: int) -> int:
        taker = self.components.get("unet") or self.components.get("controlnet")
        spec = None if taker is None else taker.inputs.get(port)
        shape = () if spec is None else spec.shape
        size = shape[axis] if len(shape) > max(axis, 0) else 0
        return size if isinstance(size, int) else 0


def read_manifest(folder: Path) -> Manifest:
    """Read and check `safelight.json` in `folder`. Raises BundleError on anything out of order."""
    return _manifest(Fields(read_json(folder / MANIFEST_NAME, MANIFEST_LIMIT), MANIFEST_NAME))


def parse_manifest(data: bytes) -> Manifest:
    """Check a manifest given as bytes. Raises BundleError on anything out of order."""
    return _manifest(Fields(parse_json(data, MANIFEST_NAME), MANIFEST_NAME))


def write_manifest(manifest: Manifest) -> bytes:
    """Give the canonical JSON of a manifest: sorted keys (outputs: in the graph's order), two
    spaces, UTF-8, one final newline.

    The bytes are read back and compared, so that nothing is ever written that cannot be read.
    """
    text = json.dumps(
        _sorted(dataclasses.asdict(manifest)), indent=2, ensure_ascii=False, allow_nan=False
    )
    data = text.encode() + b"\n"
    if parse_manifest(data) != manifest:
        raise BundleError("the manifest does not read back as it was written")
    return data


def _sorted(value: object, name: str = "") -> object:
    """Sort keys at every level but a graph's outputs, which are taken by their places."""
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    fields = cast("dict[str, object]", value)
    keys = fields if name == "outputs" else sorted(fields)
    return {key: _sorted(fields[key], key) for key in keys}


def _manifest(top: Fields) -> Manifest:
    version = top.integer("format_version", 0, BIG_VERSION)
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{MANIFEST_NAME} has format version {version}; this program reads {FORMAT_VERSION}",
            hint="a newer safelight made this bundle: update, or export it again",
        )
    manifest = Manifest(
        format_version=version,
        family=top.choice("family", FAMILIES),
        name=top.text("name", NAME),
        source=_source(top.fields("source")),
        licence=top.text("licence"),
        prediction_type=top.choice("prediction_type", PREDICTION_TYPES),
        scaling_factor=top.number("scaling_factor", 1e-4, 1e4),
        latent_channels=top.integer("latent_channels", 4, 4),
        vae_scale_factor=top.integer("vae_scale_factor", 8, 8),
        token_limit=top.integer("token_limit", 3, 4096),
        embed_dim=top.integer("embed_dim", 1, 65536),
        default_width=top.integer("default_width", 8, 8192),
        default_height=top.integer("default_height", 8, 8192),
        defaults=_defaults(top.fields("defaults")),
        latent_rgb=_latent_rgb(top.fields("latent_rgb")),
        components=top.mapped("components", _component),
        files=top.mapped("files", _file_entry),
        parity=_parity(top.fields("parity")),
        exporter=_texts(top.fields("exporter")),
        created=top.text("created", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"),
    )
    top.done()
    _check_together(manifest)
    return manifest


def _check_together(manifest: Manifest) -> None:
    for name in manifest.files:
        _check_file_name(name)
    for name, component in manifest.components.items():
        wanted = [component.file] + ([component.data_file] if component.data_file else [])
        for file in wanted:
            if file not in manifest.files:
                raise BundleError(f"{MANIFEST_NAME}: component '{name}' names a file without hash")
    wanted_parts = ADD_ONS.get(manifest.family)
    if wanted_parts is not None and tuple(sorted(manifest.components)) != wanted_parts:
        raise BundleError(
            f"{MANIFEST_NAME}: family {manifest.family} has the component"
            f" {', '.join(wanted_parts)} and no other"
        )
    for side in (manifest.default_width, manifest.default_height):
        if side % manifest.vae_scale_factor:
            raise BundleError(f"{MANIFEST_NAME}: default size {side} is no multiple of 8")


def _check_file_name(name: str) -> None:
    # One rule for readers of every platform: Fields.text holds the pattern, so borrow it.
    Fields({"file": name}, f"{MANIFEST_NAME}: files").text("file", FILE)


def _source(fields: Fields) -> Source:
    source = Source(
        kind=fields.choice("kind", SOURCE_KINDS),
        name=fields.text("name", r"[^\x00-\x1f\\]{1,200}"),
        revision=fields.text("revision", r"[0-9A-Za-z._/-]{0,128}"),
        sha256=fields.text("sha256", HEX),
    )
    fields.done()
    return source


def _defaults(fields: Fields) -> Defaults:
    defaults = Defaults(
        sampler=fields.choice("sampler", SAMPLERS),
        schedule=fields.choice("schedule", SCHEDULES),
        steps=fields.integer("steps", 1, 1000),
        guidance_scale=fields.number("guidance_scale", 0.0, 100.0),
    )
    fields.done()
    return defaults


def _latent_rgb(fields: Fields) -> LatentRgb:
    rows = fields.items("factors")
    factors = tuple(Fields({"row": row}, "latent_rgb").numbers("row", 3, -BIG, BIG) for row in rows)
    if len(factors) != 4:
        raise BundleError(f"latent_rgb has {len(factors)} rows of factors; 4 are needed")
    rgb = LatentRgb(factors=factors, bias=fields.numbers("bias", 3, -BIG, BIG))
    fields.done()
    return rgb


def _component(fields: Fields) -> Component:
    component = Component(
        file=fields.text("file", FILE),
        data_file=fields.text("data_file", rf"({FILE})?"),
        precision=fields.choice("precision", PRECISIONS),
        inputs=fields.mapped("inputs", _tensor),
        outputs=fields.mapped("outputs", _tensor),
    )
    fields.done()
    return component


def _tensor(fields: Fields) -> TensorSpec:
    dtype = fields.choice("dtype", DTYPES)
    shape: list[int | str] = []
    for size in fields.items("shape"):
        one = Fields({"size": size}, f"{fields.where}: shape")
        symbolic = isinstance(size, str)
        shape.append(one.text("size", NAME) if symbolic else one.integer("size", 1, 1 << 31))
    fields.done()
    return TensorSpec(dtype=dtype, shape=tuple(shape))


def _file_entry(fields: Fields) -> FileEntry:
    entry = FileEntry(
        bytes=fields.integer("bytes", 0, MAX_BYTES), sha256=fields.text("sha256", HEX)
    )
    fields.done()
    return entry


def _parity(fields: Fields) -> Parity:
    measures = [
        _measure(Fields(item, f"{fields.where}: measures")) for item in fields.items("measures")
    ]
    parity = Parity(precision=fields.choice("precision", PRECISIONS), measures=tuple(measures))
    fields.done()
    return parity


def _measure(fields: Fields) -> Measure:
    measure = Measure(
        subject=fields.text("subject", NAME),
        runtime=fields.text("runtime", r"[A-Za-z0-9 ._+-]{1,64}"),
        max_abs=fields.number("max_abs", 0.0, BIG),
        mean_abs=fields.number("mean_abs", 0.0, BIG),
        cosine=fields.number("cosine", -1.001, 1.001),
        psnr=fields.number("psnr", -1000.0, 200.0),
    )
    fields.done()
    return measure


def _texts(fields: Fields) -> dict[str, str]:
    return {name: fields.text(name, r"[^\x00-\x1f]{1,100}") for name in fields.each()}
