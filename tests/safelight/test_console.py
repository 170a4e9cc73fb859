from safelight.console import line, printable, result, table


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


def test_a_pipe_gets_tabs(capsys):
    table(("a", "b"), [["1", "2"]])
    assert capsys.readouterr().out == "1\t2\n"
