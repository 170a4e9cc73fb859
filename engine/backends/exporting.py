"""Takes the bytes of a compiled model from OpenVINO without copies of it in memory.

`CompiledModel.export_model` gathers all of it in a stream, then in a string, then in Python's
bytes: three times 5 GB for SDXL's unet, beside the model. Where OpenVINO is given CACHE_DIR, its
core writes the same bytes to a file, behind one line of XML (ov::ModelCache).
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

__all__ = ["exported"]

PART: Final = 4 << 20  # bytes read at a time
# The line before the model. Aligned, there would be filling behind it, which is not known here.
HEAD: Final = re.compile(
    rb'<\?xml [^\n]*<compiled_blob [^\n]*header_size_alignment="0"[^\n]*/>\n', re.DOTALL
)


def exported(compiled: Any, folder: Path, *, wrote: bool) -> Iterable[bytes] | None:
    """Give a compiled model in parts, as `Core.import_model` reads it, or None.

    wrote: whether OpenVINO was told to write it into `folder`, which was empty; where it could not,
    as on a full disk, there is nothing. Raises OSError while it is read.
    """
    if not wrote:
        return [compiled.export_model().getvalue()]
    files = list(folder.glob("*.blob"))
    if not files:
        return None
    with files[0].open("rb") as file:
        head = HEAD.match(file.read(PART))
    if len(files) > 1 or head is None:  # a version that writes otherwise
        return [compiled.export_model().getvalue()]
    return _parts(files[0], head.end())


def _parts(path: Path, start: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while part := file.read(PART):
            yield part
