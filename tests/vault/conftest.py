"""What the vault's tests share: small vaults, and their index as an attacker sees it."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import vault
from vault.keystore.memory import MemoryKeyStore
from vault.passphrase import passphrase_secret
from vault.secret import Secret

CANARY = "canary-7f3a hidden orchard"


@dataclass
class Place:
    """A vault on the disk and everything that opens it."""

    path: Path
    keystore: MemoryKeyStore
    phrase: str
    passphrase: Secret | None

    def open(self) -> vault.Vault:
        return vault.open_vault(self.path, vault.KeyStoreUnlock(self.keystore))

    def sql(self, statement: str, *values: object) -> list[tuple]:
        """Run a statement on the index, as someone with the folder can."""
        with closing(sqlite3.connect(self.path / "index.sqlite")) as connection, connection:
            connection.execute("PRAGMA synchronous=OFF")
            return connection.execute(statement, values).fetchall()


def draft(prompt: str = CANARY, data: bytes = b"pixels", kind=vault.Kind.PICTURE, **more):
    blob = vault.BlobDraft("picture", vault.Kind.PICTURE, "image/png", data)
    return vault.Draft(kind, {"prompt": prompt, **more}, [blob])


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """Return an empty folder in memory where the system has one.

    A vault has 258 folders and flushes every file: on a disk, the tests would wait for it alone.
    """
    memory = Path("/dev/shm")  # noqa: S108 - a fresh random name, private
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    made = memory / f"safelight-test-{os.urandom(8).hex()}"
    made.mkdir(mode=0o700)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def make(folder) -> Iterator[Callable[..., Place]]:
    """Return a function that makes and closes a vault, a new one at each call."""
    count = 0

    def make_one(*, passphrase: str = "", clock=lambda: 1_700_000_000.25) -> Place:
        nonlocal count
        count += 1
        phrases: list[str] = []
        place = Place(
            folder / f"vault{count}",
            MemoryKeyStore(),
            "",
            passphrase_secret(passphrase) if passphrase else None,
        )
        vault.create(
            place.path,
            keystore=place.keystore,
            passphrase=place.passphrase,
            confirm=lambda phrase: phrases.append(phrase.text()),
            clock=clock,
        ).close()
        place.phrase = phrases[0]
        return place

    return make_one


@pytest.fixture
def place(make) -> Place:
    """Return a vault with two records."""
    made = make()
    with made.open() as opened:
        opened.add([draft(), draft("second", b"")])
    return made
