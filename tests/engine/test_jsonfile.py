"""Foreign JSON is bounded and strict."""

import pytest

from engine.errors import BundleError
from engine.jsonfile import Fields, parse_json, read_json


def test_infinity_is_read_only_where_it_is_expected(tmp_path):
    path = tmp_path / "scheduler_config.json"
    path.write_text('{"lambda_min_clipped": -Infinity}')
    assert read_json(path, 100, constants=True) == {"lambda_min_clipped": float("-inf")}
    with pytest.raises(BundleError, match="not good JSON"):
        read_json(path, 100)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BundleError, match=r"config\.json cannot be read"):
        read_json(tmp_path / "config.json", 100)


def test_a_long_refused_value_is_not_repeated():
    fields = Fields({"family": "x" * 4000}, "m")
    with pytest.raises(BundleError) as caught:
        fields.choice("family", ("sd1",))
    assert len(str(caught.value)) < 200


def test_a_text_over_its_limit_is_refused():
    with pytest.raises(BundleError):
        Fields({"t": "x" * 5000}, "m").text("t")


def test_leftovers_are_named():
    fields = Fields({"known": 1, "new": 2}, "m")
    fields.integer("known", 0, 9)
    with pytest.raises(BundleError, match="unknown fields: new"):
        fields.done()


def test_optional_text_takes_null_and_nothing():
    fields = Fields({"a": None, "c": "x"}, "m")
    assert (fields.optional_text("a"), fields.optional_text("b")) == (None, None)
    assert fields.optional_text("c") == "x"
    fields.done()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400, True, "1", None])
def test_a_number_is_a_finite_number(value):
    with pytest.raises(BundleError):
        Fields({"n": value}, "m").number("n", -1e300, 1e300)


def test_a_crowd_of_fields_is_refused():
    with pytest.raises(BundleError, match="2000 fields"):
        Fields({str(n): n for n in range(2000)}, "m")


def test_a_list_is_no_object():
    with pytest.raises(BundleError, match="no JSON object"):
        parse_json(b"[1]", "m")
