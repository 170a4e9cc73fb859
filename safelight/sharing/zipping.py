"""Many pictures as one zip that is made piece by piece in memory and never lies in a file."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from safelight.disclose import disclose
from safelight.sharing.parcel import Parcel, pack
from safelight.sharing.profile import Share

if TYPE_CHECKING:
    from vault import Record, Vault

__all__ = ["zip_stream"]

MODE = 0o600 << 16  # of the files, as a zip keeps it


def zip_stream(vault: "Vault", ids: Sequence[str], share: Share) -> Iterator[bytes]:
    """Yield the bytes of a zip with one file a record, named by its place alone.

    At most one picture is held at a time. Each record notes that it left, way `zip`, before its
    bytes do. The files have no time and no id: the archive tells nothing that the pictures do not.
    Raises what `disclose` and `pack` raise; what was yielded until then is no whole archive.
    """
    window = _Window()
    digits = len(str(len(ids)))
    with zipfile.ZipFile(window, "w", zipfile.ZIP_STORED) as archive:
        for place, record_id in enumerate(ids, 1):
            parcels: list[Parcel] = []

            def take(record: "Record", data: bytearray, kept: list[Parcel] = parcels) -> None:
                kept.append(pack(record, data, share))

            disclose(vault, record_id, take, way="zip")
            (parcel,) = parcels
            info = zipfile.ZipInfo(f"picture-{place:0{digits}}.{parcel.suffix}")
            info.external_attr = MODE
            archive.writestr(info, parcel.data)
            yield window.taken()
    yield window.taken()


class _Window(io.RawIOBase):
    """The end of a growing file, in which zipfile may still go back: only what was not taken."""

    def __init__(self) -> None:
        super().__init__()
        self._buffer = io.BytesIO()
        self._start = 0

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._buffer.write(data)  # pyright: ignore[reportArgumentType] - what zipfile gives

    def tell(self) -> int:
        return self._start + self._buffer.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: -self._start, io.SEEK_CUR: self._buffer.tell(), io.SEEK_END: 0}[whence]
        if whence == io.SEEK_END:
            return self._start + self._buffer.seek(offset, io.SEEK_END)
        return self._start + self._buffer.seek(base + offset)

    def taken(self) -> bytes:
        """Give what was written since the last time; there is no way back behind it."""
        data = self._buffer.getvalue()
        self._start += len(data)
        self._buffer = io.BytesIO()
        return data
