"""The vault's own work on a small vault: seal, open, search, list."""

import os
from pathlib import Path
from typing import Any

import pytest

import vault
from benchmarks.vault_scale import FRAGMENT, hits, settings
from vault.frame import Framed, strip_frame
from vault.sealing import open_blob, seal_blob

SIZE = 2000  # records
PICTURE = os.urandom(450_000)
KEY, CONTEXT = os.urandom(32), os.urandom(59)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Give a vault of 2,000 records without files."""
    folder: Path = tmp_path_factory.mktemp("micro") / "vault"
    with vault.create(folder, keystore=vault.MemoryKeyStore(), confirm=lambda _: None) as made:
        for first in range(0, SIZE, 16):
            numbers = range(first, min(first + 16, SIZE))
            made.add([vault.Draft(vault.Kind.PICTURE, settings(number)) for number in numbers])
        yield made


def test_seal(benchmark: Any) -> None:
    sealed = benchmark(lambda: seal_blob(KEY, CONTEXT, Framed(PICTURE)))
    assert PICTURE not in bytes(sealed)


def test_open(benchmark: Any) -> None:
    sealed = seal_blob(KEY, CONTEXT, Framed(PICTURE))
    found = benchmark(lambda: strip_frame(open_blob(KEY, CONTEXT, sealed)))
    assert found == PICTURE


def test_search(benchmark: Any, opened: vault.Vault) -> None:
    found = benchmark(lambda: list(opened.search(FRAGMENT)))
    assert [each.metadata["number"] for each in found] == hits(SIZE)[::-1]


def test_first_page(benchmark: Any, opened: vault.Vault) -> None:
    found = benchmark(lambda: list(opened.list(limit=50)))
    assert len(found) == 50
