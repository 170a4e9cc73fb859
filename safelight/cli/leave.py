"""`safelight vault archive` and `takeout`: everything out, as one sealed file or in the clear."""

import os
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safelight.access import Access, read_passphrase
from safelight.cli.options import Json, with_access
from safelight.cli.reveal import write_new
from safelight.console import ask, is_interactive, line, note
from safelight.disclose import disclose
from safelight.exits import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vault import Record, Secret, Vault

__all__ = ["archive", "take_out", "takeout"]

PICTURE = "picture"  # the blob that leaves through `disclose` alone
READER = "archive_reader.py"
README = """\
This folder holds everything of a safelight vault, in the clear.
Nothing protects it. Whoever reads this folder reads all prompts and sees all pictures.

Each record is one JSON file and its data files, named by its date and id:

    2026-11-24_<id>.json     id, kind, created, trashed (null, or since when), metadata, blobs
    2026-11-24_<id>_1.png    the first of its blobs, and so on

`blobs` in the JSON says, for each data file: its name in the record, kind, media type, length in
bytes, SHA-256, and the file. `metadata` is all that the record holds: prompts, seed, size, model,
sampler, tags, notes. Times are UTC. JSON and this text are UTF-8. Thumbnails are not here: they can
be made of the pictures.

A record's JSON is written last: where it is, the record's files are whole.
"""
WARNING = """\
TAKEOUT WRITES THE WHOLE VAULT IN THE CLEAR, prompts and trash included, to
    {folder}
The vault cannot protect those copies, and deleting them later does not shred them. To keep
everything sealed in one file, use `safelight vault archive` instead."""


@with_access
def archive(
    access: Access,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The new sealed file.")],
    archive_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--archive-passphrase-file",
            help="Read the archive's own passphrase from this file's first line.",
            show_default=False,
        ),
    ] = None,
    with_reader: Annotated[
        bool,
        typer.Option("--with-reader", help=f"Put {READER} beside it: opens it without safelight."),
    ] = False,
    json: Json = False,
) -> None:
    """Write all into one sealed file with its own passphrase."""
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress
    from vault.archive import require_free, write_archive

    require_free(file)  # before anybody types a passphrase
    reader = _reader_beside(file) if with_reader else b""
    secret = _archive_passphrase(archive_passphrase_file)
    with access.open() as vault, Interruption() as interrupted, StageProgress() as bar:

        def show(done: int, total: int) -> None:
            bar.stage("archiving" if 2 * done <= total else "reading back", done / total)

        report = write_archive(vault, file, secret, progress=show, cancelled=interrupted)
    if report is None:
        note("stopped: no archive was written")
        raise KeyboardInterrupt
    if reader:
        write_new(file.with_name(READER), reader)
    note(
        f"{report.records} records are sealed in {file}, and were read back. It opens with its own "
        "passphrase alone, and with nothing when that is lost."
    )
    if json:
        line(
            {
                "archive": str(file),
                "records": report.records,
                "blobs": report.blobs,
                "bytes": report.bytes,
                "file_bytes": file.stat().st_size,
            }
        )


@with_access
def takeout(
    access: Access,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do not ask; needed without a terminal.")
    ] = False,
    json: Json = False,
) -> None:
    """Write every record in the clear: nothing protects the files."""
    if not yes and not is_interactive():
        raise UsageError(
            "takeout writes the whole vault in the clear, and nobody is there to confirm it",
            hint="give --yes if that is what you want",
        )
    note(WARNING.format(folder=folder))
    if not yes and ask("Type yes to write everything in the clear: ").strip().lower() != "yes":
        raise UsageError("not confirmed: nothing was written")
    with access.open() as vault:
        if vault.read_only:
            note("The vault lies on read-only media: it cannot note that its pictures left.")
        _claim(folder, vault)
        write_new(folder / "README.txt", README.encode())
        _follow(vault, folder, json=json)


def take_out(vault: "Vault", folder: Path) -> "Iterator[dict[str, Any]]":
    """Write record after record into a folder; yield id, kind and files of each.

    A damaged record yields its id and the error, and the others follow. Records that another
    process deletes meanwhile are left out. Whoever stops iterating keeps what is written.
    """
    from vault import DamagedError, NotFoundError
    from vault.archive import all_records

    for record in all_records(vault):
        try:
            files = _take(vault, record, folder)
        except NotFoundError:
            continue
        except DamagedError as error:
            yield {"id": record.id, "error": str(error)}
        else:
            yield {"id": record.id, "kind": record.kind.name.lower(), "files": files}


def _follow(vault: "Vault", folder: Path, *, json: bool) -> None:
    """Take all out, and say how far it is and how it ended."""
    from safelight.interrupt import Interruption
    from safelight.progress import StageProgress
    from vault import DamagedError

    status = vault.status()
    total = sum(status.records.values()) + status.trashed
    done = damaged = 0
    try:
        with Interruption() as interrupted, StageProgress() as bar:
            for taken in take_out(vault, folder):
                if "error" in taken:
                    damaged += 1
                    note(f"record {taken['id']} is left out: {taken['error']}")
                else:
                    done += 1
                    bar.stage(f"{done} of {total} records", min(done / max(total, 1), 1.0))
                if json:
                    line(taken)
                if interrupted():
                    raise KeyboardInterrupt
    finally:
        note(f"{done} of {total} records are in {folder}, in the clear: nothing protects them.")
    if damaged:
        raise DamagedError(
            f"{damaged} of {total} records are damaged and were left out",
            hint="a backup may have them whole",
        )


def _take(vault: "Vault", record: "Record", folder: Path) -> list[str]:
    """Write one record and return its files; a picture goes through the one door."""
    files: list[str] = []

    def write(current: "Record", picture: bytearray | None) -> None:
        given = {} if picture is None else {PICTURE: picture}
        for file, data in _contents(vault, current, given).items():
            write_new(folder / file, data)
            files.append(file)

    if PICTURE in record.blobs:
        disclose(vault, record.id, write, way="takeout")
    else:
        write(record, None)
    return files


def _contents(
    vault: "Vault", record: "Record", given: "Mapping[str, bytearray]"
) -> dict[str, bytes | bytearray]:
    """Return the record's files by name, its JSON last. given: blobs that are read already."""
    from vault import Kind
    from vault.archive import describe
    from vault.archive_reader import names

    data = {
        name: given[name] if name in given else vault.read(record.id, name)
        for name, blob in record.blobs.items()
        if blob.kind is not Kind.THUMBNAIL
    }
    document = describe(record, data)
    name, files = names(document)
    for blob, file in zip(document["blobs"], files, strict=True):
        blob["file"] = file
    text = dumps(document, ensure_ascii=False, indent=1)
    return dict(zip(files, data.values(), strict=True)) | {name: text.encode()}


def _claim(folder: Path, vault: "Vault") -> None:
    """Make the folder, or take an empty one, for its owner alone."""
    if folder.resolve().is_relative_to(vault.path.resolve()):
        raise UsageError("a takeout cannot lie inside the vault", hint="name another folder")
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir() or any(folder.iterdir()):
            raise UsageError(
                f"{folder} is not an empty folder", hint="name a new or an empty one"
            ) from None
        with suppress(PermissionError):  # FAT has no permissions; said below
            folder.chmod(0o700)
    if folder.stat().st_mode & 0o077:
        note(f"others on this machine can read {folder}: its file system keeps no permissions")


def _archive_passphrase(file: Path | None) -> "Secret":
    from vault import passphrase_secret

    if file is not None:
        return read_passphrase(file)
    if not is_interactive():
        raise UsageError(
            "an archive has a passphrase of its own, and none was given",
            hint="give --archive-passphrase-file F",
        )
    first = ask("new passphrase of the archive: ", secret=True)
    if first != ask("once more: ", secret=True):
        raise UsageError("the two passphrases differ; no archive was written")
    return passphrase_secret(first)


def _reader_beside(file: Path) -> bytes:
    """Return the reader's text, to be written beside the archive; nothing if it is there."""
    from importlib.resources import files

    source = files("vault").joinpath(READER).read_bytes()
    beside = file.with_name(READER)
    if not os.path.lexists(beside):
        return source
    if beside.is_file() and beside.read_bytes() == source:
        return b""
    raise UsageError(
        f"{beside} exists already and is another file", hint="archive into another folder"
    )
