"""A derived form is there whole, is what was written, and is found by nothing but its own key."""

import dataclasses
import json
import os
import stat
import subprocess
import sys

import pytest

from engine.derived import DerivedKey, Shape, drop, find, fitting, listed, write
from engine.errors import BundleError, RequestError

KEY = DerivedKey(
    identity="ab" * 32,
    target="openvino",
    precision="stored",
    device="CPU",
    shapes=("512x512x1",),
    libraries={"openvino": "2026.4.1"},
)
REPORT = {"psnr": 35.5, "components": ["unet"], "weights": {"unet": "fp16"}, "approximate": True}
WEIGHTS = b"weights" * 100


def fill(folder):
    (folder / "unet").mkdir()
    (folder / "unet/model.xml").write_text("<net/>")
    (folder / "unet/model.bin").write_bytes(WEIGHTS)
    return REPORT


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def test_what_was_written_is_found_with_its_report_and_is_private(tmp_path):
    made = write(tmp_path, KEY, fill)
    found = find(tmp_path, KEY)
    assert found == made
    assert found.report == REPORT
    assert found.bytes == len(WEIGHTS) + len("<net/>")
    assert found.folder == tmp_path / "derived" / KEY.digest[:32]
    for folder in (tmp_path / "derived", found.folder):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "other",
    [
        {"identity": "cd" * 32},
        {"target": "int8"},
        {"precision": "fp16"},
        {"device": "GPU"},
        {"shapes": ()},
        {"shapes": ("512x512x2",)},
        {"libraries": {"openvino": "2026.4.2"}},
        {"libraries": {"openvino": "2026.4.1", "nncf": "3"}},
    ],
    ids=str,
)
def test_another_key_in_any_field_finds_nothing(tmp_path, other):
    write(tmp_path, KEY, fill)
    key = dataclasses.replace(KEY, **other)
    assert find(tmp_path, key) is None
    assert KEY.differs(key).startswith(next(iter(other)))


def test_only_the_shapes_may_differ_for_a_fitting_form(tmp_path):
    made = write(tmp_path, KEY, fill)
    assert fitting(tmp_path, dataclasses.replace(KEY, shapes=())) == [made]
    assert fitting(tmp_path, dataclasses.replace(KEY, libraries={"openvino": "1"})) == []


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda f: (f / "unet/model.bin").write_bytes(WEIGHTS[::-1]), "not what was written"),
        (lambda f: (f / "unet/model.bin").write_bytes(WEIGHTS[1:]), "not what was written"),
        (lambda f: (f / "unet/model.xml").unlink(), "lacks unet/model.xml"),
        (lambda f: (f / "derived.json").unlink(), "cannot be read"),
        (lambda f: (f / "derived.json").write_text("{}"), "lacks 'format_version'"),
        (lambda f: edit(f / "derived.json", lambda v: v.update(more=1)), "unknown fields: more"),
        (lambda f: edit(f / "derived.json", lambda v: v.update(format_version=2)), "version 2"),
        (
            lambda f: edit(f / "derived.json", lambda v: v["key"].update(device="GPU")),
            "belongs into another folder",
        ),
        (
            lambda f: edit(
                f / "derived.json",
                lambda v: v["files"].update({"../../x": v["files"]["unet/model.xml"]}),
            ),
            "not acceptable",
        ),
        (lambda f: (f / "derived.json").write_bytes(b" " * (1 << 21)), "more than"),
        (lambda f: f.chmod(0o770), "others can write"),
    ],
)
def test_a_spoilt_form_is_not_used_and_it_is_said_why(tmp_path, damage, says):
    damage(write(tmp_path, KEY, fill).folder)
    said = []
    assert find(tmp_path, KEY, said.append) is None
    (why,) = said
    assert says in why
    # And it is in nobody's way.
    assert find(tmp_path, write(tmp_path, KEY, fill).key) is not None


def test_a_link_in_a_form_is_not_followed(tmp_path):
    folder = write(tmp_path, KEY, fill).folder
    moved = tmp_path / "elsewhere.bin"
    (folder / "unet/model.bin").rename(moved)
    (folder / "unet/model.bin").symlink_to(moved)
    assert find(tmp_path, KEY) is None


def test_a_build_that_fails_leaves_nothing_and_an_older_form_stays(tmp_path):
    def fail(folder):
        fill(folder)
        raise BundleError("refused")

    with pytest.raises(BundleError, match="refused"):
        write(tmp_path, KEY, fail)
    assert list((tmp_path / "derived").iterdir()) == []
    made = write(tmp_path, KEY, fill)
    with pytest.raises(BundleError, match="refused"):
        write(tmp_path, KEY, fail)
    assert list((tmp_path / "derived").iterdir()) == [made.folder]
    assert find(tmp_path, KEY) == made


def test_what_a_killed_build_left_is_removed_and_a_living_ones_is_not(tmp_path):
    gone = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout.strip()
    partial = tmp_path / "derived" / f".{KEY.digest[:32]}.partial-"
    for number in (gone, os.getppid()):
        partial.with_name(f"{partial.name}{number}").mkdir(parents=True)
    (tmp_path / "derived").chmod(0o700)
    write(tmp_path, KEY, fill)
    names = {path.name for path in (tmp_path / "derived").iterdir()}
    assert names == {KEY.digest[:32], f"{partial.name}{os.getppid()}"}


def test_a_folder_that_others_can_write_to_is_not_written_to(tmp_path):
    (tmp_path / "derived").mkdir()
    (tmp_path / "derived").chmod(0o777)
    with pytest.raises(BundleError, match="others can write"):
        write(tmp_path, KEY, fill)
    assert list((tmp_path / "derived").iterdir()) == []


def test_a_report_that_json_has_no_value_for_is_not_kept(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write(tmp_path, KEY, lambda folder: {"psnr": float("nan")})
    assert list((tmp_path / "derived").iterdir()) == []


def test_dropping_a_bundles_forms_spares_those_of_others(tmp_path):
    other = dataclasses.replace(KEY, identity="cd" * 32)
    write(tmp_path, KEY, fill)
    write(tmp_path, dataclasses.replace(KEY, target="int8"), fill)
    kept = write(tmp_path, other, fill)
    assert drop(tmp_path, KEY.identity) == 2 * kept.bytes
    assert list(listed(tmp_path, KEY.identity)) == []
    assert list(listed(tmp_path, other.identity)) == [kept]
    assert drop(tmp_path / "nowhere", KEY.identity) == 0


@pytest.mark.parametrize(
    ("text", "shape"), [("512x768", Shape(512, 768)), ("64x64x4", Shape(64, 64, 4))]
)
def test_shapes_are_read_and_written_again(text, shape):
    assert Shape.parse(text) == shape
    assert Shape.parse(str(shape)) == shape


@pytest.mark.parametrize(
    "text",
    ["", "512", "512x", "0x512", "512x513", "512x512x0", "512x512x65", "9999x8", "8x-8", "8x8x1x1"],
)
def test_what_is_no_shape_is_a_bad_value(text):
    with pytest.raises(RequestError, match="is no shape") as caught:
        Shape.parse(text)
    assert "512x512" in caught.value.hint
