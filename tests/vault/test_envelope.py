"""A record and its sealed files vouch for each other, each by itself enough to notice."""

import pytest

from tests.vault.conftest import draft
from vault.context import Kind
from vault.envelope import blob_size, open_envelope, seal_draft
from vault.errors import DamagedError
from vault.records import Metadata

VAULT = bytes(range(16))


@pytest.fixture
def sealed():
    files = {}
    created = "2026-11-24T00:00:00.000Z"
    envelope = seal_draft(VAULT, draft(data=b"p" * 1000), created, files.__setitem__)
    ((name, data),) = files.items()
    seal = Metadata.decode(envelope.text).blob("picture")
    assert seal.file == name
    return envelope.sealed.slot, seal, bytearray(data)


def test_a_file_opens_for_its_record(sealed):
    slot, seal, data = sealed
    assert len(data) == blob_size(seal)
    assert open_envelope(VAULT, slot, seal, data) == b"p" * 1000


@pytest.mark.parametrize(
    "bent",
    [
        {"prefix": bytes(56)},
        {"revision": 2},
        {"file": bytes(16)},
        {"kind": Kind.INPUT},
        {"length": 999},  # the same padded size, and so the same file
    ],
)
def test_each_thing_that_a_record_says_of_a_file_counts(sealed, bent):
    slot, seal, data = sealed
    blob = {key: value for key, value in bent.items() if key in {"kind", "length"}}
    own = {key: value for key, value in bent.items() if key not in blob}
    other = seal._replace(blob=seal.blob._replace(**blob), **own)
    assert blob_size(other) == len(data)
    with pytest.raises(DamagedError):
        open_envelope(VAULT, slot, other, data)


def test_another_vault_record_or_key_does_not_open_it(sealed):
    slot, seal, data = sealed
    for vault_id, other in [
        (VAULT[::-1], slot),
        (VAULT, slot._replace(record_id=bytes(16))),
        (VAULT, slot._replace(blob_key=slot.metadata_key)),
    ]:
        with pytest.raises(DamagedError):
            open_envelope(vault_id, other, seal, data)


def test_two_seals_of_one_draft_share_nothing():
    files = {}
    one, two = (seal_draft(VAULT, draft(), "t", files.__setitem__) for _ in range(2))
    assert one.sealed.slot[:3] != two.sealed.slot[:3]
    assert not set(one.sealed.slot[:3]) & set(two.sealed.slot[:3])
    assert len(files) == 2
