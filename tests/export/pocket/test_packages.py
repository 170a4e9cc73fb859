import base64
import hashlib
import io
import tarfile

import pytest

from export.errors import ExportError
from export.pocket.packages import Package, check_integrity, fetch, pinned, read_member


def package(data):
    digest = base64.b64encode(hashlib.sha512(data).digest()).decode()
    return Package(name="@a/b", version="1.0.0", integrity=f"sha512-{digest}", licence="MIT")


def test_the_pins_name_a_version_and_a_whole_sha512():
    for each in pinned().values():
        assert each.version[0].isdigit()
        assert len(base64.b64decode(each.integrity.removeprefix("sha512-"))) == 64
        assert "MIT" in each.licence


def test_one_changed_byte_is_refused(tmp_path):
    path = tmp_path / "a-b-1.0.0.tgz"
    path.write_bytes(b"good")
    check_integrity(path, package(b"good"))
    path.write_bytes(b"goop")
    with pytest.raises(ExportError, match="not the pinned"):
        check_integrity(path, package(b"good"))


def test_an_archive_that_is_there_is_checked_and_not_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    (tmp_path / "a-b-1.0.0.tgz").write_bytes(b"good")
    assert fetch(package(b"good"), tmp_path).name == "a-b-1.0.0.tgz"
    with pytest.raises(ExportError, match="not the pinned"):
        fetch(package(b"other"), tmp_path)


def test_without_npm_the_message_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match="npm is not installed"):
        fetch(package(b"good"), tmp_path)


def test_a_member_is_read_and_an_absent_one_named(tmp_path):
    path = tmp_path / "x.tgz"
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("package/icons.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    assert read_member(path, "icons.json") == "{}"
    with pytest.raises(ExportError, match=r"no file 'other\.json'"):
        read_member(path, "other.json")
