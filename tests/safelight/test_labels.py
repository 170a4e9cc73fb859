"""Labels: checked before anything changes, undone whole, and no tag is taken for an option."""

import json

import pytest
from typer.testing import CliRunner

from safelight.cli import app
from safelight.exits import UsageError, exit_status
from safelight.labels import (
    MAX_NAME,
    MAX_NAMES,
    MAX_NOTE,
    Labels,
    favoured,
    in_albums,
    label,
    noted,
    rated,
    tagged,
)
from vault import Draft, Kind, MemoryKeyStore, create, passphrase_secret

WORDS = "a passphrase of a test"


@pytest.fixture
def vault(tmp_path):
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as opened:
        yield opened


def add(vault, count=1):
    drafts = [Draft(kind=Kind.PICTURE, metadata={"prompt": str(k)}) for k in range(count)]
    return [record.id for record in vault.add(drafts)]


def test_tags_are_told_apart_without_case_and_keep_their_first_spelling():
    before = {"tags": ["Sea", "old"], "prompt": "kept"}
    after = tagged(["SEA", " wide   view ", "new"], ["OLD", "absent"])(before)
    assert after == {"tags": ["Sea", "wide view", "new"], "prompt": "kept"}
    assert before["tags"] == ["Sea", "old"]
    assert tagged(["u\u0308ber"])({"tags": ["\u00fcber"]})["tags"] == ["\u00fcber"]
    assert tagged(["x"], ["x"])({"tags": ["x"]})["tags"] == []


@pytest.mark.parametrize("bad", ["", "  ", "a\nb\0c", "x" * (MAX_NAME + 1)])
def test_a_bad_name_is_refused_before_any_record_is_read(bad):
    for change in (tagged, in_albums):
        for words in ({"add": [bad]}, {"remove": [bad]}):
            with pytest.raises(UsageError):
                change(**words)


def test_limits_of_ratings_notes_and_the_number_of_tags():
    for stars in (-1, 6):
        with pytest.raises(UsageError, match="0 \\(none\\) to 5"):
            rated(stars)
    with pytest.raises(UsageError, match="characters"):
        noted("x" * (MAX_NOTE + 1))
    full = {"tags": [str(k) for k in range(MAX_NAMES)]}
    with pytest.raises(UsageError, match="would have 65"):
        tagged(["one more"])(full)
    assert noted("  said \n")({})["note"] == "said"


def test_many_are_labelled_and_each_goes_back_to_what_it_was(vault):
    ids = add(vault, 3)
    list(label(vault, ids[:1], tagged(["first"])))
    before = {each: Labels.of(vault.get(each).metadata) for each in ids}
    for change in (tagged(["all"]), in_albums(["A"]), rated(4), favoured(True), noted("n")):
        assert [record.id for record in label(vault, ids, change)] == ids
    changed = Labels.of(vault.get(ids[0]).metadata)
    assert changed == Labels(
        tags=("first", "all"), albums=("A",), rating=4, favourite=True, note="n"
    )
    for each, labels in before.items():
        list(label(vault, [each], labels.restoring()))
        assert Labels.of(vault.get(each).metadata) == labels
    assert vault.get(ids[2]).metadata["prompt"] == "2"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Give a runner, and the ids of two records in its vault."""
    home = tmp_path_factory.mktemp("place")
    (home / "secret").write_text(WORDS + "\n")
    secret = passphrase_secret(WORDS)
    with create(
        home / "vault", keystore=None, passphrase=secret, confirm=lambda phrase: None
    ) as made:
        ids = add(made, 2)
    names = {"HOME": "", "VAULT": "vault", "PASSPHRASE_FILE": "secret"}
    env = {f"SAFELIGHT_{name}": str(home / path) for name, path in names.items()}
    return CliRunner(env=env), ids


def run(place, *words, given=""):
    done = place[0].invoke(app, [*words, "--json"], input=given)
    assert done.exit_code == 0, (done.output, done.exception)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_verbs_label_by_prefix_and_print_what_is_so_now(place):
    one, two = place[1]
    lines = run(place, "tag", one[:8], two, "+hot", "+sea", "-hot", "-h2o")
    assert [(line["id"], line["tags"]) for line in lines] == [(one, ["sea"]), (two, ["sea"])]
    assert run(place, "tag", "-sea", two)[0]["tags"] == []
    assert run(place, "album", one, "+Summer walks")[0]["albums"] == ["Summer walks"]
    assert [line["rating"] for line in run(place, "rate", one, two, "5")] == [5, 5]
    assert run(place, "favourite", one)[0]["favourite"] is True
    assert run(place, "favourite", one, "--off")[0]["favourite"] is False
    assert run(place, "note", one, "-", given="from standard input\n")[0] == {
        "id": one,
        "tags": ["sea"],
        "albums": ["Summer walks"],
        "rating": 5,
        "favourite": False,
        "note": "from standard input",
    }
    assert [line["id"] for line in run(place, "ls", "--search", "standard walks")] == [one]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["tag", "ID"], 2),
        (["tag", "+x"], 2),
        (["rate", "ID", "6"], 2),
        (["tag", "ID", "ffff", "+never"], 5),
        (["note", "ffff", "x"], 5),
    ],
)
def test_what_does_not_go_changes_nothing(place, words, status):
    one = place[1][0]
    done = place[0].invoke(app, [one if word == "ID" else word for word in words])
    assert exit_status(done.exception) == status
    assert "never" not in run(place, "tag", one, "-never")[0]["tags"]
