"""What a store answers is compared with what was written: a fast wrong answer is no figure."""

from contextlib import closing

import pytest

from benchmarks.vault_stores import Files, Sealed, item, perform


def folded(data, file):
    file.write(bytes(data[::-1]))


def unfolded(path):
    return path.read_bytes()[::-1]


@pytest.fixture(params=["files", "vault"])
def store(request, tmp_path):
    if request.param == "files":
        (tmp_path / "f").mkdir()
        made = Files(tmp_path / "f", folded, unfolded)
    else:
        made = Sealed(tmp_path / "v")
    with closing(made):
        yield made


def test_every_act_answers_with_what_was_written(store):
    assert perform(store, "write", 0, 9) > 0
    for what, number, count in (
        ("read", 3, 1),
        ("list", 8, 4),
        ("list, fresh", 8, 9),
        ("search", 0, 9),
        ("search, fresh", 0, 9),
    ):
        assert perform(store, what, number, count) > 0


def test_another_answer_is_refused(tmp_path):
    store = Files(tmp_path, lambda data, file: file.write(data), lambda _path: b"something else")
    perform(store, "write", 0, 1)
    with pytest.raises(ValueError, match="another answer to read"):
        perform(store, "read", 0, 1)
    assert item(7).settings["prompt"].count("heliotropes") == 1  # what the search has to find
