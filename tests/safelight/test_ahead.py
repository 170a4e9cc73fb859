"""A model loads beside the vault: what goes wrong with one does not wait for the other."""

import subprocess
import sys

from tests.e2e.command import make_home

# A model that is never loaded, as one that a compiler works on for minutes.
STUCK = """
import sys, threading
from safelight.cli import ahead
ahead._load = lambda *asked: threading.Event().wait()
sys.argv[0] = "safelight"
from safelight.__main__ import main
main()
"""


def test_who_has_no_key_hears_so_while_the_model_is_still_loading(tmp_path):
    home = make_home(tmp_path / "home")
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase")
    done = subprocess.run(
        [sys.executable, "-c", STUCK, "generate", "a cat", "--passphrase-file", str(wrong)],
        env=home.env(),
        cwd=home.path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 3, done.stderr
    assert "passphrase" in done.stderr
    assert done.stdout == ""
