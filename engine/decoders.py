"""Which network turns latents into a picture, and how latents are scaled for it.

`vae` is the checkpoint's own decoder; `tiny` is TAESD's (github.com/madebyollin/taesd), which a
bundle holds where it was exported with one: a hundredth of the work, and a little of the detail.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import RequestError
from engine.jsonfile import Fields, read_json

if TYPE_CHECKING:
    from engine.manifest import Manifest

__all__ = ["COMPONENTS", "TINY", "VAE", "Decoder", "find_decoder"]

TINY, VAE = "tiny", "vae"
COMPONENTS = {TINY: "tiny_vae_decoder", VAE: "vae_decoder"}
CONFIG_LIMIT = 1 << 20  # bytes of a component's configuration; real ones have 2 KiB


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoder:
    """component: of the bundle. scaling_factor: latents are divided by it before they go in."""

    component: str
    scaling_factor: float


def find_decoder(name: str, manifest: "Manifest", folder: Path) -> Decoder:
    """Find decoder `name` in the bundle in `folder`. Raises RequestError where it has none, and
    BundleError for a bad configuration.
    """
    component = COMPONENTS[name]
    if name == VAE:
        return Decoder(component=component, scaling_factor=manifest.scaling_factor)
    if component not in manifest.components:
        raise RequestError(
            f"bundle '{manifest.name}' has no tiny decoder",
            hint="export the checkpoint again with --tiny-vae, or decode with vae",
        )
    config = Fields(read_json(folder / component / "config.json", CONFIG_LIMIT), component)
    given = "scaling_factor" in config.each()
    factor = config.number("scaling_factor", 1e-4, 1e4) if given else 1.0
    return Decoder(component=component, scaling_factor=factor)
