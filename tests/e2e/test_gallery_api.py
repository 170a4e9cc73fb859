"""`safelight gallery --api`: the real command answers a program that shows the token, and stops."""

import http.client
import json
import signal
from urllib.parse import urlsplit

from tests.e2e.command import make_home

TOKEN = "a-token-of-a-test-that-is-long"


def ask(address, path, token):
    place = urlsplit(address)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    said = answer.read()
    connection.close()
    return answer.status, said


def test_a_program_with_the_token_is_answered_and_one_without_is_not(tmp_path):
    home = make_home(tmp_path)
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "short").write_text("too short\n")
    home.run("gallery", "--no-browser", "--api-token-file", "short", status=2)
    words = ["gallery", "--no-browser", "--api", "--api-token-file", "token"]
    process = home.start(*words)
    try:
        address = process.stdout.readline().decode().strip()
        assert ask(address, "/v1/models", "no-token")[0] == 401
        status, said = ask(address, "/v1/models", TOKEN)
        assert (status, json.loads(said)["data"][0]["id"]) == (200, "pocket")
        status, said = ask(address, "/sdapi/v1/options", TOKEN)
        assert (status, json.loads(said)["sd_model_checkpoint"]) == (200, "pocket")
        process.send_signal(signal.SIGINT)
        process.stdin = None
        out, told = process.communicate(timeout=60)
    finally:
        process.kill()
    assert "/sdapi/v1 (A1111)" in told.decode()
    assert TOKEN not in told.decode() + out.decode()
    assert "Traceback" not in told.decode()


def test_a_new_token_is_printed_when_none_is_named(tmp_path):
    home = make_home(tmp_path)
    process = home.start("gallery", "--no-browser", "--api")
    try:
        address = process.stdout.readline().decode().strip()
        line = b""
        while b"with the token" not in line:
            line = process.stderr.readline()
            assert line
        token = line.split()[-1].decode()
        assert len(token) > 40
        assert ask(address, "/sdapi/v1/samplers", token)[0] == 200
    finally:
        home.kill(process)
