"""Fetches the two npm packages that the pictures and tags come from, pinned and verified.

`npm pack` brings the archive as it was published; its SHA-512 must be the committed one.
"""

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from export.errors import ExportError

__all__ = ["Package", "check_integrity", "fetch", "pinned", "read_member"]


@dataclass(frozen=True, kw_only=True)
class Package:
    """One npm package: name, version, integrity (`sha512-` and base64), licence line."""

    name: str
    version: str
    integrity: str
    licence: str


def pinned() -> dict[str, Package]:
    """Read the committed pins: `icons` and `tags`."""
    text = resources.files("export.pocket").joinpath("packages.json").read_text("utf-8")
    return {role: Package(**fields) for role, fields in json.loads(text).items()}


def check_integrity(path: Path, package: Package) -> None:
    """Compare an archive with its pin, or raise `ExportError`."""
    digest = hashlib.sha512(path.read_bytes()).digest()
    got = "sha512-" + base64.b64encode(digest).decode("ascii")
    if got != package.integrity:
        raise ExportError(
            f"{path.name} is not the pinned {package.name} {package.version}: {got}",
            hint="delete the file and fetch it again; if it stays so, do not use it",
        )


def fetch(package: Package, folder: Path) -> Path:
    """Return the package's archive in `folder`, verified, after asking npm for it if absent."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = package.name.removeprefix("@").replace("/", "-")
    path = folder / f"{stem}-{package.version}.tgz"
    if not path.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise ExportError(f"{path.name} is absent and npm is not installed", hint="install npm")
        command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts"]
        done = subprocess.run(  # noqa: S603  a fixed command, no shell
            command, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode != 0 or not path.exists():
            raise ExportError(
                f"npm pack of {package.name} ended with {done.returncode}",
                hint=done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "",
            )
    check_integrity(path, package)
    return path


def read_member(archive: Path, member: str) -> str:
    """Read one text file of an npm archive (`package/...`) without unpacking the rest."""
    with tarfile.open(archive, "r:gz") as tar:
        try:
            file = tar.extractfile(f"package/{member}")
        except KeyError:
            file = None
        if file is None:
            raise ExportError(f"{archive.name} has no file '{member}'")
        return file.read().decode("utf-8")
