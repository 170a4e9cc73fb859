"""What a result may hold, and that nothing else comes through: schema, privacy, signature."""

import json
import stat
from pathlib import Path

import jsonschema
import pytest

from benchmarks.document import MOST_BYTES, SCHEMA, figure_of, read_result, schema, text_of
from benchmarks.errors import ResultError, TamperedError
from benchmarks.privacy import check_private, names_of_this_machine
from benchmarks.pseudonym import KEY_NAME, Pseudonym
from benchmarks.signed import read_signed
from safelight.exits import ExitStatus
from tests.benchmarks.made_results import quality, result, samples

COMMITTED = sorted((SCHEMA.parent / "results").glob("bench-*.json"))


def made():
    stages = {"step": samples(0.1, 0.02), "picture": samples(2.0, 0.02)}
    return result(stages, like=quality(49.7, passed=True))


def written(tmp_path, change=lambda document: document):
    document = change(json.loads(text_of(made())))
    path = tmp_path / "result.json"
    path.write_text(json.dumps(document))
    return path


def test_the_committed_schema_is_the_one_of_the_classes():
    assert json.loads(SCHEMA.read_text()) == json.loads(json.dumps(schema()))


def test_a_result_validates_by_an_independent_reader_and_comes_back_equal(tmp_path):
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(
        json.loads(text_of(made()))
    )
    assert read_result(written(tmp_path)) == made()


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_committed_results_are_good(path):
    document = json.loads(path.read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(document)
    assert read_signed(path).signature is not None
    check_private(document, names_of_this_machine())


def in_machine(**more):
    return lambda document: document | {"machine": document["machine"] | more}


@pytest.mark.parametrize(
    "change",
    [
        in_machine(host="studio-7"),  # a field for it does not exist
        in_machine(user="ada"),
        in_machine(system="Linux /home/ada"),
        in_machine(cpu="C:\\Users\\ada"),
        in_machine(system="ada@studio"),
        lambda document: document | {"prompt": "a cat"},
        lambda document: document | {"format": "safelight-bench/2"},
        lambda document: document | {"date": "today"},
        lambda document: {**document, "configurations": "none"},
    ],
    ids=["host", "user", "path", "drive", "address", "prompt", "version", "date", "kind"],
)
def test_what_names_somebody_or_does_not_fit_fails_the_schema(tmp_path, change):
    path = written(tmp_path, change)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(
            json.loads(path.read_text())
        )
    with pytest.raises(ResultError, match="no result of `bench run`") as told:
        read_result(path)
    assert told.value.status is ExitStatus.USAGE
    assert "ada" not in str(told.value)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no result"),
        (b"{", "no result"),
        (b"[1]", "no result"),
        (b"\xff\xfe", "no result"),
        (b'{"scenario": ' + b"[" * 5000, "no result"),
        (b" " * (MOST_BYTES + 1), "more than"),
    ],
    ids=["empty", "cut", "list", "binary", "deep", "large"],
)
def test_unreadable_files_are_one_sentence(tmp_path, data, said):
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(ResultError, match=said) as told:
        read_result(path)
    assert str(told.value).startswith("x.json ")
    assert "\n" not in str(told.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ResultError, match=r"none\.json cannot be read: No such file"):
        read_result(tmp_path / "none.json")


@pytest.mark.parametrize(
    "text",
    ["studio-7", "Linux on STUDIO-7.", "/home/x/y", "at 10.1.2.3", "a0:b1:c2:d3:e4:f5"],
)
def test_a_name_in_any_text_is_found_and_not_repeated(text):
    document = {"a": [{"b": text}]}
    with pytest.raises(ResultError, match=r"in a\[0\]\.b") as told:
        check_private(document, {"studio-7"})
    assert text not in str(told.value)


def test_ordinary_texts_pass_and_names_within_words_do_too():
    check_private({"cpu": "AMD EPYC 7763", "numpy": "2.4.6", "x": "mistudio-77"}, {"studio-7"})


def test_the_names_of_this_machine_are_looked_for(monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "Darkroom-2.example")
    names = names_of_this_machine()
    assert {"Darkroom-2.example", "Darkroom-2"} <= names
    with pytest.raises(ResultError, match="a name of this machine"):
        check_private({"cpu": "darkroom-2"}, names)


def test_a_signed_result_is_read_and_a_changed_one_is_not(tmp_path):
    path = tmp_path / "result.json"
    signed = Pseudonym(b"k" * 32).sign(made())
    path.write_text(text_of(signed))
    assert read_signed(path) == signed
    path.write_text(path.read_text().replace('"load": 0.1', '"load": 0.2', 1))
    with pytest.raises(TamperedError, match="changed after it was measured") as told:
        read_signed(path)
    assert told.value.status is ExitStatus.DAMAGED


def test_an_id_is_the_same_for_one_key_and_another_for_another(tmp_path):
    facts = {"cpu": "A", "cores": 2}
    first = Pseudonym.of(tmp_path / "home")
    key = tmp_path / "home" / KEY_NAME
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert Pseudonym.of(tmp_path / "home").machine_id(facts) == first.machine_id(facts)
    assert first.machine_id(facts | {"cores": 4}) != first.machine_id(facts)
    assert Pseudonym.of(tmp_path / "other").machine_id(facts) != first.machine_id(facts)
    key.write_bytes(b"short")
    with pytest.raises(ResultError, match="has 5 bytes"):
        Pseudonym.of(tmp_path / "home")


def test_a_figure_says_how_noisy_it_is():
    assert figure_of(samples(1.0, 0.01)).noisy is False
    loud = figure_of([*samples(1.0, 0.01), 9.0])
    assert loud.noisy
    assert loud.outliers == 1
    assert len(loud.samples) == 41  # none is left out


def test_the_schema_lies_in_the_package():
    assert Path(SCHEMA).parent.name == "benchmarks"
