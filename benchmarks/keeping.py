"""Measures the vault's scenarios: records at scale, and pictures sealed and opened.

A vault of N records is built in one process and used in another (`benchmarks.vault_scale`), whose
peak memory is that of use alone. All records come back as they were written, or nothing is given.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.document import Configuration, figure_of
from benchmarks.drawing import Drawn
from benchmarks.scenarios import VaultScenario
from benchmarks.turns import Budget, Stopped, take_turns

__all__ = ["keep"]

LARGE: Final = 1_500_000  # bytes of a picture of 1024x1024, sealed in memory
DURABLE: Final = 450_000  # bytes of one of 512x512, written to the disk


def keep(
    scenario: VaultScenario,
    work: Path,
    *,
    rounds: int,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Drawn:
    """Measure in the empty folder `work`; what was done before a stop is kept."""
    if scenario.records:
        return _at_scale(scenario, work, rounds=rounds, stop=stop, say=say)
    return _sealing(work, rounds, stop, say)


def _at_scale(
    scenario: VaultScenario,
    work: Path,
    *,
    rounds: int,
    stop: Callable[[], bool],
    say: Callable[[str], None],
) -> Drawn:
    from benchmarks.vault_scale import in_process

    drawn = Drawn()
    samples: dict[str, list[float]] = {}
    memory: int | None = None
    index: int | None = None
    where = {"folder": str(work / "vault"), "size": scenario.records}
    try:
        say(f"a vault of {scenario.records:,} records is built")
        (built,) = in_process({"step": "build", **where}, stop)
        index = built["index_bytes"]
        samples["insert, a record of a batch of 16"] = [built["seconds"] / scenario.records]
        asked = {"step": "use", **where, "rounds": rounds, "entries": built["entries"]}
        for answer in in_process(asked, stop):
            if "stage" in answer:
                samples[answer["stage"]] = answer["seconds"]
                say(f"{answer['stage']}: {1000 * answer['seconds'][0]:.1f} ms")
            else:
                memory = int(1e6 * max(answer["peak_rss_mb"].values()))
    except Stopped:
        drawn.complete = False
    if samples:
        name = f"vault of {scenario.records} records"
        drawn.configurations.append(_configuration(name, samples, {}, memory, index))
    return drawn


class Sealer:
    """Seals and opens in memory and on the disk, beside the raw cipher; seconds by stage."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        from vault import MemoryKeyStore, create

        self._clock = clock
        self._vault = create(folder, keystore=MemoryKeyStore(), confirm=lambda _: None)
        self._key, self._context = os.urandom(32), os.urandom(59)
        self._cipher = AESGCM(os.urandom(32))
        self._picture = os.urandom(LARGE)

    def turn(self, _number: int) -> dict[str, list[float]]:
        """Do each call once."""
        from vault import BlobDraft, Draft, Kind
        from vault.frame import Framed, strip_frame
        from vault.sealing import open_blob, seal_blob

        nonce, draft = os.urandom(12), os.urandom(DURABLE)
        blob = BlobDraft(name="picture", kind=Kind.PICTURE, media_type="image/png", data=draft)
        batch = [Draft(kind=Kind.PICTURE, metadata={"prompt": "x" * 400}, blobs=(blob,))]
        made: dict[str, Any] = {}
        calls: Mapping[str, Callable[[], Any]] = {
            "AES-256-GCM alone, encrypt": lambda: self._cipher.encrypt(nonce, self._picture, None),
            "AES-256-GCM alone, decrypt": lambda: self._cipher.decrypt(
                nonce, made["AES-256-GCM alone, encrypt"], None
            ),
            "seal in memory": lambda: seal_blob(self._key, self._context, Framed(self._picture)),
            "open in memory": lambda: strip_frame(
                open_blob(self._key, self._context, made["seal in memory"])
            ),
            "add to the vault, durable": lambda: self._vault.add(batch),
            "read from the vault": lambda: self._vault.read(
                made["add to the vault, durable"][0].id, "picture"
            ),
        }
        seconds: dict[str, list[float]] = {}
        for name, call in calls.items():
            start = self._clock()
            made[name] = call()
            seconds[name] = [self._clock() - start]
        if made["open in memory"] != self._picture or made["read from the vault"] != draft:
            raise ValueError("what came back is not what was sealed")
        return seconds

    def close(self) -> None:
        """Close the vault."""
        self._vault.close()


def _sealing(
    work: Path, rounds: int, stop: Callable[[], bool], say: Callable[[str], None]
) -> Drawn:
    import time

    sealer = Sealer(work / "vault", time.perf_counter)
    try:
        turns = take_turns(
            {"vault": sealer},
            Budget(rounds=rounds),
            stop=stop,
            done=lambda _name, number: say(f"turn {number + 1}"),
        )
    finally:
        sealer.close()
    samples = turns.samples["vault"]
    sizes = {name: DURABLE if "vault" in name else LARGE for name in samples}
    drawn = Drawn(complete=turns.complete)
    if samples:
        drawn.configurations.append(_configuration("vault", samples, sizes, None, None))
    return drawn


def _configuration(
    name: str,
    samples: Mapping[str, list[float]],
    sizes: Mapping[str, int],
    memory: int | None,
    index: int | None,
) -> Configuration:
    from cryptography import __version__ as cryptography

    return Configuration(
        name=name,
        kind="vault",
        backend="vault",
        device="disk",
        libraries={"cryptography": cryptography},
        stages={each: figure_of(s, size=sizes.get(each, 0)) for each, s in samples.items()},
        peak_memory=memory,
        cache_bytes=index,
        note="" if index is None else "cache is the sealed index; records without files",
    )
