"""Where a vault may lie."""

import os
from pathlib import Path

import pytest

from vault.errors import BadValueError, DamagedError, NotFoundError
from vault.layout import Layout, encode_header, file_system_of, read_header, refuse_network

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
35 22 0:44 / /home/me/net\\040work rw,nosuid shared:9 master:2 - nfs4 server:/export rw,vers=4.2
36 22 0:45 / /mnt/c rw - 9p drvfs rw
37 22 0:46 / /media/stick rw - fuse.exfat /dev/sdb1 rw
garbage
"""


@pytest.mark.parametrize(
    ("device", "path", "kind"),
    [
        ("8:1", "/mnt/c", "ext4"),
        ("0:44", "/", "nfs4"),
        ("0:46", "/", "fuse.exfat"),
        # A device that is not listed, as a btrfs subvolume's: the longest mount point tells.
        ("0:99", "/home/me/net work/vault", "nfs4"),
        ("0:99", "/home/me/network", "ext4"),
    ],
)
def test_a_file_system_is_known_by_its_device_or_its_path(device, path, kind):
    assert file_system_of(MOUNTS, device, Path(path)) == kind


def test_a_local_folder_is_accepted(folder):
    refuse_network(folder)
    refuse_network(folder / "nowhere")


def test_the_layout_is_private_whole_and_made_once(folder):
    layout = Layout(folder / "a" / "v")
    layout.claim()
    first = layout.prepare(bytes(range(16)))
    assert first == layout.prepare(bytes(16)) == read_header(layout.root)
    assert layout.header.read_bytes() == encode_header(bytes(range(16)))
    assert sorted(path.name for path in (layout.root / "blobs").iterdir()) == [
        f"{number:02x}" for number in range(256)
    ]
    assert {path.stat().st_mode & 0o777 for path in layout.root.iterdir()} == {0o600, 0o700}
    assert not any((layout.root / "incoming").iterdir())


STRANGE = ["incoming/thesis.odt", "blobs/letter", "blobs/ab/letter", f"blobs/ab/{'cd' * 16}"]


@pytest.mark.parametrize("strange", [*STRANGE, f"blobs/ab/ab{'cd' * 15}", "blobs", "incoming"])
def test_somebody_elses_blobs_or_incoming_are_no_place_for_a_vault(folder, strange):
    path = folder / strange
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    with pytest.raises(BadValueError, match=f"such as '{strange}'"):
        Layout(folder).claim()
    assert [each for each in folder.rglob("*") if each.is_file()] == [path]
    assert path.read_text() == "mine"


def test_a_dangling_link_is_no_place_for_a_vault(folder):
    (folder / "link").symlink_to(folder / "nowhere")
    with pytest.raises(BadValueError):
        Layout(folder / "link").claim()
    assert not os.path.lexists(folder / "nowhere")


def test_a_vault_is_made_below_a_link_and_at_one(folder):
    (folder / "real" / "v").mkdir(parents=True)
    (folder / "link").symlink_to(folder / "real")
    (folder / "v").symlink_to(folder / "real" / "v")
    for root in (folder / "link" / "new" / "v", folder / "v"):
        layout = Layout(root)
        layout.claim()
        assert layout.prepare(bytes(16)) == read_header(layout.root)


def test_no_vault_and_a_broken_one_are_told_apart(folder):
    with pytest.raises(NotFoundError):
        read_header(folder / "nowhere")
    (folder / "VAULT").write_bytes(b"x" * 64)
    with pytest.raises(DamagedError):
        read_header(folder)
