"""Reads the icon set and rasterises an icon: premultiplied RGBA, square, padded if it was not."""

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from export.errors import ExportError
from export.pocket.packages import read_member

__all__ = ["IconSet", "composite", "rasterise"]

Bytes = NDArray[np.uint8]
# People in five skin tones are left out: the set's own default tone stands for them.
_TONES = ("-light", "-medium", "-dark", "-medium-light", "-medium-dark")


class IconSet:
    """The icons of an iconify package by name, without skin tones."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        icons: Mapping[str, Mapping[str, Any]] = document["icons"]
        self._icons = {n: i for n, i in icons.items() if not n.endswith(_TONES)}
        self._size = (document.get("width", 16), document.get("height", 16))

    @classmethod
    def from_archive(cls, archive: Path) -> "IconSet":
        """Read `icons.json` out of the npm archive."""
        return cls(json.loads(read_member(archive, "icons.json")))

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._icons)

    def svg(self, name: str) -> str:
        """Write one icon as a square SVG document, its box padded to a square."""
        if name not in self._icons:
            raise ExportError(f"the icon set has no icon '{name}'")
        icon = self._icons[name]
        left, top = icon.get("left", 0), icon.get("top", 0)
        width, height = icon.get("width", self._size[0]), icon.get("height", self._size[1])
        side = max(width, height)
        box = f"{left - (side - width) / 2} {top - (side - height) / 2} {side} {side}"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}" '
            f'viewBox="{box}">{icon["body"]}</svg>'
        )


def rasterise(svg: str, size: int) -> Bytes:
    """Draw an SVG at twice the size and area-average it. Premultiplied uint8[size, size, 4]."""
    import resvg_py  # the extra `pocket` alone has it

    png = bytes(
        resvg_py.svg_to_bytes(
            svg_string=svg, width=2 * size, height=2 * size, skip_system_fonts=True
        )
    )
    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), np.float32)
    alpha = rgba[..., 3:] / 255.0
    flat = np.concatenate([rgba[..., :3] * alpha, rgba[..., 3:]], axis=-1)
    mean = flat.reshape(size, 2, size, 2, 4).mean(axis=(1, 3))
    return np.rint(mean).astype(np.uint8)


def composite(rgba: Bytes, background: tuple[int, int, int] = (255, 255, 255)) -> Bytes:
    """Lay premultiplied uint8[..., 4] over a plain background: uint8[..., 3]."""
    below = np.asarray(background, np.float32) * (1.0 - rgba[..., 3:].astype(np.float32) / 255.0)
    return np.clip(np.rint(rgba[..., :3] + below), 0, 255).astype(np.uint8)
