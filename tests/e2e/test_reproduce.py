"""`safelight reproduce` through the real command: the same picture, and another back end's."""

import pytest

from tests.e2e.command import QUICK, make_home

REPORT = "id model equal psnr largest_difference differs backend device precision kept".split()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home") / "home", SAFELIGHT_DEVICE="onnxruntime")


@pytest.fixture(scope="module")
def made(home):
    return home.lines("generate", "red apple", "-n", "2", "--seed", "5", *QUICK)[1]


def test_a_picture_is_made_again_to_the_byte_and_kept_only_when_asked(home, made):
    (report,) = home.lines("reproduce", made["id"][:10], "--at-least", "inf")
    assert list(report) == REPORT
    assert (report["id"], report["equal"], report["psnr"]) == (made["id"], True, None)
    assert (report["differs"], report["kept"], report["model"]) == ([], "", "pocket")
    assert len(home.lines("ls")) == 2
    done = home.run("reproduce", made["id"], "--keep")
    assert "equal: every pixel is the same" in done.stdout
    newest = home.lines("ls")[0]["id"]
    assert newest[:8] in done.stdout
    (shown,) = home.lines("show", newest)
    assert shown["reproduces"] == made["id"]
    assert (shown["prompt"], shown["settings"]["seed"]) == ("red apple", 6)


@pytest.mark.slow
def test_another_back_end_is_named_and_its_distance_measured(home, made):
    (report,) = home.lines("reproduce", made["id"], "--device", "openvino")
    assert [each["what"] for each in report["differs"]][:1] == ["backend"]
    assert report["differs"][0] == {"what": "backend", "then": "onnxruntime", "now": "openvino"}
    # two libraries in fp32 round to other bytes here and there; bf16 against fp32 is 30 dB and more
    assert report["equal"] or report["psnr"] > 25
    done = home.run("reproduce", made["id"], "--device", "openvino", "--at-least", "200", status=6)
    assert "--at-least asked for 200" in done.stderr
    assert "backend: onnxruntime then, openvino now" in done.stdout
    assert "apple" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("ffffffffffff",), 5, "no record's id starts with"),
        (("MADE", "--device", "cuda"), 7, "hint:"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(home, made, words, status, said):
    words = [made["id"] if word == "MADE" else word for word in words]
    assert said in home.run("reproduce", *words, status=status).stderr
