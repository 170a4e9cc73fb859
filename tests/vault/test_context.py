"""The context is what a seal means: its bytes are fixed, and every field counts."""

import pytest

from vault.context import CONTEXT_BYTES, PUBLIC_KINDS, Kind, context, kind_of, number_id
from vault.errors import BadValueError, UnsupportedFormatError

VAULT, RECORD = bytes(range(16)), bytes(range(16, 32))


def test_bytes_are_those_of_the_format():
    made = context(Kind.THUMBNAIL, VAULT, RECORD, 0x0102030405060708)
    assert made.hex() == (
        "736166656c696768742f7661756c742f3100"
        "000102030405060708090a0b0c0d0e0f"
        "03"
        "101112131415161718191a1b1c1d1e1f"
        "0102030405060708"
    )
    assert len(made) == CONTEXT_BYTES == 59


def test_every_field_changes_it():
    made = {
        context(Kind.PICTURE, VAULT, RECORD, 1),
        context(Kind.INPUT, VAULT, RECORD, 1),
        context(Kind.PICTURE, RECORD, RECORD, 1),
        context(Kind.PICTURE, VAULT, VAULT, 1),
        context(Kind.PICTURE, VAULT, RECORD, 2),
    }
    assert len(made) == 5


@pytest.mark.parametrize(
    ("vault_id", "thing", "revision"),
    [(b"", RECORD, 1), (VAULT, RECORD[:15], 1), (VAULT, RECORD, -1), (VAULT, RECORD, 1 << 64)],
)
def test_a_wrong_width_is_refused(vault_id, thing, revision):
    with pytest.raises(BadValueError):
        context(Kind.PICTURE, vault_id, thing, revision)


def test_kinds_keep_their_numbers():
    public = ["PICTURE", "ATTEMPT", "THUMBNAIL", "INPUT", "JOB", "PRESET", "WORDLIST", "MODEL"]
    own = ["ROOT", "PAGE", "PENDING", "SLOT"]
    numbers = {name: n for n, name in enumerate(public, 1)} | {
        name: n for n, name in enumerate(own, 128)
    }
    assert {kind.name: int(kind) for kind in Kind} == numbers
    assert {kind.name for kind in PUBLIC_KINDS} == set(public)


def test_a_kind_of_another_release_says_so():
    assert kind_of(5) is Kind.JOB
    with pytest.raises(UnsupportedFormatError, match="kind 9"):
        kind_of(9)


def test_numbers_as_ids():
    assert number_id(258) == bytes(14) + b"\x01\x02"
