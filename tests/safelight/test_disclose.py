from datetime import UTC, datetime

import pytest

from safelight.disclose import MAX_NOTES, disclose
from vault import BlobDraft, Draft, Kind, MemoryKeyStore, NotFoundError, create

PIXELS = b"the picture's own bytes"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


def add(vault, blobs=("picture",)):
    drafts = tuple(
        BlobDraft(name=name, kind=Kind.PICTURE, media_type="image/png", data=PIXELS)
        for name in blobs
    )
    (record,) = vault.add([Draft(kind=Kind.PICTURE, metadata={"prompt": "x"}, blobs=drafts)])
    return record.id


def test_the_bytes_go_to_the_sink_and_the_record_says_when_and_how(vault):
    record_id, got = add(vault), []
    disclose(vault, record_id, lambda _, data: got.append(data), way="reveal", clock=lambda: NOON)
    assert got == [PIXELS]
    assert vault.get(record_id).metadata["disclosed"] == [
        {"when": "2026-11-24T12:00:00.000+00:00", "way": "reveal"}
    ]


def test_the_note_is_there_even_if_the_sink_fails(vault):
    record_id = add(vault)

    def fail(_record, _data):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        disclose(vault, record_id, fail, way="reveal")
    assert len(vault.get(record_id).metadata["disclosed"]) == 1


def test_nothing_to_disclose_is_not_found_and_not_noted(vault):
    record_id = add(vault, blobs=())
    with pytest.raises(NotFoundError):
        disclose(vault, record_id, lambda _record, _data: None, way="reveal")
    assert "disclosed" not in vault.get(record_id).metadata


def test_notes_are_bounded_and_the_newest_stay(vault):
    record_id = add(vault)
    old = [{"when": str(number), "way": "reveal"} for number in range(MAX_NOTES)]
    vault.edit(record_id, lambda metadata: metadata | {"disclosed": old})
    disclose(vault, record_id, lambda _record, _data: None, way="zip")
    notes = vault.get(record_id).metadata["disclosed"]
    assert len(notes) == MAX_NOTES
    assert notes[-1]["way"] == "zip"
    assert notes[0]["when"] == "1"
