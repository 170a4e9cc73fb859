"""Of a file of prompts the lines that are refused cost no other: each leaves an attempt."""

from pathlib import Path

import pytest

import safelight
from engine import Bundle, RequestError
from safelight.cli.making import told_apart
from safelight.promptfile import orders_from
from vault import BadValueError, Kind, MemoryKeyStore, create

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
FILES = {
    "nan.jsonl": '{"prompt": "red"}\n{"prompt": "b", "eta": 7, "strength": NaN}\n{"prompt": "c"}\n',
    "inf.jsonl": '{"prompt": "red"}\n{"prompt": "b", "guidance_scale": 1e999}\n{"prompt": "c"}\n',
    "half.jsonl": '{"prompt": "red"}\n{"prompt": "\\ud800"}\n{"prompt": "c"}\n',
    "nan.csv": "prompt,guidance_scale\nred,7\nb,nan\nc,7\n",
    "long.txt": "red\n" + "x" * 1_100_000 + "\nc\n",
}


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(POCKET, hash_cache=None)


@pytest.mark.parametrize("name", FILES)
def test_a_line_that_is_refused_leaves_an_attempt_and_the_others(bundle, tmp_path, name):
    (tmp_path / name).write_text(FILES[name])
    orders = orders_from(tmp_path / name)
    store = MemoryKeyStore()
    with create(tmp_path / "vault", keystore=store, confirm=lambda phrase: None) as vault:
        kept, refused = told_apart(bundle, orders, {}, vault)
        (attempt,) = vault.list(kinds=(Kind.ATTEMPT,))
    assert [order["prompt"] for order in kept] == ["red", "c"]
    assert [type(error) for error in refused] == [RequestError]
    assert attempt.metadata["outcome"].startswith("refused: ")


class Unwilling:
    """A vault that takes nothing."""

    def add(self, drafts):
        raise BadValueError("a record's metadata is not plain JSON")


def test_a_line_that_no_record_can_hold_costs_no_other(bundle, capsys):
    orders = [{"prompt": "red"}, {"prompt": "b", "steps": 0}, {"prompt": "c"}]
    kept, refused = told_apart(bundle, orders, {}, Unwilling())
    assert [order["prompt"] for order in kept] == ["red", "c"]
    assert "steps is 0" in str(refused[0])
    assert "request 2 of 3 leaves no record" in capsys.readouterr().err
