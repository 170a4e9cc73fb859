"""What the vault costs of a picture: `generate`'s own figures, and SD 1.5's beside a large seal.

usage: python -m benchmarks.vault_overhead [FOLDER]   (the folder decides which disk is measured)

pocket: `safelight generate` says of each picture how long its stages and its sealing took, with
metadata and the durable write. SD 1.5: a 500 kB picture is sealed here, and twenty of the guided
steps of `results/sd15.json` are what it is set against (text and decoder are left out).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import RESULTS, save, summary
from benchmarks.sealing import LARGE, drafts
from vault import MemoryKeyStore, create

__all__ = ["main"]

PICTURES = 48  # of a run; the first loads and compiles and is left out
ALONE = 30  # large pictures sealed one by one
STEPS = 20


def generated(folder: Path) -> list[dict[str, float]]:
    """Run the command on a new vault and give each picture's seconds by stage."""
    folder.mkdir()
    (folder / "passphrase").write_text("a passphrase of a benchmark\n")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "SAFELIGHT_HOME": str(folder),
        "SAFELIGHT_PASSPHRASE_FILE": str(folder / "passphrase"),
    }
    command = [sys.executable, "-m", "safelight"]
    made = [*command, "init", "--recovery-file", str(folder / "phrase")]
    subprocess.run(made, env=env, check=True, capture_output=True)
    made = [*command, "generate", "red apple", "-n", str(PICTURES), "--json"]
    done = subprocess.run(made, env=env, check=True, capture_output=True)
    return [json.loads(line)["seconds"] for line in done.stdout.splitlines()]


def sealed_alone(folder: Path) -> list[float]:
    """Seal pictures of 500 kB one by one; seconds each, durable."""
    times: list[float] = []
    with create(folder, keystore=MemoryKeyStore(), confirm=lambda _: None) as vault:
        for _ in range(ALONE + 1):
            batch = drafts(LARGE)
            start = time.perf_counter()
            vault.add(batch)
            times.append(time.perf_counter() - start)
    return times[1:]


def main() -> None:
    """Measure and save benchmarks/results/vault-overhead.json."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "overhead-work").absolute()
    folder.mkdir()
    try:
        pictures = generated(folder / "home")[1:]
        alone = summary(sealed_alone(folder / "vault"))
    finally:
        shutil.rmtree(folder)
    rest = summary([each["total"] - each["seal"] for each in pictures])
    seal = summary([each["seal"] for each in pictures])
    measured = json.loads((RESULTS / "sd15.json").read_text("utf-8"))["results"]
    mine = next(iter(measured["seconds a guided step"].values()))  # ours is the first
    step = float(mine["median"])
    results: dict[str, Any] = {
        "pocket, seconds a picture": {"all but the vault": rest, "the vault": seal},
        "pocket, vault / rest": round(float(seal["median"]) / float(rest["median"]), 4),
        "500 kB picture sealed alone, seconds": alone,
        "SD 1.5, seconds of 20 guided steps": round(STEPS * step, 3),
        "SD 1.5, vault / steps": round(float(alone["median"]) / (STEPS * step), 6),
    }
    path = save("vault-overhead", "what the vault adds to a picture, durable on disk", results)
    sys.stdout.write(f"{path}\n{json.dumps(results, indent=1)}\n")


if __name__ == "__main__":
    main()
