"""The main job through the real command: prompt -> picture -> sealed record -> listed, opened."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from tests.e2e.command import QUICK, Home, make_home

PICTURE_FIELDS = (
    "id model seed width height steps sampler schedule guidance_scale decoder backend device "
    "precision flagged seconds peak_memory"
).split()
LISTED_FIELDS = "id created prompt model seed width height tags rating favourite".split()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return make_home(tmp_path_factory.mktemp("home") / "home")


@pytest.fixture(scope="module")
def made(home):
    return home.lines("generate", "red apple", "-n", "2", "--seed", "5", *QUICK)


def test_generate_prints_the_documented_object_a_picture(made):
    assert [list(each) for each in made] == [PICTURE_FIELDS] * 2
    assert [each["seed"] for each in made] == [5, 6]
    for each in made:
        seconds = each["seconds"]
        assert list(seconds) == ["load", "text", "denoise", "decode", "seal", "total"]
        parts = [value for name, value in seconds.items() if name != "total"]
        assert seconds["total"] == pytest.approx(sum(parts), abs=1e-5)
        assert (each["width"], each["height"], each["steps"]) == (128, 128, 4)
        peaks = each["peak_memory"]
        assert list(peaks) == ["of", "load", "text", "denoise", "decode"]
        told = sys.platform == "linux"  # of processors
        assert peaks["of"] == ("rss" if told else "")
        assert all((peaks[stage] > 1 << 20) is told for stage in list(peaks)[1:])


def test_ls_lists_what_was_sealed_newest_first(home, made):
    listed = home.lines("ls", "--limit", "2")
    assert [list(each) for each in listed] == [LISTED_FIELDS] * 2
    assert [each["id"] for each in listed] == [made[1]["id"], made[0]["id"]]
    assert listed[0]["prompt"] == "red apple"


def test_search_finds_words_in_any_case_and_order_and_nothing_else(home, made):
    home.run("generate", "Blauer ELEFANT", "--seed", "1", *QUICK)
    assert [r["prompt"] for r in home.lines("ls", "--search", "elefant blauer")] == [
        "Blauer ELEFANT"
    ]
    assert home.lines("ls", "--search", "elefant apple") == []


def test_a_unique_prefix_is_enough_and_show_tells_all(home, made):
    (shown,) = home.lines("show", made[0]["id"][:10])
    assert shown["id"] == made[0]["id"]
    assert shown["prompt"] == "red apple"
    assert shown["settings"]["seed"] == 5
    assert shown["model_hash"]
    assert shown["peak_memory"] == made[0]["peak_memory"]
    assert shown["blobs"]["picture"]["media_type"] == "image/png"


def test_reveal_gives_the_picture_without_any_words_and_notes_that_it_left(home, made, tmp_path):
    target = tmp_path / "out.png"
    home.run("reveal", made[0]["id"], "--to", str(target))
    with Image.open(target) as image:
        assert image.size == (128, 128)
        assert image.info == {}
        assert np.asarray(image).std() > 10  # a picture, not a flat field
    (shown,) = home.lines("show", made[0]["id"])
    assert [note["way"] for note in shown["disclosed"]] == ["reveal"]
    assert str(target) not in json.dumps(shown)


def test_reveal_never_overwrites(home, made, tmp_path):
    target = tmp_path / "precious"
    target.write_text("mine")
    done = home.run("reveal", made[0]["id"], "--to", str(target), status=2)
    assert "exists already" in done.stderr
    assert target.read_text() == "mine"


def test_the_same_seed_gives_the_same_picture_alone_and_in_a_batch(home, made, tmp_path):
    (alone,) = home.lines("generate", "red apple", "--seed", "6", *QUICK)
    pixels = []
    for record_id in (made[1]["id"], alone["id"]):
        target = tmp_path / f"{record_id}.png"
        home.run("reveal", record_id, "--to", str(target))
        with Image.open(target) as image:
            pixels.append(np.asarray(image))
    assert np.array_equal(*pixels)


def test_trash_hides_and_untrash_brings_back(home):
    (made,) = home.lines("generate", "snowman", "--seed", "1", *QUICK)
    home.run("trash", made["id"])
    assert made["id"] not in [r["id"] for r in home.lines("ls")]
    assert [r["id"] for r in home.lines("trash", "--ls")] == [made["id"]]
    home.run("untrash", made["id"])
    assert made["id"] in [r["id"] for r in home.lines("ls")]


def test_prompts_come_from_a_file_standard_input_and_json(home, tmp_path):
    file = tmp_path / "prompts"
    file.write_text("rocket\n\nrobot\n")
    home.run("generate", "--prompts", str(file), "--seed", "3", *QUICK)
    home.run("generate", "-", "--seed", "3", *QUICK, given="guitar\n")
    request = json.dumps({"prompt": "octopus", "negative_prompt": "blue", "seed": 0, "steps": 2})
    (made,) = home.lines("generate", "--request", "-", given=request)
    assert (made["seed"], made["steps"]) == (0, 2)
    assert [r["prompt"] for r in home.lines("ls", "--limit", "4")] == [
        "octopus",
        "guitar",
        "robot",
        "rocket",
    ]


def test_a_line_that_fails_is_kept_as_an_attempt_and_the_rest_is_made(home, tmp_path):
    file = tmp_path / "many.csv"
    # lcm takes at most 50 steps, which only the engine knows
    # and a width of 12 pixels nothing can be drawn at
    file.write_text(
        "prompt,seed,sampler,steps,width\n"
        "rocket,1,,2,\nrobot,2,lcm,60,\nanchor,4,,2,12\nguitar,3,,2,\n"
    )
    done = home.run("generate", "--prompts", str(file), "--json", status=2)
    assert [json.loads(each)["seed"] for each in done.stdout.splitlines()] == [1, 3]
    assert "request 3 of 4 is refused: width is 12" in done.stderr
    assert "request 2 of 3 failed" in done.stderr
    assert "2 requests failed" in done.stderr
    assert "robot" not in done.stderr
    assert "anchor" not in done.stderr


def test_incognito_pictures_of_one_seed_all_have_a_name(home, tmp_path):
    (tmp_path / "lines.txt").write_text("fox\nsnail\nfox\n")
    words = ("--prompts", str(tmp_path / "lines.txt"), "--incognito", "--to", str(tmp_path))
    for _ in range(2):
        home.run("generate", *words, "--seed", "5", *QUICK)
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"safelight-5.png", *(f"safelight-5-{number}.png" for number in range(2, 7))}


def test_incognito_keeps_no_record(home, tmp_path):
    before = home.lines("status")[0]["records"]
    target = tmp_path / "only.png"
    (made,) = home.lines(
        "generate", "fox", "--incognito", "--to", str(target), "--seed", "1", *QUICK
    )
    assert made["id"] == ""
    with Image.open(target) as image:
        assert image.size == (128, 128)
    assert home.lines("status")[0]["records"] == before


def test_reveal_to_a_pipe_is_the_picture_alone(home, made):
    process = home.start("reveal", made[0]["id"], "--to", "-")
    out, _ = process.communicate(timeout=60)
    assert Image.open(io.BytesIO(out)).size == (128, 128)


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("generate", "x", "--sampler", "eular"), 2, "did you mean 'euler'"),
        (("generate", "x", "--width", "100"), 2, "multiple of 8"),
        (("generate", "x", "--steps", "0"), 2, "steps is 0"),
        (("generate", "x", "--clip-skip", "13"), 2, "clip_skip is 13"),
        (("generate", "x", "--clip-skip", "2"), 2, "export the checkpoint again"),
        (("generate", "x AND " * 20), 2, "at most 16"),
        (("generate", "x", "--model", "poket"), 6, "did you mean 'pocket'"),
        (("generate", "x", "--device", "cuda"), 7, "hint:"),
        (("generate", "x", "--incognito"), 2, "--to go together"),
        (("generate",), 2, "give one of"),
        (("show", "ffffffffffff"), 5, "no record's id starts with"),
        (("show", "zz"), 2, ""),
        (("ls", "--passphrase-file", "/nonexistent"), 2, "cannot be read"),
        (("init", "--recovery-file", "other"), 2, "hint:"),
        (("export", "/nonexistent", "--to", "x"), 5, ""),
        (("frobnicate",), 2, ""),
    ],
)
def test_bad_input_is_one_sentence_and_a_documented_status(home, made, words, status, said):
    done = home.run(*words, status=status)
    assert said in done.stderr
    assert done.stdout == ""


def test_a_wrong_passphrase_is_locked_and_tells_nothing(home, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2")
    done = home.run("ls", "--passphrase-file", str(wrong), status=3)
    assert "hunter2" not in done.stderr


def test_the_vaults_no_comes_before_the_models_and_both_alone(home, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("hunter2")
    key = ("--passphrase-file", str(wrong))
    for model in ("pocket", "poket"):  # the one loads beside the vault, the other fails there
        done = home.run("generate", "x", "--model", model, *QUICK, *key, status=3)
        assert len(done.stderr.splitlines()) <= 2
        assert "poket" not in done.stderr
    done = home.run("generate", "x", "--model", "poket", "--incognito", "--to", "x.png", status=6)
    assert "did you mean 'pocket'" in done.stderr


def test_a_vault_that_is_not_there_is_not_found(tmp_path):
    home = Home(tmp_path)
    done = home.run("generate", "x", "--model", "poket", status=5)
    assert "safelight init" in done.stderr  # and nothing was loaded for it
    assert "safelight init" in home.run("ls", status=5).stderr


def test_without_a_keyring_and_without_a_choice_init_refuses_and_lists_the_choices(tmp_path):
    home = Home(tmp_path, {"DBUS_SESSION_BUS_ADDRESS": "unix:path=/nonexistent"})
    done = home.run("init", "--recovery-file", str(tmp_path / "phrase"), status=3)
    for choice in ("--passphrase-file", "--ephemeral", "--keyring"):
        assert choice in done.stderr
    assert not (tmp_path / "vault" / "index.sqlite").exists()
    assert not (tmp_path / "phrase").exists()


def test_without_a_terminal_init_needs_a_recovery_file(tmp_path):
    assert "--recovery-file" in Home(tmp_path).run("init", status=2).stderr


def test_a_flipped_byte_in_a_picture_is_damage_and_the_others_still_open(tmp_path):
    home = make_home(tmp_path / "home")
    first, second = home.lines("generate", "owl", "-n", "2", "--seed", "1", *QUICK)
    largest = max(home.vault.glob("blobs/*/*"), key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.chmod(0o600)
    largest.write_bytes(data)
    statuses = []
    for each in (first, second):
        process = home.start("reveal", each["id"], "--to", "-")
        process.communicate(timeout=60)
        statuses.append(process.returncode)
    assert sorted(statuses) == [0, 4]
