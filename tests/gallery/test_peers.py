"""Whose program connects: this user's is answered, another's is hung up before it is read."""

import socket
import ssl
import sys
import threading
import time
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from safelight.gallery import peers
from safelight.gallery.address import Address, listen, random_loopback
from safelight.gallery.peers import is_stranger, uid_of_peer
from safelight.gallery.server import make_server

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells whose a socket is"
)

# As machines write it whose words begin with the lowest byte
OWN, PEER = ("127.18.52.86", 0x1F90), ("127.0.0.1", 0xAE7A)
ROW = "   1: {ends} 01 00000000:00000000 00:00000000 00000000  {uid}        0 {inode} 1 0 20 4\n"
ENDS = "0100007F:AE7A 5634127F:1F90"
MAPPED = "0000000000000000FFFF00000100007F:AE7A 0000000000000000FFFF00005634127F:1F90"


def row(ends=ENDS, uid=1000, inode=77):
    return ROW.format(ends=ends, uid=uid, inode=inode)


@pytest.mark.parametrize("ends", [ENDS, MAPPED], ids=["tcp", "tcp6"])
def test_the_row_of_the_other_end_says_whose_it_is(ends):
    ours = " ".join(reversed(ends.split()))
    assert uid_of_peer([row(ours, uid=0), row(ends)], OWN, PEER) == 1000
    mapped = (f"::ffff:{PEER[0]}", PEER[1])
    assert uid_of_peer([row(ends)], (f"::ffff:{OWN[0]}", OWN[1]), mapped) == 1000


def test_ipv6_is_written_by_words():
    ends = "00000000000000000000000001000000:AE7A 00000000000000000000000001000000:1F90"
    assert uid_of_peer([row(ends)], ("::1", 0x1F90), ("::1", 0xAE7A)) == 1000


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row(uid=0, inode=0)],  # closed by its program
        [row(ENDS.replace("AE7A", "AE7B"))],
        [row("0200007F:AE7A 5634127F:1F90")],
        ["   1: " + ENDS + " 06 0\n"],
    ],
    ids=["none", "no inode", "another port", "another address", "cut off"],
)
def test_what_is_no_row_of_it_says_nothing(rows):
    assert uid_of_peer(rows, OWN, PEER) is None


def answer(place, source=None):
    """Ask for a public file and give what comes; nothing when it was hung up."""
    try:
        with socket.create_connection(place, 20, source_address=source) as line:
            host = f"[{place[0]}]" if ":" in place[0] else place[0]
            head = f"HEAD /static/icon.png HTTP/1.1\r\nHost: {host}:{place[1]}\r\n"
            line.sendall(f"{head}Connection: close\r\n\r\n".encode())
            return line.recv(1 << 16)
    except (ConnectionResetError, BrokenPipeError):
        return b""


@contextmanager
def serving(state, address):
    """Serve at an address of choice; gives it with its port."""
    with listen(address) as listener:
        server = make_server(state, address, listener)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield listener.getsockname()[:2]
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def nobody_trusted(monkeypatch):
    """Let this user be another one than the gallery's: what a test that is not root can do."""
    monkeypatch.setattr(peers, "trusted_uids", lambda: frozenset({-1}))


@pytest.mark.parametrize("host", ["127.18.52.86", "::1"])
def test_this_user_is_answered(state, host):
    with serving(state, Address(host=host)) as place:
        assert answer(place).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("host", ["127.18.52.86", "::1"])
@pytest.mark.usefixtures("nobody_trusted")
def test_who_is_not_trusted_is_hung_up_without_a_byte(state, host):
    with serving(state, Address(host=host)) as place:
        assert answer(place) == b""


def test_another_user_is_hung_up_without_a_byte(state, as_another_user):
    with serving(state, Address(host=random_loopback())) as (host, port):
        asked = f"GET /static/icon.png HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
        assert as_another_user(host, port, asked) == b""
        assert answer((host, port)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.usefixtures("nobody_trusted")
def test_an_address_of_the_network_card_is_no_disguise(state):
    """A program may connect to loopback from any address of the machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as card:
        try:
            card.connect(("192.0.2.1", 9))  # says which address would be used; sends nothing
        except OSError:
            pytest.skip("this machine has no address but loopback")
        source = (card.getsockname()[0], 0)
    with serving(state, Address(host=random_loopback())) as place:
        assert answer(place, source) == b""


@pytest.mark.usefixtures("nobody_trusted")
def test_where_the_system_does_not_tell_nobody_is_hung_up(state, monkeypatch, tmp_path):
    (tmp_path / "empty").write_text("  sl  local_address rem_address\n")
    for tables in ((), (tmp_path / "missing",), (tmp_path / "empty",)):
        monkeypatch.setattr(peers, "TABLES", tables)
        with serving(state, Address(host=random_loopback())) as place:
            assert answer(place).startswith(b"HTTP/1.1 200 OK")


def test_who_left_before_being_looked_at_is_a_stranger():
    with listen(Address(host="127.0.0.1")) as listener:
        place = listener.getsockname()
        with socket.create_connection(place) as line:
            peer = line.getsockname()
            assert not is_stranger(place, peer)
        assert is_stranger(place, peer)


def test_another_machine_is_not_asked_about():
    assert not is_stranger(("192.0.2.1", 443), ("192.0.2.7", 50_000))


@pytest.fixture
def certificate(tmp_path):
    """Write a certificate of 127.0.0.1 by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gallery")])
    now = datetime.now(UTC)
    host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = made.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1))
    made = made.add_extension(host, critical=False).sign(key, hashes.SHA256())
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(Encoding.PEM))
    form = PrivateFormat.PKCS8, NoEncryption()
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, *form))
    return paths


@pytest.mark.parametrize("trusted", [True, False])
def test_the_same_goes_behind_tls(state, certificate, request, trusted):
    if not trusted:
        request.getfixturevalue("nobody_trusted")
    address = Address(host="127.0.0.1", certificate=certificate[0], key=certificate[1])
    context = ssl.create_default_context(cafile=str(certificate[0]))
    with serving(state, address) as (host, port):
        said = b""
        with suppress(ConnectionError, ssl.SSLError):
            plain = socket.create_connection((host, port), 20)
            with plain, context.wrap_socket(plain, server_hostname=host) as line:
                line.sendall(
                    f"HEAD /static/icon.png HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
                )
                said = line.recv(1 << 16)
        assert said.startswith(b"HTTP/1.1 200 OK") if trusted else said == b""
