"""What is painted on: an init picture, of a file or of the vault, and a mask, brought to size."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.request import MAX_SIDE
from safelight.exits import UsageError
from safelight.picturefile import decode_picture, read_picture

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.inputs import Inputs
    from engine.manifest import Manifest
    from vault import Record, Vault

__all__ = ["Canvas", "open_canvas", "open_picture"]

UNIT = 8  # pixels; sides are multiples, and at least one
MODEL_UNIT = 64  # pixels; multiples of it fit every model
_ID = re.compile(r"[0-9a-f]{4,32}")


@dataclass(frozen=True, slots=True)
class Canvas:
    """The pictures as they were given: init uint8[H, W, 3], mask uint8[H, W] or nothing.

    parent: the record that init lies in, empty for a file.
    """

    init: "NDArray[np.uint8]"
    mask: "NDArray[np.uint8] | None"
    parent: str

    def fitted(
        self, inputs: "Inputs", given: Mapping[str, Any], manifest: "Manifest"
    ) -> "tuple[Inputs, dict[str, int]]":
        """Bring the pictures to the size to draw; gives the inputs, and width and height.

        given: width and height where they were asked for. Without, the proportion stays and the
        area is the model's own. Raises UsageError where the picture would be stretched, or a side
        is longer or shorter than any that can be drawn.
        """
        height, width = self.init.shape[:2]
        size = _size(width, height, given, manifest)
        init = _resized(self.init, size, smooth=True)
        found = replace(inputs, init=init)
        if self.mask is not None:
            found = replace(found, mask=_resized(self.mask, size, smooth=False))
        return found, {"width": size[0], "height": size[1]}


def open_canvas(init: str | None, mask: Path | None, vault: "Vault | None") -> Canvas | None:
    """Open what `--init` and `--mask` name; None where neither is given.

    Raises UsageError for what is no picture, or a mask of another size; and what the vault raises.
    """
    if init is None:
        if mask is not None:
            raise UsageError("--mask says where to paint, and --init what on: give both")
        return None
    pixels, record = open_picture(init, vault)
    area = None if mask is None else _read_mask(mask)
    if area is not None and area.shape != pixels.shape[:2]:
        have, want = (f"{each.shape[1]}x{each.shape[0]}" for each in (area, pixels))
        raise UsageError(
            f"the mask has {have} pixels and the picture {want}; they must be of one size",
            hint="white is painted, black stays",
        )
    return Canvas(pixels, area, "" if record is None else record.id)


def open_picture(source: str, vault: "Vault | None") -> "tuple[NDArray[np.uint8], Record | None]":
    """Give the pixels of a file or of a vault's record, and the record unless it is a file.

    Nothing leaves the process: it is not a disclosure.
    """
    if vault is None or Path(source).is_file():
        return read_picture(Path(source), "the picture"), None
    if not _ID.fullmatch(source.lower()):
        raise UsageError(
            f"'{Path(source).name}' is neither a file nor the beginning of a record's id",
            hint="`safelight ls` shows ids",
        )
    record = vault.get(vault.resolve(source))
    return decode_picture(vault.read(record.id, "picture"), "the record"), record


def _read_mask(file: Path) -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    return np.asarray(Image.fromarray(read_picture(file, "the mask")).convert("L"))


def _size(
    width: int, height: int, given: Mapping[str, Any], manifest: "Manifest"
) -> tuple[int, int]:
    across, high = given.get("width") or 0, given.get("height") or 0
    if not across and not high:
        area = manifest.default_width * manifest.default_height
        scale = (area / (width * height)) ** 0.5
        size = _near(width * scale, MODEL_UNIT), _near(height * scale, MODEL_UNIT)
        return _drawable(*size)
    _drawable(across or UNIT, high or UNIT)  # the other one follows from what is given
    across = across or _near(high * width / height, UNIT)
    high = high or _near(across * height / width, UNIT)
    # Multiples of 8 pixels are as near as a proportion can be met.
    if abs(across * height - high * width) >= UNIT * max(width, height):
        raise UsageError(
            f"the picture has {width}x{height} pixels, another proportion than {across}x{high}",
            hint="leave out --width or --height, or crop the picture",
        )
    return _drawable(across, high)


def _drawable(width: int, height: int) -> tuple[int, int]:
    """Give a size back. Raises UsageError for one that no request can have."""
    for name, side in (("width", width), ("height", height)):
        if not UNIT <= side <= MAX_SIDE:
            raise UsageError(
                f"the picture would have a {name} of {side} pixels; {UNIT} to {MAX_SIDE} can be"
                " drawn",
                hint="give another --width or --height, or crop the picture",
            )
    return width, height


def _near(side: float, unit: int) -> int:
    return max(unit, round(side / unit) * unit)


def _resized(
    pixels: "NDArray[np.uint8]", size: tuple[int, int], *, smooth: bool
) -> "NDArray[np.uint8]":
    import numpy as np
    from PIL import Image

    if pixels.shape[1::-1] == size:
        return pixels
    kind = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(pixels).resize(size, kind))
