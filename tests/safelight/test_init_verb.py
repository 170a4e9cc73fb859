"""`safelight init`: a flag says what opens the vault, before environment and configuration do."""

import re

import pytest
from typer.testing import CliRunner

from safelight.cli import app
from safelight.exits import exit_status
from vault import KeyStoreAbsentError, inspect
from vault.keystore.kernel import KernelKeyStore


@pytest.fixture(params=["environment", "configuration"])
def init(tmp_path, request):
    """Give what runs a verb in a home where a passphrase's file is named already."""
    secret, home = tmp_path / "secret", tmp_path / "home"
    secret.write_text("a passphrase of a test\n")
    home.mkdir()
    env = {"SAFELIGHT_HOME": str(home), "SAFELIGHT_PASSPHRASE_FILE": ""}
    if request.param == "environment":
        env["SAFELIGHT_PASSPHRASE_FILE"] = str(secret)
    else:
        (home / "config.toml").write_text(f"passphrase_file = '{secret}'\n")
    runner = CliRunner(env=env)

    def run(*words, verb=("init", "--recovery-file", str(tmp_path / "phrase"))):
        done = runner.invoke(app, [*verb, *words])
        status = exit_status(done.exception) if done.exit_code else 0
        return status, f"{done.exception} {done.stderr}"

    return run


def openers(tmp_path):
    return {slot.type for slot in inspect(tmp_path / "home" / "vault").slots}


def test_without_a_choice_the_named_passphrase_is_taken(init, tmp_path):
    assert init()[0] == 0
    assert openers(tmp_path) == {"passphrase", "phrase"}


def test_a_passphrase_to_be_asked_for_is_asked_for(init, tmp_path):
    status, said = init("--passphrase")
    assert (status, "is asked for on a terminal, and there is none" in said) == (2, True), said
    assert inspect(tmp_path / "home" / "vault").state != "ready"


@pytest.fixture
def kernel_keys(tmp_path):
    """Remove afterwards what the kernel keeps of the test's vault."""
    try:
        store = KernelKeyStore()
    except KeyStoreAbsentError as error:
        pytest.skip(str(error))
    yield
    vault_id = inspect(tmp_path / "home" / "vault").vault_id
    with open("/proc/keys", encoding="ascii") as keys:  # noqa: PTH123 - it has no size
        listed = keys.read()
    for entry in re.findall(rf"safelight\.vault\.{vault_id}[.\w]+", listed):
        store.delete(entry)


@pytest.mark.usefixtures("kernel_keys")
def test_an_ephemeral_vault_needs_no_passphrase_that_no_flag_names(init, tmp_path):
    assert init("--ephemeral")[0] == 0
    assert openers(tmp_path) == {"keyring"}
    assert init(verb=("ls",))[0] == 0  # the key in memory opens it, whatever is named
    assert init(verb=("vault", "verify"))[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        ("--ephemeral", "--passphrase"),
        ("--ephemeral", "--keyring"),
        ("--ephemeral", "--passphrase-file", "other"),
        ("--passphrase", "--passphrase-file", "other"),
    ],
)
def test_flags_that_exclude_each_other_are_refused(init, tmp_path, words):
    (tmp_path / "other").write_text("another one")
    status, said = init(*words)
    assert status == 2
    assert "--ephemeral stands alone" in said or "asks on the terminal" in said
    assert inspect(tmp_path / "home" / "vault").state != "ready"
