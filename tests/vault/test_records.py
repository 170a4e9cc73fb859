"""Metadata: what is written is read, and any other JSON is damage."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vault.context import Kind
from vault.errors import DamagedError, UnsupportedFormatError
from vault.records import Blob, BlobSeal, Metadata, timestamp

SEAL = BlobSeal(Blob("picture", Kind.PICTURE, "image/png", 9), bytes(16), bytes(56), 3)
GOOD = Metadata("2026-11-24T00:00:00.000Z", None, (SEAL,), {"prompt": "x"}, {"later": [1]})
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def test_metadata_comes_back():
    assert Metadata.decode(GOOD.encode()) == GOOD
    assert GOOD.blob("picture") == SEAL
    assert GOOD.blob("mask") is None


@given(st.dictionaries(TEXTS, JSON, max_size=4))
def test_any_data_that_json_knows_comes_back(data):
    text = Metadata("t", "t", (), data).encode()
    assert Metadata.decode(text).data == data


@given(st.binary(max_size=60))
def test_any_bytes_are_damage(text):
    with pytest.raises(DamagedError):
        Metadata.decode(text)


def document():
    return json.loads(GOOD.encode())


@given(st.sampled_from(sorted(document())), JSON)
def test_a_field_of_another_shape_is_damage_or_still_metadata(field, value):
    bent = document() | {field: value}
    try:
        made = Metadata.decode(json.dumps(bent).encode())
    except DamagedError:
        return
    assert isinstance(made.created, str)
    assert isinstance(made.data, dict)
    assert all(isinstance(seal, BlobSeal) for seal in made.blobs)


@given(st.sampled_from(sorted(document()["blobs"][0])), JSON)
def test_a_blob_field_of_another_shape_is_damage_or_still_a_blob(field, value):
    bent = document()
    bent["blobs"][0][field] = value
    try:
        (seal,) = Metadata.decode(json.dumps(bent).encode()).blobs
    except DamagedError:
        return
    assert len(seal.file) == 16
    assert len(seal.prefix) == 56
    assert seal.blob.length >= 0


@pytest.mark.parametrize("field", sorted(document()))
def test_a_missing_field_is_damage(field):
    bent = document()
    del bent[field]
    if field == "later":
        assert Metadata.decode(json.dumps(bent).encode()).rest == {}
        return
    with pytest.raises(DamagedError):
        Metadata.decode(json.dumps(bent).encode())


def test_a_later_schema_says_so():
    with pytest.raises(UnsupportedFormatError):
        Metadata.decode(json.dumps(document() | {"schema": 2}).encode())


def test_times_are_utc_with_milliseconds():
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
    assert timestamp(1_795_478_400.1259) == "2026-11-24T00:00:00.125Z"
