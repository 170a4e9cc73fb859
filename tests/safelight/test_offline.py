import os
import socket
import subprocess
import sys

import pytest

from safelight.offline import NetworkWatch, OfflineError

LOCAL = [
    ("socket.connect", (None, "/run/user/1000/bus")),
    ("socket.connect", (None, b"\0abstract")),
    ("socket.connect", (None, ("127.0.0.1", 80))),
    ("socket.connect", (None, ("127.8.8.8", 80))),
    ("socket.connect", (None, ("::1", 80, 0, 0))),
    ("socket.bind", (None, ("localhost", 0))),
    ("socket.getaddrinfo", ("localhost", 80, 0, 0, 0)),
    ("socket.getaddrinfo", (b"127.0.0.1", 80, 0, 0, 0)),
    ("socket.sendmsg", (None, None)),
]
OUTSIDE = [
    ("socket.connect", (None, ("192.0.2.1", 443))),
    ("socket.connect", (None, ("2001:db8::1", 443, 0, 0))),
    ("socket.connect", (None, ("localhost.example.org", 443))),
    ("socket.connect", (None, ("", 443))),
    ("socket.bind", (None, ("0.0.0.0", 80))),  # noqa: S104 - the address that must be refused
    ("socket.bind", (None, ("", 80))),
    ("socket.sendto", (None, ("192.0.2.1", 53))),
    ("socket.getaddrinfo", ("example.org", 443, 0, 0, 0)),
    ("socket.gethostbyname", ("example.org",)),
]


@pytest.mark.parametrize(("event", "args"), LOCAL)
def test_local_addresses_pass_and_are_counted(event, args):
    watch = NetworkWatch()
    watch.hook(event, args)
    assert (watch.local, watch.refused) == (1, 0)


@pytest.mark.parametrize(("event", "args"), OUTSIDE)
def test_everything_else_is_refused_and_counted(event, args):
    watch = NetworkWatch()
    with pytest.raises(OfflineError, match="asked for the network"):
        watch.hook(event, args)
    assert (watch.local, watch.refused) == (0, 1)


def test_other_events_do_not_matter():
    watch = NetworkWatch()
    watch.hook("open", ("/etc/hosts", "r", 0))
    assert (watch.local, watch.refused) == (0, 0)


def test_the_hook_holds_in_a_real_process():
    server = socket.create_server(("127.0.0.1", 0))
    program = (
        "import socket, sys\n"
        "from safelight.offline import OfflineError, watch_network\n"
        "watch = watch_network()\n"
        f"socket.create_connection(('127.0.0.1', {server.getsockname()[1]})).close()\n"
        "for call in (lambda: socket.create_connection(('192.0.2.1', 9), timeout=1),\n"
        "             lambda: socket.getaddrinfo('example.org', 80),\n"
        "    lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))):\n"
        "    try:\n"
        "        call()\n"
        "    except OfflineError:\n"
        "        continue\n"
        "    sys.exit('went out')\n"
        "sys.exit(0 if watch.refused == 3 else f'counted {watch.refused}')\n"
    )
    with server:
        done = subprocess.run(
            [sys.executable, "-c", program], check=False, capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr


def test_only_the_hosts_that_are_opened_are_looked_up_and_only_meanwhile(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    watch = NetworkWatch()
    lookup = ("socket.getaddrinfo", ("hub.example", 443, 0, 0, 0))
    connect = ("socket.connect", (None, ("192.0.2.1", 443)))
    with watch.opened() as let_out:
        with pytest.raises(OfflineError):
            watch.hook(*lookup)
        with pytest.raises(OfflineError):
            watch.hook(*connect)
        let_out("hub.example")
        watch.hook(*lookup)
        watch.hook(*connect)
        assert os.environ["HF_HUB_OFFLINE"] == "0"
        for event, args in OUTSIDE:
            if event != "socket.connect":
                with pytest.raises(OfflineError):
                    watch.hook(event, args)
    assert watch.outside == 2
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    for event in (lookup, connect):
        with pytest.raises(OfflineError):
            watch.hook(*event)
