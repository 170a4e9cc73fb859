"""`models pull` through the real command, from a hub on loopback that behaves and misbehaves."""

import json
import os
import socket

import pytest
from typer.testing import CliRunner

from safelight.cli.models import app
from safelight.exclusive import locked
from safelight.exits import UsageError, exit_status
from safelight.hub import check_endpoint, open_hub
from safelight.offline import NetworkWatch
from safelight.repository import HubError
from tests.e2e.command import Home
from tests.safelight.loopback_hub import (
    COMMIT,
    REPOSITORY,
    LoopbackHub,
    checkpoint_files,
    serve,
)

UNET = "unet/diffusion_pytorch_model.safetensors"
FOLDER = f"someone--tiny-sd@{COMMIT[:12]}"
PLAIN = {
    "LICENSE.md",
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    UNET,
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
}


@pytest.fixture
def hub():
    with serve(LoopbackHub(checkpoint_files())) as served:
        yield served


@pytest.fixture
def home(hub, tmp_path):
    (tmp_path / "user").mkdir()
    return Home(tmp_path, {"SAFELIGHT_HUB": hub.url, "HF_TOKEN": "hf_of_the_environment"})


def run(home, *words):
    """Pull in this process; an error comes back in the result."""
    env = {**home.environ, "SAFELIGHT_HOME": str(home.path)}
    return CliRunner(env=env).invoke(app, ["pull", REPOSITORY, *words])


def pull(home, *words):
    done = run(home, *words)
    assert done.exit_code == 0, (done.exception, done.stderr)
    return done


def fails(home, status, *said, words=()):
    """Expect an error of this status that says all this."""
    done = run(home, *words)
    assert exit_status(done.exception) == status, done.exception
    assert done.stdout == ""
    for each in said:
        assert each in f"{done.exception} {done.exception.hint}"


def ends(home, status, *said):
    """Expect the real command to say one sentence, and nothing on standard output."""
    done = home.run("models", "pull", REPOSITORY, status=status)
    assert done.stdout == ""
    told = [text for text in done.stderr.splitlines() if text.startswith("safelight: ")]
    assert len(told) == 1, done.stderr
    for each in said:
        assert each in done.stderr


def listed(hub):
    """Ask the hub in this process what the repository holds."""
    with open_hub(hub.url, token="", watch=NetworkWatch()) as opened:
        return opened.repository(REPOSITORY, "main")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def left_behind(home):
    return sorted(path.name for path in home.path.glob("checkpoints/*"))


def test_a_checkpoint_comes_whole_without_pickles_and_says_where_it_is_from(home, hub):
    done = home.run("models", "pull", REPOSITORY, "--json")
    folder = home.path / "checkpoints" / FOLDER
    got = contents(folder)
    source = json.loads(got.pop("safelight-source.json"))
    assert got == {name: hub.files[name] for name in PLAIN}
    assert (source["kind"], source["hub"]) == ("hub", hub.url)
    assert (source["repository"], source["revision"]) == (REPOSITORY, "main")
    assert (source["commit"], source["licence"]) == (COMMIT, "creativeml-openrail-m")
    assert {file["name"] for file in source["files"]} == PLAIN
    total = sum(map(len, got.values()))
    assert json.loads(done.stdout) == {
        "path": str(folder),
        "repository": REPOSITORY,
        "commit": COMMIT,
        "licence": "creativeml-openrail-m",
        "bytes": total,
    }
    before, _, _ = done.stderr.partition("100%")  # said before the bytes come
    for word in (COMMIT, "creativeml-openrail-m", f"{total / 1e6:.1f} MB"):
        assert word in before
    assert f"safelight export {folder} --to tiny-sd" in done.stderr
    assert left_behind(home) == [FOLDER]


def test_a_pinned_commit_is_what_is_asked_for_and_noted(home, hub):
    home.run("models", "pull", REPOSITORY, "--revision", COMMIT)
    note = home.path / "checkpoints" / FOLDER / "safelight-source.json"
    source = json.loads(note.read_text())
    assert (source["revision"], source["commit"]) == (COMMIT, COMMIT)
    paths = [path for _, path, _ in hub.requests]
    assert f"/api/models/{REPOSITORY}/revision/{COMMIT}" in paths[0]
    assert not any("main" in path for path in paths)


def test_no_token_and_nothing_about_this_machine_goes_to_the_hub(home, hub):
    home.run("models", "pull", REPOSITORY)
    assert all("authorization" not in headers for _, _, headers in hub.requests)
    assert not [h for _, _, h in hub.requests if "torch" in h["user-agent"]]


def test_the_token_of_the_file_goes_to_the_hub(home, hub):
    token = home.path / "token"
    token.write_text("hf_of_the_file\n")
    pull(home, "--token-file", str(token))
    assert {headers["authorization"] for _, _, headers in hub.requests} == {"Bearer hf_of_the_file"}


def test_a_second_pull_fetches_nothing_and_another_folder_is_not_overwritten(home, hub):
    pull(home)
    hub.requests.clear()
    pull(home)
    assert [path for _, path, _ in hub.requests if "/resolve/" in path] == []
    (home.path / "mine").mkdir()
    fails(home, 2, "exists already", words=("--to", str(home.path / "mine")))
    assert list((home.path / "mine").iterdir()) == []


def test_the_fp16_variant_is_taken_where_there_is_one(home, hub):
    del hub.files["vae/diffusion_pytorch_model.fp16.safetensors"]
    pull(home, "--variant", "fp16")
    got = contents(home.path / "checkpoints" / f"{FOLDER}-fp16")
    assert {name for name in got if name.endswith(".safetensors")} == {
        "text_encoder/model.fp16.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "vae/diffusion_pytorch_model.safetensors",
    }
    fails(home, 6, "no weights of variant 'bf16'", "it has: fp16", words=("--variant", "bf16"))


def test_a_cut_connection_is_resumed_at_once(home, hub):
    hub.cut[UNET] = 2
    pull(home)
    assert contents(home.path / "checkpoints" / FOLDER)[UNET] == hub.files[UNET]
    ranges = [headers.get("range") for headers in hub.asked(UNET)]
    assert ranges == [None, "bytes=1000-", "bytes=2000-"]


def test_a_broken_download_goes_on_in_the_next_call(home, hub):
    hub.cut[UNET] = 99
    fails(home, 6, "the connection broke", UNET, "goes on where it stopped")
    assert left_behind(home) == [f".{FOLDER}.partial"]
    hub.cut.clear()
    hub.requests.clear()
    pull(home)
    assert left_behind(home) == [FOLDER]
    assert contents(home.path / "checkpoints" / FOLDER)[UNET] == hub.files[UNET]
    assert [headers.get("range") for headers in hub.asked(UNET)] == ["bytes=4000-"]
    assert hub.asked("model_index.json") == []  # was there and right


def test_a_hub_that_knows_no_ranges_sends_all_again(home, hub):
    hub.cut[UNET], hub.ignore_range = 1, True
    pull(home)
    assert contents(home.path / "checkpoints" / FOLDER)[UNET] == hub.files[UNET]


def test_what_an_earlier_order_left_is_not_mixed_in(home, hub):
    folder = home.path / "sd"
    hub.cut[UNET.replace(".safe", ".fp16.safe")] = 99
    fails(home, 6, "the connection broke", words=("--variant", "fp16", "--to", str(folder)))
    pull(home, "--to", str(folder))
    assert {name for name in contents(folder) if name != "safelight-source.json"} == PLAIN


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX owners and modes")
@pytest.mark.parametrize(
    "made",
    [
        "open to all",
        "a link",
        pytest.param(
            "another user's",
            marks=pytest.mark.skipif(
                os.name != "nt" and os.geteuid() != 0, reason="only root gives files away"
            ),
        ),
    ],
)
def test_what_another_user_laid_ready_is_not_fetched_into(home, hub, made):
    """In a shared folder anybody can make the hidden one first, with links to files of ours."""
    ours = home.path / "ours"
    ours.write_text("mine")
    folder, partial = home.path / "model", home.path / ".model.partial"
    laid = home.path / "theirs" if made == "a link" else partial
    laid.mkdir(mode=0o700)
    order = {"hub": hub.url, "repository": REPOSITORY, "commit": COMMIT, "variant": ""}
    (laid / "safelight-source.json").write_text(json.dumps(order))
    (laid / "model_index.json.incomplete").symlink_to(ours)
    if made == "a link":
        partial.symlink_to(laid)
    elif made == "open to all":
        partial.chmod(0o777)
    else:
        os.chown(partial, 12345, -1)
    words = ("--to", str(folder))
    fails(home, 2, "no folder that you alone can write to", "another --to", words=words)
    assert ours.read_text() == "mine"
    assert not folder.exists()
    assert hub.asked("model_index.json") == []


def test_two_processes_do_not_fetch_into_one_folder(home, hub):
    hub.cut[UNET] = 99
    fails(home, 6, "the connection broke")
    with locked(home.path / "checkpoints" / f".{FOLDER}.partial", "busy"):
        fails(home, 2, "another process fetches this checkpoint")


def test_a_disk_that_is_too_small_is_said_before_anything_comes(home, hub):
    listing = hub.listing()
    for entry in listing["siblings"]:
        if entry["rfilename"] == UNET:
            entry["lfs"]["size"] = 1 << 40
    hub.listing = lambda: listing
    ends(home, 8, "the download needs 1099", "MB free")
    assert [path for _, path, _ in hub.requests if "/resolve/" in path] == []
    assert left_behind(home) == []


@pytest.mark.parametrize("name", [UNET, "tokenizer/vocab.json"])
def test_a_wrong_hash_is_refused_and_not_kept(home, hub, name):
    hub.false_hash.add(name)
    fails(home, 6, name, "its hash differs")
    assert left_behind(home) == [f".{FOLDER}.partial"]
    got = contents(home.path / "checkpoints" / f".{FOLDER}.partial")
    assert not [path for path in got if path.startswith(name)]
    hub.false_hash.clear()
    pull(home)
    assert contents(home.path / "checkpoints" / FOLDER)[name] == hub.files[name]


def test_what_an_earlier_call_brought_is_hashed_again(home, hub):
    hub.false_hash.add(UNET)
    fails(home, 6, "its hash differs")
    hub.false_hash.clear()
    spoilt = home.path / "checkpoints" / f".{FOLDER}.partial" / "model_index.json"
    spoilt.write_bytes(bytes(spoilt.stat().st_size))
    pull(home)
    got = contents(home.path / "checkpoints" / FOLDER)
    assert got["model_index.json"] == hub.files["model_index.json"]


@pytest.mark.parametrize(
    ("refusal", "status", "said"),
    [
        ((404, "RepoNotFound"), 5, "has no repository 'someone/tiny-sd'"),
        ((401, ""), 5, "shows without a token"),
        ((401, "GatedRepo"), 6, "is gated"),
        ((403, "GatedRepo"), 6, "is gated"),
        ((404, "RevisionNotFound"), 5, "has no revision 'main'"),
        ((500, ""), 6, "status 500"),
    ],
)
def test_a_refusal_is_one_sentence(hub, refusal, status, said):
    hub.refuse = refusal
    with pytest.raises(HubError, match=said) as caught:
        listed(hub)
    assert exit_status(caught.value) == status


def test_a_gated_repository_ends_with_a_sentence_and_leaves_nothing(home, hub):
    hub.refuse = (403, "GatedRepo")
    ends(home, 6, "is gated", f"agree at {hub.url}/{REPOSITORY}", "--token-file")
    assert left_behind(home) == []


def test_an_unknown_revision_is_not_found(home):
    fails(home, 5, "has no revision 'v9'", words=("--revision", "v9"))


def test_a_hub_that_is_not_there_is_one_sentence(home):
    with socket.create_server(("127.0.0.1", 0)) as free:
        home.environ["SAFELIGHT_HUB"] = f"http://127.0.0.1:{free.getsockname()[1]}"
    ends(home, 6, "the hub 127.0.0.1 cannot be reached", "online")
    assert left_behind(home) == []


def test_weights_that_are_only_pickles_are_refused_with_the_reason(home, hub):
    for name in [name for name in hub.files if name.startswith("unet/diffusion")]:
        del hub.files[name]
    fails(home, 6, "unet only as a pickle (unet/pytorch_model.bin)", "runs whatever code is inside")
    assert left_behind(home) == []
    assert [path for _, path, _ in hub.requests if "/resolve/" in path] == []


def test_a_path_that_climbs_out_is_refused_before_anything_is_fetched(home, hub):
    hub.files["../climbed.json"] = b"x"
    ends(home, 6, "climbs out of its folder")
    assert left_behind(home) == []
    assert [path for _, path, _ in hub.requests if "/resolve/" in path] == []


def test_a_redirect_to_another_host_is_followed_without_the_token(home, hub):
    token = home.path / "token"
    token.write_text("hf_secret")
    with serve(LoopbackHub(hub.files)) as store:
        hub.redirect = store.url
        pull(home, "--token-file", str(token))
    assert contents(home.path / "checkpoints" / FOLDER)[UNET] == hub.files[UNET]
    assert store.asked(UNET)
    assert all("authorization" not in headers for _, _, headers in store.requests)
    assert all("authorization" in headers for _, _, headers in hub.requests)


@pytest.mark.parametrize("place", ["redirect", "redirect_listing"])
def test_a_redirect_in_plain_http_to_another_machine_is_not_followed(home, hub, place):
    setattr(hub, place, "http://192.0.2.1")
    fails(home, 6, "redirects to http://192.0.2.1, which is not followed")


def test_more_bytes_than_announced_are_not_taken(home, hub):
    listing = hub.listing()
    hub.files[UNET] += b"more"
    hub.listing = lambda: listing
    fails(home, 6, f"sends more of '{UNET}' than it announced")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("../x",), "no name of a repository"),
        (("a/b/c",), "no name of a repository"),
        ((REPOSITORY, "--revision", "a b"), "no revision"),
        ((REPOSITORY, "--token-file", "/nonexistent"), "cannot be read"),
    ],
)
def test_bad_words_are_refused_before_the_network_is_used(hub, words, said, tmp_path):
    env = {"SAFELIGHT_HUB": hub.url, "SAFELIGHT_HOME": str(tmp_path)}
    done = CliRunner(env=env).invoke(app, ["pull", *words])
    assert exit_status(done.exception) == 2
    assert said in str(done.exception)
    assert hub.requests == []


@pytest.mark.parametrize("address", ["http://example.org", "ftp://127.0.0.1", "https://u:p@x.org"])
def test_a_hub_is_https_or_this_machine(address):
    with pytest.raises(UsageError, match="is not acceptable"):
        check_endpoint(address)


@pytest.mark.parametrize(
    "address", ["https://hub.example", "http://localhost:8", "http://[::1]:8/"]
)
def test_https_and_loopback_are_hubs(address):
    assert check_endpoint(address) == address.rstrip("/")


@pytest.mark.parametrize(
    ("kind", "line"),
    [
        ("ControlNetModel", "safelight export {folder} --to tiny-sd"),
        ("AutoencoderKL", "safelight export CHECKPOINT --vae {folder} --to NAME"),
        ("AutoencoderTiny", "safelight export CHECKPOINT --tiny-vae {folder} --to NAME"),
        (None, "safelight export {folder} --to tiny-sd"),  # the file is no JSON
    ],
)
def test_one_network_comes_with_the_line_that_takes_it(home, hub, kind, line):
    config = b"{" if kind is None else json.dumps({"_class_name": kind}).encode()
    hub.files = {"config.json": config, "diffusion_pytorch_model.safetensors": b"weights"}
    done = pull(home)
    folder = home.path / "checkpoints" / FOLDER
    assert set(contents(folder)) == {*hub.files, "safelight-source.json"}
    assert line.format(folder=folder) in " ".join(done.stderr.split())
