"""The catalogue of a vault: it finds what the vault holds, follows its changes, and forgets."""

import copy
import shutil
import sqlite3
import time
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from random import Random

import pytest

import vault
from safelight.catalogue import Catalogue, QueryError
from safelight.catalogue.query import Query, Range

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
MODELS, SAMPLERS = ("pocket", "sd-xl base"), ("euler", "ddim", "dpmpp_2m")
WORDS = ("apple", "Pear", "ÄPFEL", "studio light", "night", "rain")
TAGS = ("red", "holiday", "Straße")


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def about(random: Random, number: int, parent: str) -> dict:
    return {
        "prompt": " ".join(random.sample(WORDS, 2)) + f" number {number}",
        "negative_prompt": random.choice(("", "blurry", "Rain")),
        "model": random.choice(MODELS),
        "settings": {
            "seed": random.choice((None, number, 2**63 - 1)),
            "width": random.choice((256, 512)),
            "height": random.choice((256, 768)),
            "steps": random.choice((4, 20)),
            "guidance_scale": random.choice((1.0, 7.5)),
            "sampler": random.choice(SAMPLERS),
        },
        "parent": parent,
        "tags": random.sample(TAGS, random.randrange(3)),
        "albums": random.choice(([], ["Best of"])),
        "rating": random.randrange(6),
        "favourite": random.random() < 0.3,
        "note": random.choice(("", "for the wall")),
        "disclosed": random.choice(([], [{"when": "x", "way": "reveal"}])),
    } | random.choice(({}, {"score": 5.25}))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return where a vault lies with 90 pictures over thirty days, some in the trash; its key."""
    clock, random = Clock(), Random(7)  # noqa: S311 - pictures, not keys
    path, store = tmp_path_factory.mktemp("made") / "vault", vault.MemoryKeyStore()
    with vault.create(path, keystore=store, confirm=lambda _: None, clock=clock) as fresh:
        ids: list[str] = []
        for number in range(30):
            clock.now = NOW - (30 - number) * 86400
            parents = [random.choice(ids) if ids and random.random() < 0.2 else "" for _ in "abc"]
            metadata = [about(random, number * 3 + k, parents[k]) for k in range(3)]
            ids += [r.id for r in fresh.add([vault.Draft(vault.Kind.PICTURE, m) for m in metadata])]
        fresh.add([vault.Draft(vault.Kind.ATTEMPT, {"prompt": "apple attempt"})])
        fresh.trash(random.sample(ids, 9))
    return path, store


@pytest.fixture
def opened(made, tmp_path):
    """Return the vault of `made`, a copy to change, open, with its key store and clock."""
    path, store = shutil.copytree(made[0], tmp_path / "vault"), copy.deepcopy(made[1])
    clock = Clock()
    with vault.open_vault(path, vault.KeyStoreUnlock(store), clock=clock) as opened:
        opened.store, opened.clock = store, clock
        yield opened


@pytest.fixture
def catalogue(opened):
    found = Catalogue(opened, zone=UTC, clock=opened.clock)
    found.start()
    assert found.refresh()
    yield found
    found.forget()


def plain(opened, fits) -> list[str]:
    """Return the ids of the records that fit, by looking at each."""
    return [r.id for r in opened.list(trashed=None) if fits(r, r.metadata)]


def ids(catalogue, query: str) -> list[str]:
    return [row.id for row in catalogue.window(query, 0, 1000)]


CASES = {
    "": lambda r, m: True,
    "apple": lambda r, m: "apple" in m["prompt"],
    "äpfel -pear": lambda r, m: "ÄPFEL" in m["prompt"] and "Pear" not in m["prompt"],
    '"studio light"': lambda r, m: "studio light" in m["prompt"],
    "wall": lambda r, m: bool(m["note"]),
    "neg:rain": lambda r, m: m["negative_prompt"] == "Rain",
    "rain -neg:rain": lambda r, m: "rain" in m["prompt"] and m["negative_prompt"] != "Rain",
    "model:xl sampler:dd": lambda r, m: (
        m["model"] == MODELS[1] and m["settings"]["sampler"] == "ddim"
    ),
    "tag:strasse": lambda r, m: "Straße" in m["tags"],
    "tag:hol*": lambda r, m: "holiday" in m["tags"],
    "tag:hol": lambda r, m: False,
    'album:"best of"': lambda r, m: bool(m["albums"]),
    "rating:>=3 rating:<5": lambda r, m: m["rating"] in (3, 4),
    "seed:9223372036854775807": lambda r, m: m["settings"]["seed"] == 2**63 - 1,
    "seed:10..40": lambda r, m: (m["settings"]["seed"] or -1) in range(10, 41),
    "-seed:0..": lambda r, m: m["settings"]["seed"] is None,
    "size:512x768": lambda r, m: (m["settings"]["width"], m["settings"]["height"]) == (512, 768),
    "is:square": lambda r, m: m["settings"]["width"] == m["settings"]["height"],
    "is:portrait steps:20": lambda r, m: (
        m["settings"]["width"] < m["settings"]["height"] and m["settings"]["steps"] == 20
    ),
    "is:landscape": lambda r, m: m["settings"]["width"] > m["settings"]["height"],
    "guidance:7.5": lambda r, m: m["settings"]["guidance_scale"] == 7.5,
    "score:>5": lambda r, m: "score" in m,
    "score:>5.25": lambda r, m: False,
    "is:favourite": lambda r, m: m["favourite"],
    "-is:fave is:tagged": lambda r, m: not m["favourite"] and m["tags"],
    "is:derived": lambda r, m: m["parent"],
    "is:shared": lambda r, m: m["disclosed"],
    "is:noted is:rated": lambda r, m: m["note"] and m["rating"],
    "date:2026-11-10..2026-11-12": lambda r, m: "2026-11-10" <= r.created < "2026-11-13",
    "date:>=2026-11": lambda r, m: r.created >= "2026-11",
    "date:yesterday": lambda r, m: r.created.startswith("2026-11-28"),
}


@pytest.mark.parametrize("query", CASES)
def test_a_query_finds_what_looking_at_each_record_finds(opened, catalogue, query):
    fits = CASES[query]
    kept = plain(opened, lambda r, m: r.trashed is None and fits(r, m))
    assert ids(catalogue, query) == kept
    assert catalogue.count(query) == len(kept)
    in_trash = plain(opened, lambda r, m: r.trashed is not None and fits(r, m))
    assert ids(catalogue, f"{query} is:trashed") == in_trash


def test_the_cases_tell_queries_apart(opened, catalogue):
    found = [catalogue.count(query) for query in CASES]
    assert sum(0 < number < catalogue.count() for number in found) > 20


def test_a_row_shows_what_the_record_says(opened, catalogue):
    for record in opened.list(trashed=None):
        row, about = catalogue.row(record.id), record.metadata
        settings = about["settings"]
        assert (row.id, row.created, row.trashed) == (record.id, record.created, record.trashed)
        assert (row.seed, row.width, row.height) == (
            settings["seed"],
            settings["width"],
            settings["height"],
        )
        assert (row.model, row.rating, row.favourite) == (
            about["model"],
            about["rating"],
            about["favourite"],
        )
        assert (row.title, list(row.tags)) == (about["prompt"], about["tags"])
    assert catalogue.row("ab" * 16) is None
    assert catalogue.row("nonsense") is None


def test_windows_are_parts_of_the_whole(catalogue):
    whole = ids(catalogue, "apple")
    parts = [row.id for start in range(0, 100, 7) for row in catalogue.window("apple", start, 7)]
    assert parts == whole
    assert catalogue.window("apple", len(whole), 5) == []
    for place, record_id in enumerate(whole):
        assert catalogue.place("apple", record_id) == place
    assert catalogue.place("pear", catalogue.window("-pear", 0, 1)[0].id) is None


def test_days_are_groups_with_counts(catalogue):
    groups = catalogue.groups("")
    assert sum(group.count for group in groups) == catalogue.count()
    assert [g.day for g in groups] == sorted({g.day for g in groups}, reverse=True)
    for group in groups:
        rows = catalogue.window("", group.first, group.count)
        assert {row.day for row in rows} == {group.day}
    oldest = catalogue.groups("sort:oldest")
    assert [group.day for group in oldest] == [group.day for group in groups][::-1]
    assert catalogue.groups("sort:rating") == catalogue.groups("nowhere") == []


def test_orders(opened, catalogue):
    newest = ids(catalogue, "")
    assert ids(catalogue, "sort:oldest") == newest[::-1]
    ratings = {record.id: record.metadata["rating"] for record in opened.list()}
    assert ids(catalogue, "sort:rating") == sorted(newest, key=lambda each: -ratings[each])
    scores = {record.id: record.metadata.get("score", -1) for record in opened.list()}
    assert ids(catalogue, "sort:score") == sorted(newest, key=lambda each: -scores[each])


def test_days_are_those_of_the_zone(opened):
    from zoneinfo import ZoneInfo

    opened.clock.now = datetime(2026, 11, 29, 23, 30, tzinfo=UTC).timestamp()
    (late,) = opened.add([vault.Draft(vault.Kind.PICTURE, {"prompt": "late"})])
    made = Catalogue(opened, zone=ZoneInfo("Europe/Berlin"), clock=opened.clock)
    made.start()
    made.refresh()
    assert made.row(late.id).day == date(2026, 11, 30)
    assert ids(made, "date:today") == [late.id]
    made.forget()


def test_a_clock_that_was_set_back_does_not_split_days(opened, catalogue):
    opened.clock.now = NOW - timedelta(days=15).total_seconds()
    opened.add([vault.Draft(vault.Kind.PICTURE, {"prompt": "back"})])
    catalogue.refresh()
    groups = catalogue.groups("")
    assert len({group.day for group in groups}) == len(groups)
    assert catalogue.groups("back")[0].day == date(2026, 11, 14)


def test_lineage_and_facets(opened, catalogue):
    kept = list(opened.list())
    parents = {record.metadata["parent"] for record in kept} - {""}
    for parent in parents:
        children = [r.id for r in reversed(kept) if r.metadata["parent"] == parent]
        assert [row.id for row in catalogue.children(parent)] == children
        assert set(ids(catalogue, f"parent:{parent[:12]}")) >= set(children)
    assert parents
    assert catalogue.children("") == catalogue.children("0" * 32) == []
    tags = dict(catalogue.facet("tags"))
    assert tags == {tag: sum(tag in r.metadata["tags"] for r in kept) for tag in TAGS}
    assert {name for name, _ in catalogue.facet("sampler")} == set(SAMPLERS)
    with pytest.raises(ValueError, match="facets are"):
        catalogue.facet("prompt")


def test_an_id_is_found_by_any_of_its_beginnings(catalogue):
    wanted = ids(catalogue, "")[3]
    for length in (1, 7, 16, 17, 32):
        assert wanted in ids(catalogue, f"id:{wanted[:length]}")
    assert ids(catalogue, f"id:{wanted}") == [wanted]


def test_what_another_process_writes_appears(opened, catalogue):
    before, version = catalogue.count(), catalogue.version
    with vault.open_vault(opened.path, vault.KeyStoreUnlock(opened.store)) as other:
        (new,) = other.add([vault.Draft(vault.Kind.PICTURE, {"prompt": "from elsewhere"})])
        other.edit(ids(catalogue, "")[0], lambda m: m | {"tags": ["fresh"]})
        other.trash([ids(catalogue, "")[1]])
    assert catalogue.refresh()
    assert catalogue.version > version
    assert ids(catalogue, "elsewhere") == [new.id]
    assert catalogue.count("tag:fresh") == 1
    assert catalogue.count() == before  # one came, one went
    unchanged = catalogue.version
    assert catalogue.refresh()
    assert catalogue.version == unchanged


def test_what_was_purged_is_gone(opened, catalogue):
    gone = ids(catalogue, "")[:2]
    opened.purge(gone)
    catalogue.refresh()
    assert [catalogue.row(each) for each in gone] == [None, None]
    assert catalogue.count("is:trashed") == 9


def test_it_forgets_on_lock_and_a_closed_vault_stops_it(opened, catalogue):
    catalogue.forget()
    assert catalogue.count() == 0
    assert catalogue.row(next(opened.list()).id) is None
    assert not catalogue.refresh(0.01)
    again = Catalogue(opened, zone=UTC, clock=opened.clock)
    opened.close()
    again.start()
    assert not again.refresh()
    assert "closed" in again.loading.stopped
    again.forget()


def test_a_record_that_does_not_open_hides_no_other(opened):
    hurt = next(opened.list(before=50)).position
    with closing(sqlite3.connect(opened.path / "index.sqlite")) as connection, connection:
        connection.execute(
            "UPDATE record SET meta = substr(meta, 1, 40) || x'00' || substr(meta, 42) "
            "WHERE pos = ?",
            (hurt,),
        )
    opened.close()
    again = vault.open_vault(opened.path, vault.KeyStoreUnlock(opened.store))
    made = Catalogue(again, zone=UTC, clock=opened.clock)
    made.start()
    made.refresh()
    assert made.loading.damaged
    assert made.loading.finished
    assert made.count() + made.count("is:trashed") == 89
    made.forget()
    again.close()


def test_metadata_of_other_shapes_is_shown_as_far_as_it_is_understood(opened, catalogue):
    odd = {
        "prompt": ["not", "text"],
        "settings": "none",
        "tags": [1, "good"],
        "rating": "five",
        "score": True,
        "parent": 5,
    }
    (record,) = opened.add([vault.Draft(vault.Kind.PICTURE, odd)])
    catalogue.refresh()
    row = catalogue.row(record.id)
    assert (row.title, row.tags, row.rating, row.width) == ("", ("good",), 0, 0)


def test_a_query_that_is_wrong_is_refused_everywhere(catalogue):
    for ask in (catalogue.count, catalogue.groups, lambda q: catalogue.window(q, 0, 1)):
        with pytest.raises(QueryError):
            ask("seed:many")


def test_the_query_cache_does_not_keep_yesterdays_today(opened, catalogue):
    assert catalogue.count("date:today") == 0
    opened.clock.now = NOW - 86400
    assert catalogue.count("date:today") == 3
    assert Query.parse("date:today", date(2026, 1, 1)).terms[0].value == Range(739617, 739617)


def test_a_fault_while_reading_ends_it_and_is_said_without_any_text_of_records():
    class Broken:
        def marks(self):
            raise TypeError("a secret prompt")

    made = Catalogue(Broken(), zone=UTC)
    made.start()
    assert not made.refresh(30)
    assert "TypeError" in made.loading.stopped
    assert "secret" not in made.loading.stopped
    assert made.count() == 0
    made.forget()


def test_reading_makes_way_for_who_looks_and_still_ends(opened, monkeypatch):
    monkeypatch.setattr("safelight.catalogue.catalogue._WAY", 600.0)  # somebody looks all the time
    made = Catalogue(opened, zone=UTC, clock=opened.clock)
    made.make_way()
    made.start()
    assert not made.refresh(0.1)  # it waits
    assert made.refresh(30)  # though not for ever
    assert made.loading.finished
    made.forget()


def test_a_lock_does_not_wait_for_reading_that_makes_way(opened, monkeypatch):
    for name in ("_WAY", "_MOST_WAY"):
        monkeypatch.setattr(f"safelight.catalogue.catalogue.{name}", 600.0)
    made = Catalogue(opened, zone=UTC, clock=opened.clock)
    made.make_way()
    made.start()
    assert not made.refresh(0.1)
    began = time.monotonic()
    made.forget()
    assert time.monotonic() - began < 60  # and not 600
