"""Run the real `safelight` in a home of its own, as a person in a shell would."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from vault import PhraseUnlock, Vault, open_vault

__all__ = ["PASSPHRASE", "Home", "make_home"]

PASSPHRASE = "correct horse battery staple"
# Cheap settings for tests that are about something else than the picture.
QUICK = ("--steps", "4")
_compiled: list[Path] = []  # folders of the homes of this process


@dataclass
class Home:
    """A fresh home; `run` gives the finished process, `lines` its JSON lines."""

    path: Path
    environ: dict[str, str] = field(default_factory=dict)
    wrapper: tuple[str, ...] = ()

    @property
    def vault(self) -> Path:
        return self.path / "vault"

    def arguments(self, *words: str) -> list[str]:
        return [*self.wrapper, sys.executable, "-m", "safelight", *words]

    def env(self) -> dict[str, str]:
        # PYTHONPATH: another checkout than the installed one is tested with its own code.
        names = ("PATH", "LANG", "PYTHONPATH")
        kept = {name: os.environ[name] for name in names if name in os.environ}
        return kept | {
            "HOME": str(self.path / "user"),
            "SAFELIGHT_HOME": str(self.path),
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.environ,
        }

    def start(self, *words: str, **more) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": -1, "stderr": -1} | more
        more = {
            "env": self.env(),
            "cwd": self.path,
            "start_new_session": True,
            "bufsize": 0,
            **pipes,
        }
        return subprocess.Popen(self.arguments(*words), **more)

    def kill(self, process: subprocess.Popen) -> tuple[str, str]:
        """Kill the command and whatever it started or runs under; give what it had printed."""
        os.killpg(process.pid, signal.SIGKILL)
        if process.stdin:
            process.stdin = None  # was closed by the test: communicate() must not flush it
        out, said = process.communicate(timeout=60)
        return out.decode(), said.decode()

    def run(self, *words: str, status: int = 0, given: str = "") -> subprocess.CompletedProcess:
        done = subprocess.run(
            self.arguments(*words),
            env=self.env(),
            cwd=self.path,
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stderr}"
        assert "Traceback" not in done.stderr
        return done

    def opened(self) -> Vault:
        """Open the vault here, by the phrase, which takes no second as a verb does."""
        return open_vault(self.vault, PhraseUnlock((self.path / "user" / "phrase").read_text()))

    def lines(self, *words: str, given: str = "") -> list[dict]:
        out = self.run(*words, "--json", given=given).stdout
        return [json.loads(each) for each in out.splitlines()]


def make_home(path: Path, **environ: str) -> Home:
    """Make a home with a vault that opens with a passphrase from a file.

    Models that OpenVINO compiled in an earlier home lie ready in it: seconds of each first run.
    """
    (path / "user").mkdir(parents=True)
    compiled = path / "cache" / "openvino"
    compiled.mkdir(parents=True)
    for blob in {blob.name: blob for old in _compiled for blob in old.glob("*.blob")}.values():
        shutil.copy(blob, compiled)
    _compiled.append(compiled)
    secret = path / "user" / "passphrase"
    secret.write_text(PASSPHRASE + "\n")
    home = Home(path, {"SAFELIGHT_PASSPHRASE_FILE": str(secret), **environ})
    home.run("init", "--recovery-file", str(path / "user" / "phrase"))
    return home
