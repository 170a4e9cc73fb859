"""What was pulled from a hub is what the exporter opens: checkpoints, checkers, ControlNets."""

import shutil

from export.checkpoint import fingerprint
from export.ingredients import Ingredients
from export.source import open_checkpoint
from safelight.hub import open_hub
from safelight.offline import NetworkWatch
from safelight.pull import Order, pull
from safelight.repository import choose
from tests.export.companion_files import tiny_checker, write_checker
from tests.export.controlnets import CONTROL_CONFIGS, write_controlnet
from tests.safelight.loopback_hub import REPOSITORY, LoopbackHub, serve


def fetched(files, folder):
    """Publish files, pull them into `folder`, and give the repository and the bytes seen."""
    seen: list[int] = []
    with (
        serve(LoopbackHub(files)) as hub,
        open_hub(hub.url, token="", watch=NetworkWatch()) as opened,
    ):
        found = opened.repository(REPOSITORY, "main")
        order = Order(
            hub=hub.url,
            repository=found,
            revision="main",
            variant="",
            files=choose(found, ""),
        )
        pull(opened, order, folder, lambda name, done: seen.append(done))
    assert seen[-1] == order.bytes
    assert seen == sorted(seen)
    return found


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_was_pulled_is_the_checkpoint_that_was_published(tiny_checkpoint, tmp_path):
    files = contents(tiny_checkpoint)
    assert len(files) > 8
    folder = tmp_path / "pulled"
    found = fetched(files, folder)
    pulled = open_checkpoint(folder)
    assert fingerprint(pulled) == fingerprint(open_checkpoint(tiny_checkpoint))
    pieces = pulled.pieces
    assert (pieces.kind, pieces.label) == ("hub", REPOSITORY)
    assert (pieces.revision, pieces.licence) == (found.commit, found.licence)


def test_a_safety_checker_is_pulled_and_opened_with_its_checkpoint(tiny_checkpoint, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    write_checker(source, tiny_checker(4))
    fetched(contents(source), tmp_path / "pulled")
    opened = Ingredients(source=tmp_path / "pulled").open()
    assert "safety_checker" in opened.tensors
    assert fingerprint(opened) == fingerprint(Ingredients(source=source).open())


def test_a_controlnet_is_pulled_and_opened(tmp_path):
    source = tmp_path / "source"
    write_controlnet(source, CONTROL_CONFIGS["sd1"])
    found = fetched(contents(source), tmp_path / "pulled")
    opened = open_checkpoint(tmp_path / "pulled")
    assert opened.family == "controlnet-sd1"
    assert fingerprint(opened) == fingerprint(open_checkpoint(source))
    pieces = opened.pieces
    assert (pieces.kind, pieces.label) == ("hub", REPOSITORY)
    assert (pieces.revision, pieces.licence) == (found.commit, found.licence)
