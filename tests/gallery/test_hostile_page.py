"""A hostile page in the same browser, on another site and on the same address's other port."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

pytestmark = pytest.mark.browser

ATTACK = """
async (target) => {
  const { origin, id } = target;
  const got = {};
  const fields = new URLSearchParams({ query: "apple", token: "x" });
  const element = (name, tag, attributes) => new Promise((done) => {
    const made = document.createElement(tag);
    const settle = (how) => { got[name] = how; done(); };
    made.onload = () => settle(tag === "img" ? `pixels ${made.naturalWidth}` : "loaded");
    made.onerror = () => settle("refused");
    setTimeout(() => settle(got[name] ?? "nothing"), 1500);
    Object.assign(made, attributes);
    document.body.append(made);
  });
  const text = async (name, path, options) => {
    try {
      const answer = await fetch(origin + path, { credentials: "include", ...options });
      got[name] = `${answer.type}: ${await answer.text()}`;
    } catch { got[name] = "refused"; }
  };
  await Promise.all([
    element("picture", "img", { src: `${origin}/picture/${id}` }),
    element("thumbnail", "img", { src: `${origin}/thumbnail/${id}` }),
    element("icon", "img", { src: `${origin}/static/icon.png` }),
    element("script", "script", { src: `${origin}/static/safelight.js`, type: "module" }),
    element("plain script", "script", { src: `${origin}/static/vendor/htmx.js` }),
    element("sheet", "link", { href: `${origin}/static/style.css`, rel: "stylesheet" }),
    text("read", "/", {}),
    text("opaque read", "/", { mode: "no-cors" }),
    text("lock", "/lock", { method: "POST", mode: "no-cors" }),
    text("lock by our header", "/lock", { method: "POST", headers: { "X-Safelight-CSRF": "x" } }),
    text("search", "/api/search", { method: "POST", body: fields }),
    text("exchange", "/session", { method: "POST", mode: "no-cors", body: fields }),
    new Promise((done) => {
      const socket = new WebSocket(origin.replace("http", "ws") + "/events");
      socket.onopen = () => { got.socket = "open"; done(); };
      socket.onerror = () => { got.socket = "refused"; done(); };
    }),
    new Promise((done) => {
      const source = new EventSource(`${origin}/events`, { withCredentials: true });
      source.onopen = () => { got.events = "open"; done(); };
      source.onerror = () => { got.events = "refused"; source.close(); done(); };
    }),
  ]);
  const frame = document.createElement("iframe");
  frame.src = origin;
  await new Promise((done) => {
    frame.onload = done;
    document.body.append(frame);
    setTimeout(done, 1500);
  });
  got.frame = "closed";
  try { got.frame = frame.contentDocument?.body.innerText ?? "closed"; } catch { }
  return got;
}
"""
POST_FORM = """
(action) => {
  const form = document.createElement("form");
  Object.assign(form, { method: "POST", action });
  document.body.append(form);
  form.submit();
}
"""


@pytest.fixture
def hostile():
    """Serve an empty page at a host of choice; gives a function from host to address.

    `cookies` of it has what browsers showed there.
    """

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            serve.cookies.append(self.headers.get("cookie", ""))
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>hostile</title><body>")

        def log_message(self, *words):
            pass

    servers = []

    def serve(host):
        server = ThreadingHTTPServer((host, 0), Page)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://{host}:{server.server_port}/"

    serve.cookies = []
    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("place", ["another site", "the same address"])
def test_a_hostile_page_gets_no_pixel_and_changes_nothing(gallery, state, hostile, place):
    origin, record_id = state.origin, next(state.vault.list(limit=1)).id
    own = gallery.evaluate(f"async () => (await fetch('/picture/{record_id}')).status")
    assert own == 200  # the session works, so that what follows is not for want of one
    host = urlsplit(origin).hostname if place == "the same address" else "127.0.0.1"
    page = gallery.context.new_page()
    page.goto(hostile(host))
    got = page.evaluate(ATTACK, {"origin": origin, "id": record_id})
    opaque = {name: got.pop(name) for name in ("opaque read", "lock", "exchange")}
    assert all(each in {"opaque: ", "refused"} for each in opaque.values())
    assert set(got.pop("frame").split()) <= {"closed"}
    # COEP and CORP refuse even public files; what a browser calls nothing never loaded.
    assert {name: how for name, how in got.items() if how not in {"refused", "nothing"}} == {}
    assert not state.is_locked
    for path in ("/lock", "/session", "/api/blur"):
        page.goto(hostile(host))
        page.evaluate(POST_FORM, origin + path)
        page.get_by_text("This did not come from the gallery's own page.").wait_for()
    assert not state.is_locked
    assert state.sessions.find("") is None
    page.goto(hostile(host))
    page.evaluate("(address) => { location.href = address }", origin + "/")
    page.get_by_text("This page needs its address").wait_for()


def test_a_page_that_opens_the_gallery_holds_no_handle_on_it(gallery, state, hostile):
    page = gallery.context.new_page()
    page.goto(hostile("127.0.0.1"))
    with gallery.context.expect_page() as opened:
        page.evaluate("(address) => { window.other = open(address) }", state.origin)
    opened.value.wait_for_load_state()
    assert page.evaluate("window.other.closed") is True  # severed by COOP


def test_a_cookie_that_another_port_was_shown_opens_nothing_for_another_user(
    gallery, state, hostile, as_another_user
):
    place = urlsplit(state.origin)
    page = gallery.context.new_page()
    page.goto(hostile(place.hostname))
    with page.expect_navigation():
        page.evaluate("() => { location.href = '/again' }")
    cookie = hostile.cookies[-1]
    # What no browser prevents: cookies know no ports, and to SameSite the other port is our site.
    assert state.sessions.find(cookie.partition("=")[2]) is not None
    record_id = next(state.vault.list(limit=1)).id
    head = f"GET /picture/{record_id} HTTP/1.1\r\nHost: {place.netloc}\r\nCookie: {cookie}\r\n"
    asked = f"{head}Connection: close\r\n\r\n".encode()
    with socket.create_connection((place.hostname, place.port), 20) as line:
        line.sendall(asked)
        assert line.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")  # for us it does
    assert as_another_user(place.hostname, place.port, asked) == b""
