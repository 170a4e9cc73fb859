"""A zip that is streamed: whole, one picture in memory, each noted before it leaves."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from safelight.pixels import encode_picture
from safelight.sharing import Share, zip_stream
from vault import BlobDraft, Draft, Kind, MemoryKeyStore, NotFoundError, create


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


def add(vault, count):
    drafts = [
        Draft(
            Kind.PICTURE,
            {"prompt": "canary"},
            [
                BlobDraft(
                    "picture",
                    Kind.PICTURE,
                    "image/png",
                    encode_picture(np.full((16, 16, 3), 20 * k, np.uint8)),
                )
            ],
        )
        for k in range(count)
    ]
    return [record.id for record in vault.add(drafts)]


def ways(vault, record_id):
    return [note["way"] for note in vault.get(record_id).metadata.get("disclosed", [])]


def test_the_archive_is_whole_and_says_nothing_of_the_vault(vault):
    ids = add(vault, 11)
    pieces = list(zip_stream(vault, ids, Share(format="webp")))
    assert len(pieces) == 12
    archive = zipfile.ZipFile(io.BytesIO(b"".join(pieces)))
    assert archive.testzip() is None
    assert archive.namelist() == [f"picture-{k:02}.webp" for k in range(1, 12)]
    for info in archive.infolist():
        assert info.date_time == (1980, 1, 1, 0, 0, 0)
        assert not info.flag_bits & 0x08  # sizes stand in front: every program reads it
    with archive.open("picture-03.webp") as file, Image.open(file) as image:
        assert abs(int(np.asarray(image)[8, 8, 0]) - 40) < 4
    assert all(ways(vault, each) == ["zip"] for each in ids)
    for each in ids:
        assert each.encode() not in b"".join(pieces)


def test_a_picture_is_noted_only_when_its_turn_comes(vault):
    ids = add(vault, 2)
    stream = zip_stream(vault, ids, Share())
    assert ways(vault, ids[0]) == []
    next(stream)
    assert (ways(vault, ids[0]), ways(vault, ids[1])) == (["zip"], [])
    stream.close()
    assert ways(vault, ids[1]) == []


def test_a_record_that_is_gone_ends_the_stream_and_leaves_no_whole_archive(vault):
    ids = add(vault, 1)
    taken = []
    with pytest.raises(NotFoundError):
        taken.extend(zip_stream(vault, [*ids, "0" * 32], Share()))
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(taken)))
