"""What the guard lets through, and what every answer says, refusals and faults among them."""

import pytest
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from safelight.gallery.app import create_app
from safelight.gallery.guard import BEARER, HEADERS
from tests.gallery.conftest import HOST

RECORD = "0" * 32
# Answered without a session: the token's exchange, and files that are in every installation.
OPEN = {"/session", "/static/{name:path}"}


def paths(app):
    """Give (method, address) of each route, with something in place of its parameters."""
    for route in app.routes:
        for method in route.methods:
            path = route.path
            for name, fill in (("{record_id}", RECORD), ("{number:int}", "1")):
                path = path.replace(name, fill)
            while "{" in path:
                path = path[: path.index("{")] + "x" + path[path.index("}") + 1 :]
            yield route.path, method, path


def refusal(path):
    """Give the status of a browser's request that is refused; programs' paths know no browsers."""
    return 403 if path.startswith(BEARER) else 401


def test_every_route_for_programs_refuses_without_the_token(client, state):
    state.api_token = "a-token-of-a-test"
    for name in ("origin", "sec-fetch-site"):
        del client.headers[name]  # a browser's session alone opens nothing here
    seen = 0
    for pattern, method, path in paths(client.app):
        if pattern.startswith(BEARER):
            seen += 1
            for shown in ("", "Bearer ", "Bearer a-token-of-a-tes", "Basic !", "Basic eDp4", "ä"):
                headers = {"authorization": shown.encode()}
                answer = client.request(method, path, headers=headers)
                assert answer.status_code == 401, (method, path, shown)
    assert seen > 10
    state.api_token = ""
    headers = {"authorization": "Bearer "}
    assert client.get("/v1/models", headers=headers).status_code == 401


def test_every_route_refuses_without_a_session(visitor):
    seen = 0
    for pattern, method, path in paths(visitor.app):
        if pattern in OPEN:
            continue
        seen += 1
        answer = visitor.request(method, path)
        assert answer.status_code == refusal(path), (method, path)
        assert answer.headers.get("set-cookie") is None
    assert seen > 10


def test_every_route_refuses_while_the_vault_is_locked(browser_session):
    ways_in = ("/unlock", "/lock", "/welcome", "/session", "/static")
    for pattern, method, path in paths(browser_session.app):
        if not pattern.startswith(ways_in):
            answer = browser_session.request(method, path)
            assert answer.status_code == refusal(path), (method, path)


def test_every_change_needs_the_csrf_header_and_our_origin(client):
    changes = [each for each in paths(client.app) if each[1] == "POST"]
    assert len(changes) > 5
    for pattern, method, path in changes:
        if pattern not in OPEN:
            for name, value in (
                ("x-safelight-csrf", ""),
                ("x-safelight-csrf", "ä".encode()),
                ("origin", ""),
            ):
                answer = client.request(method, path, headers={name: value})
                assert answer.status_code == 403, (path, name)
        for origin in ("null", "http://evil.example", f"https://{HOST}", "http://127.3.2.1"):
            assert client.post(path, headers={"origin": origin}).status_code == 403, path


def test_a_change_without_origin_passes_only_with_the_browsers_own_word(client):
    del client.headers["origin"]
    assert client.post("/api/blur", data={"on": "1"}).status_code == 204
    del client.headers["sec-fetch-site"]
    assert client.post("/api/blur", data={"on": "1"}).status_code == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:4455",
        "127.3.2.1",
        "127.3.2.1:80",
        "127.0.0.1:4455",
        "localhost:4455",
        "127.3.2.1:4455.evil.example",
        "127.3.2.1.evil.example:4455",
        "evil.example@127.3.2.1:4455",
        "127.3.2.1:4455 ",
        "127.3.2.1:04455",
        "2130903553:4455",
        "[::ffff:127.3.2.1]:4455",
        "",
    ],
)
def test_only_our_own_host_is_answered(client, host):
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421
    assert "safelight-csrf" not in answer.text


def test_two_hosts_are_none(client):
    headers = [("host", HOST), ("host", HOST)]
    assert client.get("/", headers=headers).status_code == 421


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("path", ["/", "/api/state", "/static/style.css", f"/picture/{RECORD}"])
def test_nothing_for_another_site(client, site, path):
    answer = client.get(path, headers={"sec-fetch-site": site, "sec-fetch-mode": "no-cors"})
    assert answer.status_code == 403


def test_a_link_from_elsewhere_leads_to_the_empty_entrance_only(client):
    from_elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    assert client.get("/trash", headers=from_elsewhere).status_code == 403
    entrance = client.get("/", headers=from_elsewhere)
    assert entrance.status_code == 401
    assert "safelight-csrf" not in entrance.text


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_not_spoken(client, method):
    assert client.request(method, "/").status_code == 405


def test_a_token_works_once_and_its_cookie_stays_in_its_place(state, visitor):
    token = state.sessions.token
    first = visitor.post("/session", data={"token": token})
    assert first.status_code == 204
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "domain" not in cookie
    assert "expires" not in cookie
    assert "max-age" not in cookie
    assert visitor.post("/session", data={"token": token}).status_code == 403
    assert state.sessions.token != token


@pytest.mark.parametrize("token", ["", "x", "ä" * 43, "A" * 43])
def test_another_token_opens_nothing(visitor, token):
    answer = visitor.post("/session", data={"token": token})
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_all_answers_carry_the_same_headers(state, client):
    refused = client.get("/", headers={"host": "evil.example"})
    faulty = TestClient(_failing(state), f"http://{HOST}", headers=client.headers)
    faulty.cookies = client.cookies
    answers = [
        client.get("/"),
        client.get("/no-such-page"),
        client.get("/static/style.css"),
        client.get("/static/no-such.css"),
        client.get(f"/picture/{RECORD}"),
        client.post("/api/window", data={"start": "x"}),
        client.put("/"),
        refused,
        faulty.get("/fails"),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 404, 200, 404, 404, 422, 405, 421, 500]
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers.get_list(name) == [value]
        assert "server" not in answer.headers


def test_a_fault_says_its_place_and_nothing_of_what_was_asked(state, client, capfd, caplog):
    said = []
    state.note = said.append
    faulty = TestClient(_failing(state), f"http://{HOST}", headers=client.headers)
    faulty.cookies = client.cookies
    answer = faulty.get("/fails")
    assert "canary" not in answer.text
    assert len(said) == 1
    assert said[0].startswith("unexpected RuntimeError in tests.gallery.test_guard.fail, line ")
    written = capfd.readouterr()
    assert "canary" not in said[0] + written.out + written.err + caplog.text


def _failing(state):
    def fail(request) -> Response:
        raise RuntimeError("canary")

    app = create_app(state)
    app.routes.append(Route("/fails", fail))
    return app


def test_bodies_are_bounded_before_they_are_read(client):
    large = "on=" + "1" * 70_000
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/api/blur", content=large, headers=kind).status_code == 413
    pieces = (large[start : start + 1000].encode() for start in range(0, len(large), 1000))
    assert client.post("/api/blur", content=pieces, headers=kind).status_code == 413
    lying = {**kind, "content-length": "9" * 30}
    assert client.post("/api/blur", content="on=1", headers=lying).status_code == 413


def test_a_form_of_another_kind_or_with_too_many_fields_is_refused(client):
    assert client.post("/api/blur", content="{}").status_code == 415
    files = {"on": ("x.png", b"abc")}
    assert client.post("/api/blur", files=files).status_code == 415
    assert client.post("/api/blur", data={f"f{n}": "" for n in range(201)}).status_code == 400
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert client.post("/api/blur", content="on=%ff", headers=kind).status_code == 400


def test_the_drop_in_apis_are_off(client):
    for path in ("/sdapi/v1/txt2img", "/v1/images/generations"):
        assert client.post(path).status_code in {401, 403}
        assert client.post(path, headers={"authorization": "Bearer "}).status_code in {401, 403}


def test_locked_and_unknown_look_alike(client, state):
    record = next(state.vault.list(limit=1)).id
    state.lock()
    answers = [client.get(f"/picture/{each}") for each in (record, RECORD)]
    assert {(each.status_code, each.content) for each in answers} == {
        (401, b"Not here, or locked.")
    }


def test_no_path_leaves_the_folder_of_static_files(client):
    for name in (
        "../guard.py",
        "..%2fguard.py",
        "%2e%2e/guard.py",
        "/etc/passwd",
        "vendor/../../app.py",
    ):
        assert client.get(f"/static/{name}").status_code in {401, 404}, name
    assert client.get("/static/vendor/LICENSE.htmx").status_code == 404
