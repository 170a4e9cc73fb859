"""Lay out a vault's folder: the 64 static bytes of `VAULT`, the folders, the file system below.

    magic 16 | format u16 | suite u16 | vault id 16 | SHA-256 of these 36 bytes, first 28

The digest tells damage from a newer format; it proves nothing against an attacker, the root does.
"""

import errno
import hashlib
import os
import stat
import struct
import sys
from pathlib import Path

from vault.blobs import stranger_in
from vault.errors import (
    BadValueError,
    DamagedError,
    NotFoundError,
    StorageError,
    UnsupportedFormatError,
)
from vault.files import FIXED_MTIME_NS, has_fixed_time, sync

__all__ = [
    "FORMAT",
    "HEADER_BYTES",
    "Layout",
    "encode_header",
    "file_system_of",
    "read_header",
    "refuse_network",
    "snapshots_of",
    "unfinished",
]

HEADER_BYTES = 64
MAGIC = b"safelight vault\n"
FORMAT = 1
SUITE = 1  # AES-256-GCM, HKDF-SHA-512, X25519 HPKE; there is no negotiation
_HEADER = struct.Struct(">16sHH16s")
_OURS = frozenset({"VAULT", "index.sqlite", "index.sqlite-journal", "blobs", "incoming", "lock"})
# Kernel locks and fsync do not mean the same there; names as in /proc/self/mountinfo.
_NETWORK = frozenset(
    {"9p", "afs", "ceph", "cifs", "fuse.sshfs", "ncpfs", "nfs", "nfs4", "smb3", "smbfs"}
)
_SNAPSHOTS = frozenset({"btrfs", "zfs", "bcachefs", "nilfs2"})


class Layout:
    """The paths of one vault folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.header = root / "VAULT"
        self.index = root / "index.sqlite"
        self.lock = root / "lock"

    def claim(self) -> None:
        """Make the folder, or accept an empty or unfinished one.

        Raises BadValueError when something else lies in it, StorageError where that is refused.
        """
        try:
            made = [each for each in (self.root, *self.root.parents) if not each.exists()]
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            # The names of all that was made, and of the folder itself, which may be another's.
            for each in (*made, self.root):
                _sync_folder(each.absolute().parent)
            names = {path.name for path in self.root.iterdir()}
        except FileExistsError:
            raise BadValueError(f"{self.root} is a file, not a folder") from None
        except OSError as error:
            raise StorageError(f"the folder cannot be made: {error.strerror}") from error
        strange = min(names - _OURS, default=None)
        if strange is None and not names & {"VAULT", "index.sqlite"}:
            strange = stranger_in(self.root)
        if strange is not None:
            raise BadValueError(
                f"{self.root} holds other files, such as {strange!a}",
                hint="Choose a new or an empty folder.",
            )

    def prepare(self, vault_id: bytes) -> bytes:
        """Write what `create` needs before the index, durably; return the vault's id.

        Runs under the exclusive lock and finishes what a dead `create` began, with its id.
        """
        try:
            begun = os.path.lexists(self.header)
            if begun:
                vault_id = read_header(self.root)
            elif os.path.lexists(self.index):
                raise DamagedError("VAULT is gone and the index is there", hint="Restore a backup.")
            self._folders()
            if not begun:
                self._write_header(vault_id)
                # Before the index has a name: an index without VAULT would look like damage.
                _sync_folder(self.root)
            if self._lacks_index():
                self.refuse_lost_index()
            if not os.path.lexists(self.index):
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(self.index, flags, 0o600))
            _sync_folder(self.root)
        except OSError as error:
            raise StorageError(f"the vault cannot be made here: {error.strerror}") from error
        return vault_id

    def require_index(self) -> None:
        """Raise NotFoundError while `create` has not filled the index, DamagedError if lost."""
        if self._lacks_index():
            self.refuse_lost_index()
            raise unfinished()

    def is_untouched_backup(self) -> bool:
        """Say whether nobody wrote to the index since a backup made it (FORMAT.md, section 1)."""
        try:
            return has_fixed_time(self.index.lstat())
        except OSError:
            return False

    def _lacks_index(self) -> bool:
        try:
            status = self.index.lstat()
        except FileNotFoundError:
            return True
        except OSError as error:
            raise StorageError(f"the index may not be looked at: {error.strerror}") from error
        return stat.S_ISREG(status.st_mode) and status.st_size == 0

    def refuse_lost_index(self) -> None:
        """Raise DamagedError when sealed files lie there, to be called when no index does."""
        try:
            shards = list((self.root / "blobs").iterdir())
        except FileNotFoundError:
            return
        if any(any(shard.iterdir()) for shard in shards if shard.is_dir()):
            raise DamagedError(
                "the vault's index is gone, and with it the keys of its sealed files",
                hint="Restore index.sqlite from a backup.",
            )

    def _folders(self) -> None:
        blobs = self.root / "blobs"
        for folder in (blobs, self.root / "incoming"):
            folder.mkdir(mode=0o700, exist_ok=True)
        for number in range(256):
            (blobs / f"{number:02x}").mkdir(mode=0o700, exist_ok=True)
        _sync_folder(blobs)

    def _write_header(self, vault_id: bytes) -> None:
        waiting = self.root / "incoming" / os.urandom(16).hex()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(waiting, flags, 0o600)
        try:
            os.write(fd, encode_header(vault_id))
            os.utime(fd, ns=(FIXED_MTIME_NS, FIXED_MTIME_NS))
            sync(fd)
        finally:
            os.close(fd)
        waiting.rename(self.header)


def unfinished() -> NotFoundError:
    """Return the error that says that `create` was begun here, and not finished."""
    return NotFoundError(
        "the making of this vault was not finished", hint="Run `init` again there."
    )


def encode_header(vault_id: bytes) -> bytes:
    """Return the 64 bytes of `VAULT`."""
    head = _HEADER.pack(MAGIC, FORMAT, SUITE, vault_id)
    return head + hashlib.sha256(head).digest()[: HEADER_BYTES - len(head)]


def read_header(root: Path) -> bytes:
    """Return the vault id of a folder.

    Raises NotFoundError when no vault is there, DamagedError for bytes that are not a header, and
    UnsupportedFormatError for a format or suite of another release. Nothing is written.
    """
    path = root / "VAULT"
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError(f"there is no vault at {root}", hint="Make one with `init`.") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DamagedError("VAULT is a link; this program never makes one") from error
        raise StorageError(f"VAULT cannot be read: {error.strerror}") from error
    try:
        data = os.read(fd, HEADER_BYTES + 1)
    except BlockingIOError as error:  # an open pipe
        raise DamagedError("VAULT is not a regular file") from error
    except OSError as error:
        raise StorageError(f"VAULT cannot be read: {error.strerror}") from error
    finally:
        os.close(fd)
    head = data[: _HEADER.size]
    digest = hashlib.sha256(head).digest()[: HEADER_BYTES - _HEADER.size]
    if len(data) != HEADER_BYTES or data[_HEADER.size :] != digest or not data.startswith(MAGIC):
        raise DamagedError("VAULT is not a vault's header, or it is damaged")
    _magic, format_, suite, vault_id = _HEADER.unpack(head)
    if (format_, suite) != (FORMAT, SUITE):
        raise UnsupportedFormatError(
            f"this vault has format {format_}, suite {suite}; this program knows {FORMAT}, {SUITE}",
            hint="Use a newer release. Nothing was written.",
        )
    return vault_id


def refuse_network(path: Path) -> None:
    """Raise StorageError when the path lies on a network file system (Linux; elsewhere no news)."""
    kind = _file_system(path)
    if kind in _NETWORK:
        raise StorageError(
            f"the folder lies on a network file system ({kind}), where locks are not reliable",
            hint="Choose a local disk. If only one machine uses it: SAFELIGHT_NETWORK_VAULT=allow",
        )


def snapshots_of(path: Path) -> str:
    """Name the file system below the path if it is one that keeps snapshots, else nothing."""
    if sys.platform == "darwin":
        return "APFS"  # the system's own since 2017; Time Machine takes local snapshots
    kind = _file_system(path)
    return kind if kind in _SNAPSHOTS else ""


def _file_system(path: Path) -> str:
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        device = path.stat().st_dev
    except OSError:
        return ""
    return file_system_of(mounts, f"{os.major(device)}:{os.minor(device)}", path.resolve())


def file_system_of(mounts: str, device: str, path: Path) -> str:
    """Return the file system of a device ("major:minor") in mountinfo's text, else of the path.

    A btrfs subvolume has a device of its own that mountinfo does not list: then the longest mount
    point above the path tells. Empty when neither does.
    """
    above: tuple[int, str] = (-1, "")
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        kind = rest.split(" ", 1)[0]
        columns = fields.split(" ")
        if device in columns[2:3]:
            return kind
        point = Path("".join(columns[4:5]).encode().decode("unicode_escape"))
        if path.is_relative_to(point):
            above = max(above, (len(point.parts), kind))
    return above[1]


def _sync_folder(folder: Path) -> None:
    """Flush a folder, which may be reached by a link: a person chose where the vault lies."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sync(fd)
    finally:
        os.close(fd)
