import io
import json
import sys

import pytest

from safelight.console import line, printable, result, table
from tests.e2e.command import Home


def test_no_stored_text_can_drive_the_terminal(capsys):
    hostile = "red\x1b]0;owned\x07 apple\x9b2J\u202e"
    result(hostile)
    table(("prompt",), [[hostile]])
    shown = capsys.readouterr().out
    for control in "\x1b\x07\x9b\u202e":
        assert control not in shown
    assert "apple" in shown


def test_printable_keeps_what_people_write():
    assert printable("größe 漢字 🍎 – “q”") == "größe 漢字 🍎 – “q”"


def test_json_is_one_object_a_line_and_keeps_line_ends_inside(capsys):
    line({"prompt": "a\nb\x1b"})
    out = capsys.readouterr().out
    assert out == '{"prompt": "a\\nb\\u001b"}\n'


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_json_keeps_every_character_and_drives_no_terminal(monkeypatch, encoding):
    value = {"prompt": "größe 漢字 🍎 \x1b\x7f\x9b2J\u202e\u2028 \U000e0001 \ud800 end"}
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding))
    line(value)
    text = raw.getvalue().decode(encoding)
    assert text.endswith("}\n")
    assert text[:-1].isprintable()
    assert json.loads(text) == value
    assert ("größe 漢字 🍎" in text) == (encoding == "utf-8")


def test_output_that_lacks_a_letter_escapes_it(tmp_path):
    (tmp_path / "user").mkdir()
    home = Home(tmp_path, {"SAFELIGHT_MODEL": "größe", "PYTHONIOENCODING": "ascii"})
    assert "gr\\xf6\\xdfe" in home.run("config").stdout
    assert "größe" in str(home.lines("config"))


def test_a_pipe_gets_tabs(capsys):
    table(("a", "b"), [["1", "2"]])
    assert capsys.readouterr().out == "1\t2\n"
