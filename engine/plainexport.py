"""Describes a plain optimum export, a folder without `safelight.json`, as a manifest would.

Nothing vouches for such a folder: there are no hashes, no licence and no parity report in it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from engine.errors import BundleError
from engine.jsonfile import Fields, read_json
from engine.manifest import (
    FORMAT_VERSION,
    Component,
    FileEntry,
    LatentRgb,
    Manifest,
    Parity,
    Source,
)
from engine.onnxheader import OnnxHeader, read_onnx_header
from engine.textoutputs import penultimate_layer
from engine.training import Training
from engine.usual import usual_settings

__all__ = ["LATENT_RGB", "LATENT_RGB_XL", "data_file", "describe_plain_export"]

CONFIG_LIMIT = 1 << 20  # bytes of one configuration; real ones have 2 KiB
NEEDED = ("text_encoder", "unet", "vae_decoder")
SECOND = "text_encoder_2"  # of Stable Diffusion XL
OPTIONAL = ("vae_encoder",)
GUIDANCE_SCALES = {"sd1": 7.5, "sdxl": 5.0}
SCALING_FACTORS = {"sd1": 0.18215, "sdxl": 0.13025}  # older configurations leave it out
# SD 1.4's latents to colours, published in 2022 at discuss.huggingface.co/t/23204, there
# for colours in -1..1, hence halved: a little pale, good enough to see what comes.
LATENT_RGB = LatentRgb(
    factors=(
        (0.149, 0.1035, 0.104),
        (0.0935, 0.143, 0.0865),
        (-0.079, 0.0945, 0.132),
        (-0.092, -0.1355, -0.2365),
    ),
    bias=(0.5, 0.5, 0.5),
)
# The same of SDXL's latents: the numbers that other front ends preview with, halved as well.
LATENT_RGB_XL = LatentRgb(
    factors=(
        (0.1826, 0.2116, 0.2171),
        (-0.1267, -0.0021, 0.0534),
        (0.0538, 0.0556, -0.0181),
        (-0.1583, -0.1246, -0.1094),
    ),
    bias=(0.5542, 0.4913, 0.4995),
)


def describe_plain_export(folder: Path) -> Manifest:
    """Read what the loop needs from the folder's configurations. Raises BundleError."""
    family = "sdxl" if (folder / SECOND).exists() else "sd1"
    needed = (*NEEDED, SECOND) if family == "sdxl" else NEEDED
    components = {name: _component(folder, name) for name in needed}
    for name in OPTIONAL:
        if (folder / name / "model.onnx").is_file():
            components[name] = _component(folder, name)
    unet = _config(folder, "unet")
    vae = _config(folder, "vae_decoder")
    text = _config(folder, "text_encoder")
    width = text.integer("hidden_size", 1, 65536)
    if family == "sdxl":
        width += _second_width(folder, components)
    scheduler = folder / "scheduler" / "scheduler_config.json"
    training = Training.from_config(read_json(scheduler, CONFIG_LIMIT, constants=True))
    side = unet.integer("sample_size", 1, 1024) * 8
    factor = 2 ** (len(vae.items("block_out_channels")) - 1)
    channels = unet.integer("in_channels", 1, 64)
    if (channels, factor) != (4, 8):
        raise BundleError(
            f"'{folder.name}' has {channels} latent channels at 1/{factor} size;"
            " 4 at 1/8 can be run, which is Stable Diffusion 1.x or XL"
        )
    return Manifest(
        format_version=FORMAT_VERSION,
        family=family,
        name=re.sub(r"[^A-Za-z0-9._-]", "-", folder.name).lstrip("._-")[:64] or "bundle",
        source=Source(kind="optimum", name=folder.name, revision="", sha256=""),
        licence="unknown",
        prediction_type=training.prediction_type,
        scaling_factor=_scaling(vae, SCALING_FACTORS[family]),
        latent_channels=channels,
        vae_scale_factor=factor,
        token_limit=text.integer("max_position_embeddings", 3, 4096),
        embed_dim=width,
        default_width=side,
        default_height=side,
        defaults=usual_settings(
            training,
            GUIDANCE_SCALES[family],
            embedded="timestep_cond" in components["unet"].inputs,
        ),
        latent_rgb=LATENT_RGB_XL if family == "sdxl" else LATENT_RGB,
        components=components,
        files={
            path.relative_to(folder).as_posix(): FileEntry(bytes=path.stat().st_size, sha256="")
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
        parity=Parity(precision="fp32", measures=()),
        exporter={},
        created="",
    )


def _config(folder: Path, part: str) -> Fields:
    value = read_json(folder / part / "config.json", CONFIG_LIMIT, constants=True)
    return Fields(value, f"{part}/config.json")


def _scaling(vae: Fields, usual: float) -> float:
    known = "scaling_factor" in vae.each()
    return vae.number("scaling_factor", 1e-4, 1e4) if known else usual


def _second_width(folder: Path, components: Mapping[str, Component]) -> int:
    """Give the width of the second text encoder's layers, once all that XL needs is there."""
    for name in ("text_encoder", SECOND):
        if not penultimate_layer(components[name].outputs):
            raise BundleError(
                f"{name}/model.onnx gives no hidden_states, of which Stable Diffusion XL takes one",
                hint="export it again with optimum, or its checkpoint with `safelight export`",
            )
    ports = components["unet"].inputs
    pooled = ports["text_embeds"].shape[-1] if "text_embeds" in ports else "none"
    text = _config(folder, SECOND)
    wanted = text.integer("projection_dim", 1, 65536)
    if "text_embeds" not in components[SECOND].outputs or pooled != wanted:
        raise BundleError(
            f"'{folder.name}' is no Stable Diffusion XL: its unet takes pooled text of width"
            f" {pooled}, its second text encoder gives {wanted}"
        )
    return text.integer("hidden_size", 1, 65536)


def _component(folder: Path, name: str) -> Component:
    path = folder / name / "model.onnx"
    if not path.is_file():
        raise BundleError(
            f"'{folder.name}' is no bundle: it lacks {name}/model.onnx",
            hint="`safelight export` makes a bundle from a diffusers folder",
        )
    header = read_onnx_header(path)
    return Component(
        file=f"{name}/model.onnx",
        data_file=data_file(header, folder, name),
        precision="fp32",
        inputs=header.inputs,
        outputs=header.outputs,
    )


def data_file(header: OnnxHeader, folder: Path, component: str) -> str:
    """Give the one file beside the graph that its weights lie in, or "". Raises BundleError."""
    if not header.data_files:
        return ""
    names = sorted(header.data_files)
    plain = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", names[0])
    if len(names) > 1 or plain is None or not (folder / component / names[0]).is_file():
        raise BundleError(f"{component}/model.onnx takes weights from elsewhere: {names[0][:60]}")
    return f"{component}/{names[0]}"
