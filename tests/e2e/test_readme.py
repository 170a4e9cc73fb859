"""Each command in the README's tour runs, in its order; each verb is in the README and has help."""

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from safelight.cli import app
from tests.e2e.command import Home

README = Path(__file__).parents[2] / "README.md"


def tour() -> list[str]:
    """Give the lines of the shell block that is marked as tested."""
    block = README.read_text().split("is run by tests/e2e/test_readme.py")[1]
    return block.split("```sh\n")[1].split("```")[0].splitlines()


def verbs() -> list[str]:
    """Give every verb that the application has, groups included."""

    def walk(group, words):
        for name, command in group.commands.items():
            yield " ".join((*words, name))
            if hasattr(command, "commands"):
                yield from walk(command, (*words, name))

    return list(walk(get_command(app), ()))


def test_the_tour_runs_as_it_is_written(tmp_path):
    (tmp_path / "secret.txt").write_text("a passphrase of a test\n")
    home = Home(tmp_path, {"SAFELIGHT_PASSPHRASE_FILE": str(tmp_path / "secret.txt")})
    commands = tour()
    assert len(commands) > 10
    for command in commands:
        words = shlex.split(command)
        given = ""
        if "|" in words:
            given = words[1]
            words = words[words.index("|") + 1 :]
        assert words[0] == "safelight"
        if "ID" in words:
            newest = (home.lines("ls", "--limit", "1") or home.lines("trash", "--ls"))[0]["id"]
            words = [newest if word == "ID" else word for word in words]
        home.run(*words[1:], given=given)


def test_each_verb_is_in_the_readme_and_has_help():
    text = README.read_text()
    for verb in verbs():
        assert re.search(rf"`[^`]*{verb}", text), verb


@pytest.mark.parametrize("verb", verbs())
def test_help_of_each_verb(verb):
    out = CliRunner().invoke(app, [*verb.split(), "--help"]).stdout
    assert "Usage: safelight" in out
    assert len(out.splitlines()) > 5


@pytest.mark.parametrize("group", ["", "models", "bench", "vault", "vault passphrase"])
def test_no_line_of_a_list_of_verbs_is_cut(tmp_path, group):
    out = Home(tmp_path).run(*group.split(), "--help").stdout
    assert not [row for row in out.splitlines() if row.endswith("...") and "ARGS]" not in row]


def test_completion_scripts_exist_for_the_three_shells(tmp_path):
    for shell in ("bash", "zsh", "fish"):
        done = Home(tmp_path, {"_SAFELIGHT_COMPLETE": f"source_{shell}"}).run()
        assert "safelight" in done.stdout
