"""A million records are a vault like any other (`benchmarks.vault_scale` says how fast)."""

import os
import resource
from itertools import islice

import pytest

import vault

RECORDS = int(os.environ.get("SAFELIGHT_SCALE", "1000000"))
BATCH = 16


def draft(number: int) -> vault.Draft:
    rare = " heliotrope" if number % 1000 == 7 else ""
    return vault.Draft(vault.Kind.PICTURE, {"number": number, "prompt": f"apple {number}{rare}"})


def numbers(records) -> list[int]:
    return [record.metadata["number"] for record in records]


@pytest.mark.slow
def test_a_million_records_are_kept_listed_searched_and_shredded(make):
    place = make()
    ids: dict[int, str] = {}
    with place.open() as opened:
        for first in range(0, RECORDS, BATCH):
            for record in opened.add([draft(n) for n in range(first, first + BATCH)]):
                if record.position % 10 == 3:
                    ids[record.position] = record.id
    last = RECORDS - 1
    with place.open() as opened:
        assert numbers(opened.list(limit=3)) == [last, last - 1, last - 2]
        middle = opened.list(before=RECORDS // 2, limit=2)
        assert numbers(middle) == [RECORDS // 2 - 1, RECORDS // 2 - 2]
        found = list(range(7, RECORDS, 1000))[::-1]
        assert numbers(opened.search("LIOTROP")) == found  # opens every record
        assert numbers(opened.search("liotrop")) == found  # a part of them is kept in memory
        receipt = opened.purge(list(ids.values()))
        assert receipt.records == len(ids) == RECORDS // 10
        with pytest.raises(vault.NotFoundError):
            opened.get(ids[3])
    with place.open() as opened:
        report = opened.care.verify()
        assert (report.complete, report.problems) == (True, ())
        assert report.records == RECORDS - len(ids)
        assert (
            numbers(islice(opened.list(), 8))
            == [n for n in range(last, last - 9, -1) if n % 10 != 3][:8]
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < 4 << 30  # of this process, whatever ran in it before: nothing holds all records
