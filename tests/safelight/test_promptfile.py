import pytest
from hypothesis import given
from hypothesis import strategies as st

from safelight.exits import UsageError
from safelight.promptfile import FORMATS, orders_from


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, "utf-8", newline="")
    return path


def test_a_table_gives_each_cell_the_type_of_its_field(tmp_path):
    header = "\ufeffprompt,seed,guidance_scale,sampler\r\n"
    text = header + '"red, ""round"" apple",7,2.5,heun\r\n\r\nleaf,,,\r\n'
    first, second = orders_from(written(tmp_path, "many.CSV", text))
    assert first == {
        "prompt": 'red, "round" apple',
        "seed": 7,
        "guidance_scale": 2.5,
        "sampler": "heun",
    }
    assert type(first["seed"]) is int
    assert second == {"prompt": "leaf"}  # an empty cell leaves its field open


def test_a_request_a_line_may_hold_what_splitlines_takes_for_a_line_end(tmp_path):
    text = '{"prompt": "a\u2028b", "steps": 3}\r\n\n{"prompt": "c", "preset": "draft"}'
    assert orders_from(written(tmp_path, "many.jsonl", text)) == [
        {"prompt": "a\u2028b", "steps": 3},
        {"prompt": "c", "preset": "draft"},
    ]


def test_the_format_that_is_given_wins_over_the_suffix(tmp_path):
    path = written(tmp_path, "many.csv", "prompt\nred, round apple\n")
    assert orders_from(path, "txt") == [{"prompt": "prompt"}, {"prompt": "red, round apple"}]
    with pytest.raises(UsageError, match="unknown format of prompts 'tsv'"):
        orders_from(path, "tsv")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "seed\n1\n", "names no field 'prompt'"),
        ("a.csv", "prompt,promt\na,secret\n", "unknown field 'promt'"),
        ("a.csv", "prompt,prompt\na,secret\n", "a field twice"),
        ("a.csv", "prompt,seed\na,1\nsecret, words,2\n", "line 3 .* has 3 cells"),
        ("a.csv", 'prompt\n"secret', "line 2 .* is not valid CSV"),
        ("a.csv", "prompt,steps\nsecret,2.5\n", "'steps' in line 2 must be int"),
        ("a.csv", "prompt,seed\n,2\n", "line 2 has no prompt"),
        ("a.csv", "prompt,controls\nsecret,x\n", "unknown field 'controls'"),
        ("a.csv", "prompt\n", "holds no prompt"),
        ("a.jsonl", '{"prompt": "a"}\nsecret', "line 2 .* is not valid JSON"),
        ("a.jsonl", '{"prompt": "a", "seed": ' + "9" * 5000 + "}", "line 1 .* is not valid JSON"),
        ("a.jsonl", '{"prompt": {"secret": 1}}', "'prompt' in line 1 must be str"),
    ],
    ids=range(12),
)
def test_a_bad_line_is_named_without_what_it_says(tmp_path, name, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        orders_from(written(tmp_path, name, text))
    assert "secret" not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None


@given(st.text(), st.sampled_from(FORMATS))
def test_any_text_is_parsed_or_refused(tmp_path_factory, text, form):
    path = tmp_path_factory.mktemp("given") / "many"
    path.write_text("prompt,seed\n" + text, "utf-8", errors="surrogatepass", newline="")
    try:
        orders = orders_from(path, form)
    except UsageError:
        return
    assert all(isinstance(order["prompt"], str) for order in orders)
