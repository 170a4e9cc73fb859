"""A checkpoint that was pulled from a hub is one that the exporter opens."""

from export.checkpoint import fingerprint
from export.source import open_checkpoint
from safelight.hub import open_hub
from safelight.offline import NetworkWatch
from safelight.pull import Order, pull
from safelight.repository import choose
from tests.safelight.loopback_hub import REPOSITORY, LoopbackHub, serve


def test_what_was_pulled_is_the_checkpoint_that_was_published(tiny_checkpoint, tmp_path):
    files = {
        path.relative_to(tiny_checkpoint).as_posix(): path.read_bytes()
        for path in tiny_checkpoint.rglob("*")
        if path.is_file()
    }
    assert len(files) > 8
    folder = tmp_path / "pulled"
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
    pulled = open_checkpoint(folder)
    assert fingerprint(pulled) == fingerprint(open_checkpoint(tiny_checkpoint))
    pieces = pulled.pieces
    assert (pieces.kind, pieces.label) == ("hub", REPOSITORY)
    assert (pieces.revision, pieces.licence) == (found.commit, found.licence)
    assert seen[-1] == order.bytes
    assert seen == sorted(seen)
