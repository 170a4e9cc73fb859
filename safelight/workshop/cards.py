"""What a person should know of each model before choosing it: for menus."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from engine import Bundle
    from safelight.shelf import Shelf

__all__ = ["Card", "cards"]

NOTE: Final = "reweighted.json"  # beside a bundle to which LoRAs were added
NOTE_LIMIT: Final = 1 << 20  # bytes
UNIT: Final = 64  # pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """One bundle. scale: by which it enlarges, 0 for one that draws. sizes: (width, height) in its
    own area. loras: file names with scales that are merged into it; base: the bundle that they were
    added to, else its own name. paints_only: it draws under a mask alone. tiny: it has a tiny
    decoder. reuses: it has the pair of graphs to reuse features.
    """

    name: str
    family: str
    licence: str
    scale: int
    sizes: tuple[tuple[int, int], ...] = ()
    steps: int = 0
    guidance: float = 1.0
    sampler: str = ""
    schedule: str = ""
    loras: tuple[tuple[str, float], ...] = ()
    base: str = ""
    paints_only: bool = False
    tiny: bool = False
    reuses: bool = False


def cards(shelf: "Shelf") -> Iterator[Card]:
    """Give a card for each bundle that draws or enlarges; damaged ones and others have none."""
    from engine import EngineError

    for entry in shelf.entries():
        try:
            card = _card(shelf.open(entry.name), entry.name)
        except EngineError:
            continue  # `safelight models ls` says what is wrong with it
        if card is not None:
            yield card


def _card(bundle: "Bundle", name: str) -> Card | None:
    from engine.manifest import UPSCALER
    from engine.presets import TINY_DECODER
    from engine.reuse import has_pair
    from engine.upscale import read_scale

    manifest = bundle.manifest
    if manifest.family == UPSCALER:
        scale = read_scale(bundle)
        return Card(name=name, family=manifest.family, licence=manifest.licence, scale=scale)
    if manifest.add_on:
        return None
    defaults, loras = manifest.defaults, _loras(bundle)
    return Card(
        name=name,
        family=manifest.family,
        licence=manifest.licence,
        scale=0,
        sizes=_sizes(manifest.default_width, manifest.default_height),
        steps=defaults.steps,
        guidance=defaults.guidance_scale,
        sampler=defaults.sampler,
        schedule=defaults.schedule,
        loras=loras,
        base=manifest.source.name if loras else name,
        paints_only=manifest.unet_channels != manifest.latent_channels,
        tiny=TINY_DECODER in manifest.components,
        reuses=has_pair(manifest),
    )


def _sizes(width: int, height: int) -> tuple[tuple[int, int], ...]:
    """Give the model's own size, and sizes of about its area: 4:3, 3:2, 16:9, and upright."""
    area, unit = width * height, UNIT if min(width, height) >= 512 else UNIT // 4
    found = [(width, height)]
    for across, high in ((4, 3), (3, 2), (16, 9)):
        wide = round((area * across / high) ** 0.5 / unit) * unit
        tall = round((area * high / across) ** 0.5 / unit) * unit
        found += [(wide, tall), (tall, wide)]
    return tuple(dict.fromkeys(found))


def _loras(bundle: "Bundle") -> tuple[tuple[str, float], ...]:
    from engine import BundleError
    from engine.jsonfile import Fields, read_json

    if not (bundle.path / NOTE).is_file():
        return ()
    try:
        note = Fields(read_json(bundle.path / NOTE, NOTE_LIMIT), NOTE)
        found = [Fields(each, NOTE) for each in note.items("loras")]
        return tuple((each.text("file"), each.number("scale", -100.0, 100.0)) for each in found)
    except BundleError:
        return ()  # it is a note for people, and stands for nothing else
