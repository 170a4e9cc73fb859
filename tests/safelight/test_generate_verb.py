"""`safelight generate`: what is refused before anything is loaded."""

import os

import pytest
from typer.testing import CliRunner

from safelight.cli import app
from safelight.exits import exit_status


@pytest.fixture
def incognito(tmp_path, monkeypatch):
    """Give what asks for pictures of a model that is not there: to look for it is too late."""
    monkeypatch.chdir(tmp_path)
    runner = CliRunner(env={"SAFELIGHT_HOME": str(tmp_path / "home")})

    def ask(*words):
        done = runner.invoke(app, ["generate", "--model", "nothing", "--incognito", *words])
        assert done.stdout == ""
        return exit_status(
            done.exception
        ), f"{done.exception} {getattr(done.exception, 'hint', '')}"

    return ask


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("x", "--to", "there.png"), 2, "there.png exists already; it is not overwritten"),
        (("x", "--to", "dangling.png"), 2, "dangling.png exists already"),
        (("x", "--to", "missing/new.png"), 5, "No such file or directory: 'missing/new.png'"),
        (("x", "--to", "there.png/new.png"), 5, "No such file or directory"),
        (("x", "-n", "2", "--to", "new.png"), 2, "new.png would be one file, and 2 pictures"),
        (("--prompts", "two.txt", "--to", "new.png"), 2, "give a folder"),
        (("--prompts", "counted.jsonl", "--to", "new.png"), 2, "and 3 pictures"),
        (("x", "--to", "new.png"), 6, "nothing"),
        (("x", "-n", "2", "--to", "."), 6, "nothing"),
    ],
)
def test_where_incognito_pictures_cannot_go_is_said_before_they_are_drawn(
    incognito, tmp_path, words, status, said
):
    (tmp_path / "there.png").write_text("mine")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    (tmp_path / "two.txt").write_text("fox\nsnail\n")
    (tmp_path / "counted.jsonl").write_text('{"prompt": "fox", "count": 3}\n')
    got, text = incognito(*words)
    assert (got, said in text) == (status, True), text
    assert (tmp_path / "there.png").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root writes everywhere")
@pytest.mark.parametrize("to", ["closed", "closed/new.png"])
def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_drawn(
    incognito, tmp_path, to
):
    (tmp_path / "closed").mkdir(mode=0o500)
    status, said = incognito("x", "--to", to)
    assert (status, "Permission denied" in said) == (8, True), said
