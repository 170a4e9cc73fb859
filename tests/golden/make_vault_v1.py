"""Make the frozen sample vault of format 1. It was run once; do not run it over the old sample.

python -m tests.golden.make_vault_v1 TARGET
"""

import hashlib
import json
import platform
import sqlite3
import sys
import tarfile
from pathlib import Path

import cryptography

import vault
from vault.keystore.memory import MemoryKeyStore
from vault.passphrase import passphrase_secret

__all__ = ["CLOCK", "EXPECTED", "PASSPHRASE", "PHRASE_FILE", "fill", "picture", "write_sample"]

EXPECTED, PHRASE_FILE = "expected.json", "phrase.txt"
PASSPHRASE = "sample passphrase of format 1"
CLOCK = 1_795_478_400.125  # 2026-11-24T00:00:00.125Z


def picture(name: str, length: int) -> bytes:
    """Return bytes that anyone can make again."""
    return hashlib.shake_128(name.encode()).digest(length)


def fill(opened: vault.Vault) -> None:
    """Add one record of each kind, a thousand small ones, an edit and a record in the trash."""
    blobs = [
        vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", picture("picture", 40_000)),
        vault.BlobDraft("thumbnail", vault.Kind.THUMBNAIL, "image/webp", picture("thumb", 900)),
        vault.BlobDraft("empty", vault.Kind.INPUT, "application/octet-stream", b""),
        vault.BlobDraft("edge", vault.Kind.INPUT, "image/png", picture("edge", 16_376)),
    ]
    metadata = {"prompt": "Äpfel, studio light", "seed": 2**63, "nested": {"list": [1, None]}}
    (first,) = opened.add([vault.Draft(vault.Kind.PICTURE, metadata, blobs)])
    others = [kind for kind in vault.Kind if vault.Kind.PICTURE < kind < vault.Kind.ROOT]
    made = opened.add([vault.Draft(kind, {"kind": kind.name}) for kind in others])
    opened.edit(first.id, lambda data: {**data, "rating": 5})
    opened.trash([made[0].id])
    for start in range(0, 1040, 16):  # over the border of a page
        numbers = range(start, start + 16)
        opened.add([vault.Draft(vault.Kind.JOB, {"number": number}) for number in numbers])


def expected(opened: vault.Vault) -> list[dict]:
    """Return what must be read from the sample for ever."""
    kinds = tuple(kind for kind in vault.Kind if kind < vault.Kind.ROOT)
    found = [*opened.list(kinds=kinds), *opened.list(kinds=kinds, trashed=True)]
    return [
        {
            "kind": int(record.kind),
            "revision": record.revision,
            "trashed": record.trashed is not None,
            "created": record.created,
            "metadata": record.metadata,
            "blobs": {
                name: hashlib.sha256(opened.read(record.id, name)).hexdigest()
                for name in record.blobs
            },
        }
        for record in sorted(found, key=lambda record: record.position)
    ]


def main() -> None:
    """Make the sample in a new folder."""
    target = Path(sys.argv[1])
    target.mkdir()
    phrases: list[str] = []
    with vault.create(
        target / "vault",
        keystore=MemoryKeyStore(),
        passphrase=passphrase_secret(PASSPHRASE),
        confirm=lambda phrase: phrases.append(phrase.text()),
        clock=lambda: CLOCK,
    ) as opened:
        fill(opened)
        write_sample(target, opened, phrases[0], ["vault"])


def write_sample(target: Path, opened: vault.Vault, phrase: str, folders: list[str]) -> None:
    """Close the vault and write what belongs to its sample; say what made it."""
    text = json.dumps(expected(opened), ensure_ascii=False, separators=(",", ":"))
    opened.close()
    (target / EXPECTED).write_text(text.replace("},{", "},\n{") + "\n", encoding="utf-8")
    (target / PHRASE_FILE).write_text(phrase + "\n", encoding="utf-8")
    with tarfile.open(target / "vault.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        for folder in folders:
            archive.add(target / folder, folder, filter=_nameless)
    sys.stdout.write(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"cryptography {cryptography.__version__}\n"
    )


def _nameless(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


if __name__ == "__main__":
    main()
