"""Measures safelight and its peers side by side, and writes one result.

usage: python -m benchmarks.peers [--scenario pocket-128] [--only NAME,...] [--work FOLDER]
           [--limit SECONDS] [--install-limit SECONDS] [--rounds N] [--out FILE]

Each peer has a venv and a process of its own; all take turns with ours, on the same weights, size,
steps, seeds and threads. A peer that cannot be installed, started or kept within the memory is left
out, and the result says why.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.document import ScenarioRow, text_of
from benchmarks.drawing import Candidate
from benchmarks.errors import MissingError
from benchmarks.guards import disturbances
from benchmarks.hardware import reason
from benchmarks.measure import RESULTS
from benchmarks.models import Model
from benchmarks.peers.table import PEERS, PeerRow
from benchmarks.peers.venvs import python_of
from benchmarks.scenarios import PictureScenario, find
from benchmarks.session import Order, Session
from benchmarks.tables import summary
from engine.cores import physical_cores
from safelight.interrupt import Interruption
from safelight.settings import load_settings

__all__ = ["main"]

ROOT: Final = Path(__file__).parents[2]
PREPARING: Final = 600.0  # seconds that a form of the model may take
# What a child of ours and of a peer gets of our environment, and nothing else.
KEPT: Final = ("PATH", "LANG", "HOME", "OMP_NUM_THREADS")


class Forms:
    """The model in the forms that peers read, each made once, in `work`."""

    def __init__(self, work: Path, scenario: PictureScenario, model: Model) -> None:
        self._work = work
        self._scenario = scenario
        self._model = model

    def checkpoint(self) -> Path:
        """Give a diffusers folder with the same weights."""
        folder = self._work / "checkpoints" / self._scenario.model
        if folder.exists():
            return folder
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        if self._model.random:
            from export.architectures import PUBLIC, write_random_checkpoint

            write_random_checkpoint(part, PUBLIC[self._scenario.model], seed=0)
        elif self._scenario.model == "pocket":
            from export.reference import load_torch_pipeline

            load_torch_pipeline(self._model.path).save_pretrained(part)
        else:
            raise MissingError("its checkpoint is not at hand; only the bundle is")
        part.rename(folder)
        return folder

    def published(self) -> Path:
        """Give the same folder with the names that published files have: before 5, transformers
        put `text_model.` before those of a text encoder, and other readers know no others.
        """
        folder = self._work / "published" / self._scenario.model
        if folder.exists():
            return folder
        from safetensors.numpy import load_file, save_file

        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.checkpoint(), part, copy_function=os.link)
        for file in part.glob("text_encoder*/model.safetensors"):
            weights = {_published(name): value for name, value in load_file(file).items()}
            file.unlink()  # it is a link, and the checkpoint keeps its own
            save_file(weights, file, metadata={"format": "pt"})
        part.rename(folder)
        return folder

    def openvino(self, python: Path) -> Path:
        """Give the folder that openvino-genai reads."""
        folder = self._work / "openvino" / self._scenario.model
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            command = [python, "-m", "benchmarks.peers.genai_folder", self._model.path, folder]
            done = subprocess.run(
                command,
                cwd=ROOT,
                env=environment(),
                capture_output=True,
                text=True,
                timeout=PREPARING,
                check=False,
            )
            if done.returncode:
                lines = done.stderr.strip().splitlines() or ["no reason given"]
                raise MissingError(f"its form of the model cannot be made: {lines[-1]}")
        return folder


def _published(name: str) -> str:
    return name if name.startswith(("text_model.", "text_projection.")) else f"text_model.{name}"


def environment() -> dict[str, str]:
    """Give a peer's environment: offline, and found from the checkout alone."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
    return kept | quiet | {"PYTHONPATH": str(ROOT)}


def candidates(
    rows: Sequence[PeerRow], forms: Forms, model: Model, options: Any, skipped: dict[str, str]
) -> list[Candidate]:
    """Install and prepare; give those that can be started. skipped: gets the others' reasons."""
    found: list[Candidate] = []
    for row in rows:
        if row.models and options.model not in row.models:
            skipped[row.name] = f"it loads no model like {options.model}"
            continue
        try:
            folder = options.work / "venvs" / row.venv
            python = python_of(folder, row.install, options.install_limit)
            hello: dict[str, Any] = {"way": row.way, "threads": physical_cores()}
            hello["bundle"] = str(model.path)
            if row.needs == "checkpoint":
                hello["checkpoint"] = str(forms.checkpoint())
            elif row.needs == "published":
                hello["checkpoint"] = str(forms.published())
            elif row.needs == "openvino":
                hello["openvino"] = str(forms.openvino(python))
        except (MissingError, subprocess.TimeoutExpired) as error:
            skipped[row.name] = reason(error)
            sys.stderr.write(f"{row.name} is left out: {error}\n")
            continue
        found.append(
            Candidate(
                command=(str(python), "-m", f"benchmarks.peers.{row.side}"),
                hello=hello,
                kind="peer",
                label=row.name,
                note=row.note,
                compared=row.compared,
                folder=ROOT,
                environ=environment(),
            )
        )
    return found


def main() -> None:
    """Measure and write one result."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers")
    parser.add_argument("--scenario", default="pocket-128")
    parser.add_argument("--only", default="", help="names of peers, with commas")
    parser.add_argument("--precision", default="fp32,auto", help="ours, with commas")
    parser.add_argument("--work", type=Path, default=Path("bench-peers-work"))
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of all turns")
    parser.add_argument("--install-limit", type=float, default=900.0, help="seconds a venv")
    parser.add_argument("--rounds", type=int, default=0, help="turns of each; 0: the row's own")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.work = options.work.absolute()
    scenario = find(options.scenario)
    if not isinstance(scenario, PictureScenario):
        parser.error("a scenario of pictures is needed; `benchmarks.vault_peers` has the vault's")
    options.model = scenario.model
    wanted = [name for name in options.only.split(",") if name]
    if unknown := set(wanted) - {row.name for row in PEERS}:
        parser.error(f"unknown peer {min(unknown)!r}; {', '.join(r.name for r in PEERS)}")
    rows = [row for row in PEERS if not wanted or row.name in wanted]
    skipped: dict[str, str] = {}
    with Interruption() as stop:
        session = Session(
            settings=load_settings(),
            say=lambda text: print(text, file=sys.stderr),  # noqa: T201 - a script's progress
            stop=stop,
            limit=options.limit,
        )
        before = session.surroundings.look()
        begin = session.clock()
        order = Order(
            scenario=scenario,
            precisions=tuple(options.precision.split(",")),
            rounds=options.rounds,
        )

        def peers(model: Model) -> Sequence[Candidate]:
            return candidates(rows, Forms(options.work, scenario, model), model, options, skipped)

        drawn, row = session.draw(order, peers)
        after = session.surroundings.look()
        result = session.signed(
            scenario=ScenarioRow(
                name=scenario.name, version=scenario.version, hash=scenario.hash, **row
            ),
            partial=not drawn.complete,
            before=before,
            after=after,
            warnings=tuple(disturbances(before, after, session.clock() - begin)),
            configurations=tuple(drawn.configurations),
            skipped=skipped | drawn.skipped,
        )
    out = options.out or RESULTS / f"bench-peers-{scenario.name}.json"
    out.write_text(text_of(result), "utf-8")
    sys.stdout.write("\n".join([*summary(result), str(out)]) + "\n")


if __name__ == "__main__":
    main()
