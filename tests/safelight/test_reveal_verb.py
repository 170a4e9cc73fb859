"""`safelight reveal`: as sealed, or made anew; what leaves is said before, and noted."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from safelight.cli import app
from safelight.exits import exit_status
from safelight.pixels import encode_picture
from tests.safelight.sharing.chunks import parts
from vault import (
    BlobDraft,
    Draft,
    Kind,
    PassphraseUnlock,
    create,
    open_vault,
    passphrase_secret,
)

WORDS = "a passphrase of a test"
DRAWN = encode_picture(np.full((16, 24, 3), 77, np.uint8))


def imported():
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), (9, 99, 199)).save(buffer, "JPEG", comment=b"canary words")
    return buffer.getvalue()


def draft(data, media_type, **metadata):
    blob = BlobDraft("picture", Kind.PICTURE, media_type, data)
    words = {"prompt": "a canary in Anna's garden", "settings": {"seed": 5, "steps": 2}}
    return Draft(Kind.PICTURE, words | metadata, [blob])


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Give a runner, its vault's folder, and the ids of a drawn and an imported picture."""
    home = tmp_path_factory.mktemp("place")
    (home / "secret").write_text(WORDS + "\n")
    made = [draft(DRAWN, "image/png"), draft(imported(), "image/jpeg", imported={})]
    secret = passphrase_secret(WORDS)
    with create(home / "vault", keystore=None, passphrase=secret, confirm=lambda _: None) as vault:
        ids = [record.id for record in vault.add(made)]
    names = {"HOME": "", "VAULT": "vault", "PASSPHRASE_FILE": "secret"}
    env = {f"SAFELIGHT_{name}": str(home / path) for name, path in names.items()}
    return CliRunner(env=env), home / "vault", ids


def ways(place, record_id):
    with open_vault(place[1], PassphraseUnlock(passphrase_secret(WORDS))) as vault:
        return [note["way"] for note in vault.get(record_id).metadata.get("disclosed", [])]


def test_as_sealed_or_made_anew_and_each_way_is_noted(place, tmp_path):
    runner, _, (drawn, jpeg) = place
    done = runner.invoke(app, ["reveal", drawn, jpeg, "--to", str(tmp_path)])
    assert done.exit_code == 0, done.exception
    assert (tmp_path / f"{drawn}.png").read_bytes() == DRAWN
    assert (tmp_path / f"{jpeg}.jpg").read_bytes() == imported()
    assert "text in it included" in done.stderr
    words = ["reveal", jpeg, "--profile", "strip", "--format", "webp", "--to", str(tmp_path)]
    assert "nothing but pixels" in runner.invoke(app, words).stderr
    assert parts((tmp_path / f"{jpeg}.webp").read_bytes()) == []
    assert ways(place, drawn) == ["reveal"]
    assert ways(place, jpeg) == ["reveal", "share"]


def test_what_would_leave_is_said_and_nothing_is_written_or_noted(place, tmp_path):
    runner, _, (drawn, _) = place
    before = ways(place, drawn)
    words = ["reveal", drawn, "--profile", "full", "--redact", "-", "--dry-run"]
    done = runner.invoke(app, [*words, "--to", str(tmp_path / "x.png")], input="anna's\ncanary\n")
    assert done.exit_code == 0, done.exception
    assert "image/png, 24x16 pixels" in done.stderr
    said = dict(line.strip().split(": ", 1) for line in done.stderr.splitlines()[1:3])
    assert said["parameters"] == "a in garden"
    assert json.loads(done.stderr.partition("settings: ")[2])["prompt"] == "a in garden"
    assert list(tmp_path.iterdir()) == []
    assert ways(place, drawn) == before


def test_one_alone_goes_to_standard_output(place):
    done = place[0].invoke(app, ["reveal", place[2][0], "--profile", "a1111", "--to", "-"])
    assert [name for name, _ in parts(done.stdout_bytes)] == ["iTXt", "tEXt"]


@pytest.mark.parametrize(
    "words",
    [
        ["--profile", "everything", "--to", "x"],
        ["--format", "gif", "--to", "x"],
        [],
        ["OTHER", "--to", "no-folder"],
    ],
)
def test_what_does_not_go_is_a_usage_error_and_nothing_left(place, words):
    drawn, other = place[2]
    before = ways(place, drawn)
    words = [other if word == "OTHER" else word for word in words]
    assert exit_status(place[0].invoke(app, ["reveal", drawn, *words]).exception) == 2
    assert ways(place, drawn) == before
