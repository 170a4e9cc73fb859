import os

import pytest

from safelight.access import MAX_PASSPHRASE, Access, read_passphrase
from safelight.exits import UsageError
from safelight.settings import load_settings


@pytest.mark.parametrize(
    ("data", "secret"),
    [
        (b"words", b"words"),
        (b"words\n", b"words"),
        (b"words\r\nmore\n", b"words"),
        (b"  spaces count ", b"  spaces count "),
        ("größe\n".encode(), "größe".encode()),
    ],
)
def test_the_first_line_is_the_passphrase(tmp_path, data, secret):
    path = tmp_path / "secret"
    path.write_bytes(data)
    assert read_passphrase(path).reveal() == secret


@pytest.mark.parametrize("data", [b"\xff\xfe", b"x" * (MAX_PASSPHRASE + 1)])
def test_what_cannot_be_a_passphrase_is_refused_without_being_shown(tmp_path, data):
    path = tmp_path / "secret"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        read_passphrase(path)
    assert "xxx" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_descriptor_wins_over_a_file(tmp_path):
    (tmp_path / "secret").write_text("from the file")
    read, write = os.pipe()
    os.write(write, b"from the pipe\n")
    os.close(write)
    settings = load_settings({"passphrase_file": str(tmp_path / "secret"), "home": str(tmp_path)})
    given = Access(settings=settings, passphrase_fd=read).passphrase()
    assert given is not None
    assert given.reveal() == b"from the pipe"


def test_a_descriptor_that_is_not_open_is_one_sentence(tmp_path):
    settings = load_settings({"home": str(tmp_path)})
    with pytest.raises(UsageError, match="descriptor 999"):
        Access(settings=settings, passphrase_fd=999).passphrase()
