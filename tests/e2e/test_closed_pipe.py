"""A reader that goes away (`| head`) ends a command in order, and with 0."""

import os

import pytest

from tests.e2e.command import QUICK, Home, make_home


@pytest.mark.parametrize(
    "words",
    [("config",), ("config", "--json"), ("config", "--explain"), ("--help",), ("--version",)],
)
def test_output_that_nobody_reads_is_no_error(tmp_path, words):
    (tmp_path / "user").mkdir()
    read, write = os.pipe()
    os.close(read)
    process = Home(tmp_path).start(*words, stdout=write)
    os.close(write)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said) == (0, b"")


def test_drawing_ends_with_its_reader_and_what_is_finished_is_sealed(tmp_path):
    home = make_home(tmp_path / "home")
    process = home.start("generate", "red apple", "-n", "500", "--seed", "1", "--json", *QUICK)
    assert process.stdout.readline()
    process.stdout.close()
    process.stdout = None
    _, said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    pictures = home.lines("ls", "--limit", "500")
    assert 1 <= len(pictures) < 500
    for words in (("reveal", pictures[0]["id"], "--to", "-"), ("ls",)):
        read, write = os.pipe()
        os.close(read)
        process = home.start(*words, stdout=write)
        os.close(write)
        _, said = process.communicate(timeout=60)
        assert (process.returncode, said) == (0, b"")
