"""`models show`, `verify`, `add`, `rm`, `ls`, as commands: what they print, do, and refuse."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import safelight
from engine.derived import DerivedKey, write
from engine.manifest import read_manifest
from safelight.cli.models import app
from safelight.exits import exit_status

POCKET = Path(safelight.__file__).with_name("models") / "pocket"
MANIFEST = read_manifest(POCKET)
MEGABYTES = f"{sum(entry.bytes for entry in MANIFEST.files.values()) / 1e6:.1f} MB"
UNET = "unet/model.onnx_data"


class Home:
    """A home whose shelf is empty but for what is shipped."""

    def __init__(self, path: Path) -> None:
        self.path, self.models = path, path / "models"

    def run(self, *words: object):
        """Run a verb in this process, without a terminal; errors come back in the result."""
        env = {"SAFELIGHT_HOME": str(self.path)}
        return CliRunner(env=env).invoke(app, [*map(str, words)])

    def good(self, *words: object):
        done = self.run(*words)
        assert done.exit_code == 0, (done.exception, done.stderr)
        return done

    def line(self, *words: object) -> dict:
        """Give the one JSON line of a verb that ends well."""
        (text,) = self.good(*words, "--json").stdout.splitlines()
        return json.loads(text)

    def fails(self, status: int, said: str, *words: object) -> None:
        done = self.run(*words)
        assert done.stdout == ""
        assert exit_status(done.exception) == status, done.exception
        assert said in str(done.exception)

    def place(self, name: str) -> Path:
        """Put a copy of pocket on the shelf."""
        return shutil.copytree(POCKET, self.models / name)

    def listed(self) -> list[str]:
        return [json.loads(text)["name"] for text in self.good("ls", "--json").stdout.splitlines()]


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def plain(tmp_path) -> Path:
    """Give a plain ONNX export: pocket without its manifest."""
    return shutil.copytree(POCKET, tmp_path / "plain", ignore=lambda *_: ["safelight.json"])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def remember(home: Home, path: Path, digest: str) -> None:
    """Make the hash cache say `digest` of the file as it is now."""
    state = path.stat()
    key = f"{state.st_dev}:{state.st_ino}:{state.st_size}:{state.st_mtime_ns}:{state.st_ctime_ns}"
    cache = home.path / "cache" / "hashes.json"
    cache.parent.mkdir(exist_ok=True)
    cache.write_text(json.dumps({key: digest}))


def test_ls_says_where_each_model_is_from(home):
    shown = home.line("ls")
    sha256 = MANIFEST.source.sha256
    assert shown["source"] == {"kind": "diffusers", "name": "pocket", "sha256": sha256}
    assert shown["psnr"] == min(each.psnr for each in MANIFEST.parity.measures)
    assert shown["targets"] == []
    assert home.good("ls").stdout.split("\t")[-1] == "diffusers pocket\n"


def test_show_tells_what_the_manifest_says(home):
    manifest = json.loads((POCKET / "safelight.json").read_text())
    shown = home.line("show", "pocket")
    for name in ("family", "source", "licence", "prediction_type", "defaults", "exporter"):
        assert shown[name] == manifest[name]
    assert (shown["width"], shown["height"], shown["created"]) == (128, 128, manifest["created"])
    assert shown["components"]["unet"]["precision"] == "fp16"
    assert shown["components"]["unet"]["file"] == "unet/model.onnx"
    assert shown["parity"] == manifest["parity"]["measures"]
    assert (shown["shipped"], shown["verified"]) == (True, True)
    assert shown["hash"] == hashlib.sha256((POCKET / "safelight.json").read_bytes()).hexdigest()


def test_show_for_people_has_every_measure_in_its_table(home):
    out = home.good("show", "pocket").stdout
    assert f"sha256: {MANIFEST.source.sha256}" in out
    assert MEGABYTES in out
    rows = [row.split("\t")[:2] for row in out.splitlines() if row.count("\t") == 5]
    assert rows == [[each.subject, each.runtime] for each in MANIFEST.parity.measures]


def test_ls_names_the_targets_and_what_nothing_was_measured_of(home, plain):
    home.models.mkdir(parents=True)
    plain.rename(home.models / "plain")
    key = DerivedKey(
        identity=hashlib.sha256((POCKET / "safelight.json").read_bytes()).hexdigest(),
        target="openvino",
        precision="stored",
        device="CPU",
        shapes=(),
        libraries={},
    )

    def fill(folder):
        (folder / "one").write_text("any")
        return {}

    write(home.path / "cache", key, fill)
    lines = [json.loads(each) for each in home.good("ls", "--json").stdout.splitlines()]
    shown = {each["name"]: (each["targets"], each["psnr"] is None) for each in lines}
    assert shown == {"pocket": (["openvino"], False), "plain": ([], True)}
    rows = {
        row.split("\t")[0]: row.split("\t")[-3:-1] for row in home.good("ls").stdout.splitlines()
    }
    assert rows["pocket"][1] == "openvino"
    assert rows["plain"] == ["-", "-"]


def test_show_says_of_a_plain_export_that_nothing_vouches_for_it(home, plain):
    home.models.mkdir(parents=True)
    plain.rename(home.models / "plain")
    assert home.line("show", "plain")["verified"] is False
    assert "nothing vouches" in home.good("show", "plain").stdout


@pytest.mark.parametrize("verb", ["show", "verify", "rm"])
def test_an_unknown_name_is_answered_with_the_nearest(home, verb):
    home.fails(6, "did you mean 'pocket'", verb, "poket")


def test_verify_quick_reads_all_files(home):
    shown = home.line("verify", "pocket", "--quick")
    assert shown["files"] == len(MANIFEST.files)
    assert (shown["parity"], shown["parity_skipped"]) == (None, "--quick")


def test_verify_believes_no_remembered_hash_and_forgets_it(home):
    damaged = home.place("mine") / UNET
    wanted = hashlib.sha256(damaged.read_bytes()).hexdigest()
    flip(damaged)
    remember(home, damaged, wanted)
    home.good("show", "mine")  # that is why there is `verify`
    home.fails(6, f"{UNET} has another sha256", "verify", "mine", "--quick")
    home.fails(6, "sha256 differs", "show", "mine")


def test_verify_names_every_file_that_is_not_right(home):
    folder = home.place("mine")
    (folder / "LICENSE").unlink()
    (folder / "unet" / "config.json").write_text("{}")
    flip(folder / UNET)
    done = home.run("verify", "mine", "--quick")
    assert exit_status(done.exception) == 6
    for said in ("LICENSE is missing", "unet/config.json has 2 bytes", f"{UNET} has another"):
        assert said in str(done.exception)


def test_verify_finds_what_does_not_belong(home):
    (home.place("mine") / "extra.txt").write_text("x")
    home.fails(6, "extra.txt is in the bundle and not in its manifest", "verify", "mine", "--quick")


def test_verify_has_nothing_to_compare_a_plain_export_with(home, plain):
    home.models.mkdir(parents=True)
    plain.rename(home.models / "plain")
    home.fails(6, "nothing to verify it against", "verify", "plain")


def test_verify_without_torch_says_what_it_did_not_do(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    done = home.good("verify", "pocket")
    assert "not compared with torch: it needs torch" in done.stderr
    assert "torch" in home.line("verify", "pocket")["parity_skipped"]


def test_rm_removes_one_model_and_nothing_else(home):
    home.place("mine")
    home.place("other")
    done = home.good("rm", "mine", "--yes")
    assert re.search(r"[1-9]\d*\.\d MB are free again", done.stderr)
    assert home.listed() == ["other", "pocket"]
    assert sorted(path.name for path in home.models.iterdir()) == ["other"]


def test_rm_without_a_terminal_needs_yes(home):
    home.place("mine")
    home.fails(2, "nobody can be asked", "rm", "mine")
    assert "mine" in home.listed()


def test_rm_never_removes_the_shipped_one(home):
    home.fails(2, "shipped inside the program", "rm", "pocket", "--yes")
    home.place("pocket")
    home.good("rm", "pocket", "--yes")  # the user's own of that name
    assert home.listed() == ["pocket"]
    assert (POCKET / "safelight.json").is_file()


def test_rm_takes_a_link_alone_and_a_broken_bundle_as_well(home, tmp_path):
    home.place("mine").rename(tmp_path / "elsewhere")
    (home.models / "linked").symlink_to(tmp_path / "elsewhere")
    (home.models / "broken").mkdir()
    home.good("rm", "linked", "--yes")
    home.good("rm", "broken", "--yes")
    assert list(home.models.iterdir()) == []
    assert (tmp_path / "elsewhere" / "safelight.json").is_file()


def test_what_a_killed_removal_left_is_no_model_and_goes_with_the_next(home):
    home.place("mine")
    home.place(".old.removed-1")
    assert home.listed() == ["mine", "pocket"]
    home.good("rm", "mine", "--yes")
    assert list(home.models.iterdir()) == []


def test_add_copies_a_bundle_as_it_is(home):
    shown = home.line("add", POCKET, "--to", "mine")
    assert (shown["name"], shown["verified"]) == ("mine", True)
    files = {path.relative_to(POCKET) for path in POCKET.rglob("*") if path.is_file()}
    for name in files:
        assert (home.models / "mine" / name).read_bytes() == (POCKET / name).read_bytes()
    assert len(list((home.models / "mine").rglob("*.*"))) == len(list(POCKET.rglob("*.*")))
    assert sorted(path.name for path in home.models.iterdir()) == ["mine"]


def test_add_takes_a_plain_export_and_says_that_it_is_unverified(home, plain):
    (plain / ".git").mkdir()
    (plain / ".git" / "config").symlink_to("/etc/hostname")
    done = home.good("add", plain, "--to", "mine")
    assert "unverified" in done.stderr
    assert home.line("show", "mine")["verified"] is False
    assert not (home.models / "mine" / ".git").exists()


def test_add_refuses_a_damaged_bundle_and_leaves_nothing(home, tmp_path):
    source = shutil.copytree(POCKET, tmp_path / "source")
    flip(source / UNET)
    home.fails(6, f"{UNET} is not what its manifest says", "add", source, "--to", "mine")
    assert list(home.models.iterdir()) == []


def test_add_says_of_a_checkpoint_which_verb_takes_it(home, tmp_path):
    folder = tmp_path / "sd"
    folder.mkdir()
    (folder / "model_index.json").write_text("{}")
    (tmp_path / "sd.safetensors").write_bytes(b"x")
    for source in (folder, tmp_path / "sd.safetensors"):
        home.fails(2, "`safelight export` turns it into one", "add", source, "--to", "mine")
    (tmp_path / "empty").mkdir()
    home.fails(2, "is no bundle", "add", tmp_path / "empty", "--to", "mine")
    home.fails(5, "", "add", tmp_path / "gone", "--to", "mine")


@pytest.mark.parametrize("kind", ["link", "folder link", "fifo"])
def test_add_refuses_links_and_special_files(home, plain, kind):
    if kind == "fifo":
        os.mkfifo(plain / "odd")
    else:
        (plain / "odd").symlink_to("/etc/hostname" if kind == "link" else "/etc")
    home.fails(2, "'odd' in 'plain' is", "add", plain, "--to", "mine")
    assert list(home.models.glob("*")) == []


def test_add_refuses_more_files_than_a_bundle_has(home, plain):
    for number in range(1030):
        (plain / "unet" / f"{number}").touch()
    home.fails(2, "more than 1024 files", "add", plain, "--to", "mine")


def test_add_overwrites_nothing_and_takes_good_names_only(home):
    home.place("mine")
    home.fails(2, "there is a model 'mine' already", "add", POCKET, "--to", "mine")
    home.fails(2, "cannot be the name", "add", POCKET, "--to", "../mine")


def test_an_add_that_was_killed_half_way_never_looks_whole(home):
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from safelight.intake import take_in\n"
        "def progress(stage, done):\n"
        "    if done > 0.3:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        f"take_in(Path({str(POCKET)!r}), Path({str(home.models / 'mine')!r}), progress)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    (left,) = home.models.iterdir()
    assert left.name.startswith(".mine.partial-")
    assert home.listed() == ["pocket"]
    home.good("add", POCKET, "--to", "mine")
    assert [path.name for path in home.models.iterdir()] == ["mine"]
