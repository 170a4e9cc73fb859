"""Saved baselines of pytest-benchmark name nobody: by itself it stores the node and the branch."""

import json

import pytest

from benchmarks.document import SCHEMA
from benchmarks.micro.conftest import (
    pytest_benchmark_update_commit_info,
    pytest_benchmark_update_machine_info,
)
from benchmarks.privacy import check_private, names_of_this_machine

BASELINES = sorted((SCHEMA.parent / "micro" / "baselines").glob("*/*.json"))


def test_node_release_and_author_are_taken_out():
    cpu = {"brand_raw": "A Processor", "count": 2, "hz_actual_friendly": "2 GHz"}
    machine = {"node": "studio-7", "release": "6.1-studio", "machine": "x86_64", "cpu": cpu}
    pytest_benchmark_update_machine_info(None, machine)
    assert machine == {"machine": "x86_64", "cpu": {"brand_raw": "A Processor", "count": 2}}
    commit = {"id": "abc", "dirty": False, "author_time": "x", "project": "y", "branch": "ada"}
    pytest_benchmark_update_commit_info(None, commit)
    assert commit == {"id": "abc", "dirty": False}


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_committed_baselines_name_nobody(path):
    document = json.loads(path.read_text())
    assert set(document["machine_info"]) <= {
        "processor",
        "machine",
        "python_implementation",
        "python_version",
        "system",
        "cpu",
    }
    for each in document["benchmarks"]:
        each.pop("fullname")  # a path within the project
    check_private(document, names_of_this_machine())
