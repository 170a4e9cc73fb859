"""The JSON behind the grid, asked with everything that its description allows and much that it does
not: no fault, no answer that is not described.
"""

import json
from pathlib import Path

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

DOCUMENT = json.loads((Path(__file__).parent / "openapi.json").read_text())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
OPERATIONS = sorted((path, method) for path, item in DOCUMENT["paths"].items() for method in item)
POSITIVE, NEGATIVE = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
CASES = [
    (path, method, mode)
    for path, method in OPERATIONS
    for mode in (POSITIVE, NEGATIVE)
    if mode is POSITIVE or "requestBody" in DOCUMENT["paths"][path][method]
]


def test_every_route_of_the_api_is_described(client):
    routes = {
        (route.path, method.lower())
        for route in client.app.routes
        if route.path.startswith("/api/")
        for method in route.methods - {"HEAD"}
    }
    assert routes == set(OPERATIONS)


@pytest.mark.parametrize(("path", "method", "mode"), CASES)
def test_answers_are_as_described(client, path, method, mode):
    operation = SCHEMA[path][method.upper()]
    described = DOCUMENT["paths"][path][method]["responses"]

    @settings(
        max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        body = case.body if isinstance(case.body, dict) else {}
        sent = {name: str(value) for name, value in body.items()}
        answer = client.request(method.upper(), case.formatted_path, data=sent)
        assert str(answer.status_code) in described, answer.text
        content = described[str(answer.status_code)].get("content", {})
        if schema := content.get("application/json", {}).get("schema"):
            jsonschema_rs.validate(schema, answer.json())

    ask()


def test_a_window_and_its_places_agree(client, state):
    assert state.catalogue.refresh(30)
    overview = client.post("/api/search", data={"query": "apple"}).json()
    assert overview["count"] == 8
    assert overview["days"][0][1:] == [0, 8]
    rows = client.post("/api/window", data={"query": "apple", "start": 2, "count": 3}).json()[
        "rows"
    ]
    assert [row["title"] for row in rows] == ["red apple on a table"] * 3
    body = {"query": "apple", "id": rows[1]["id"]}
    assert client.post("/api/place", data=body).json() == {"place": 3}
    assert client.post("/api/place", data={"query": "house", "id": rows[1]["id"]}).json() == {
        "place": None
    }


def test_a_search_that_makes_no_sense_is_answered_with_its_sentence(client):
    answer = client.post("/api/search", data={"query": "rating:many"})
    assert answer.status_code == 422
    assert "rating" in answer.text


@pytest.mark.parametrize("name", ["thumbnail", "picture"])
def test_a_sealed_picture_comes_with_its_own_type(client, state, name):
    record = next(state.vault.list(limit=1))
    answer = client.get(f"/{name}/{record.id}")
    kind = "image/webp" if name == "thumbnail" else "image/png"
    assert answer.headers["content-type"] == kind
    assert answer.content == bytes(state.vault.read(record.id, name))
    for unknown in ("0" * 32, "x", "%00", record.id.upper() + "0"):
        assert client.get(f"/{name}/{unknown}").status_code == 404
    assert state.vault.get(record.id).metadata["disclosed"] == []  # looking is no disclosure


def test_a_sealed_file_that_is_no_picture_is_not_shown(client, state):
    from vault import BlobDraft, Draft, Kind

    svg = BlobDraft("picture", Kind.PICTURE, "image/png", b"<svg onload='alert(1)'/>")
    record = state.vault.add([Draft(Kind.PICTURE, {"prompt": ""}, (svg,))])[0]
    answer = client.get(f"/picture/{record.id}")
    assert (answer.status_code, b"svg" in answer.content) == (404, False)
