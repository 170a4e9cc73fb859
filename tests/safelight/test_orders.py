import io
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import safelight
from engine import Bundle, RequestError
from safelight.exits import UsageError
from safelight.orders import MAX_FILE, read_bounded, requests, settings_from
from safelight.promptfile import orders_from

POCKET = Path(safelight.__file__).parent / "models" / "pocket"


def written(tmp_path, text):
    path = tmp_path / "given"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_prompts_are_lines_and_blank_ones_are_passed_over(tmp_path):
    path = written(tmp_path, "\ufeffred apple\r\n\n  a # is part of a prompt \n")
    assert [each["prompt"] for each in orders_from(path)] == [
        "red apple",
        "a # is part of a prompt",
    ]


def test_requests_may_be_one_object_or_one_a_line(tmp_path):
    one, two = {"prompt": "a", "seed": 0}, {"prompt": "b", "guidance_scale": 3}
    assert settings_from(written(tmp_path, json.dumps(one, indent=2))) == [one]
    assert settings_from(written(tmp_path, f"{json.dumps(one)}\n{json.dumps(two)}\n")) == [one, two]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ('{"prompt": "secret words"', "line 1 is not valid JSON"),
        ('{"prompt": "a"}\n{"prompt": secret}', "line 2 is not valid JSON"),
        ('["secret words"]', "request 1 is not a JSON object"),
        ('{"promt": "secret words"}', "unknown field 'promt'"),
        ('{"seed": 1}', "request 1 has no prompt"),
        ('{"prompt": ["secret words"]}', "'prompt' in request 1 must be str"),
        ('{"prompt": "a", "seed": true}', "'seed' in request 1 must be int"),
        ('{"prompt": "a", "steps": 2.5}', "'steps' in request 1 must be int"),
        ("[" * 100_000, "not valid JSON"),
        ('{"prompt": "secret", "seed": ' + "9" * 5_000 + "}", "not valid JSON"),
    ],
)
def test_a_bad_request_is_one_sentence_without_the_prompt(tmp_path, text, said):
    with pytest.raises(UsageError, match=said) as caught:
        settings_from(written(tmp_path, text))
    assert "secret" not in str(caught.value) + caught.value.hint
    assert caught.value.__cause__ is None  # a chained JSON error would carry the document


def test_bytes_that_are_no_text_and_files_that_are_too_large_are_refused(tmp_path):
    with pytest.raises(UsageError, match="not valid UTF-8"):
        orders_from(written(tmp_path, b"\xff\xfe\x00"))
    large = tmp_path / "large"
    with large.open("wb") as stream:
        stream.truncate(MAX_FILE + 1)
    with pytest.raises(UsageError, match="larger than"):
        orders_from(large)
    with pytest.raises(UsageError, match="cannot be read"):
        orders_from(tmp_path / "absent")


def test_a_dash_is_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("grüner Apfel\n".encode())))
    assert read_bounded("-", "the prompt") == "grüner Apfel\n"


@given(st.text())
def test_any_text_is_parsed_or_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("given") / "request"
    path.write_text(text, "utf-8", errors="surrogatepass", newline="")
    try:
        orders = settings_from(path)
    except UsageError:
        orders = [{"prompt": "refused"}]
    assert all("prompt" in order for order in orders)


def test_of_several_requests_the_bad_one_is_named():
    bundle = Bundle.open(POCKET, hash_cache=None)
    orders = [{"prompt": "a"}, {"prompt": "b", "width": 12}]
    with pytest.raises(RequestError, match="request 2 of 2: width is 12") as caught:
        list(requests(bundle, orders, {}))
    assert caught.value.hint
