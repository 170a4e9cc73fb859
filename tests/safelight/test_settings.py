import pytest

from safelight.exits import UsageError
from safelight.settings import load_settings


def environ(tmp_path, **more):
    return {"SAFELIGHT_HOME": str(tmp_path), **more}


def test_flags_win_over_environment_over_file_over_built_in(tmp_path):
    (tmp_path / "config.toml").write_text('device = "file"\nprecision = "file"\nmodel = "file"\n')
    env = environ(tmp_path, SAFELIGHT_DEVICE="environment", SAFELIGHT_PRECISION="environment")
    settings = load_settings({"device": "flag"}, env)
    chosen = {name: (s.value, s.source) for name, s in settings.values.items()}
    assert chosen["device"] == ("flag", "flag")
    assert chosen["precision"] == ("environment", "environment")
    assert chosen["model"] == ("file", "file")
    assert chosen["vault"] == (str(tmp_path / "vault"), "built-in")


def test_everything_lies_under_the_home(tmp_path):
    settings = load_settings(environ=environ(tmp_path))
    for path in (settings.vault, settings.models, settings.cache, settings.config):
        assert path.is_relative_to(tmp_path)


def test_a_vault_elsewhere_leaves_the_models_at_home(tmp_path):
    settings = load_settings({"vault": str(tmp_path / "stick")}, environ(tmp_path / "home"))
    assert settings.vault == tmp_path / "stick"
    assert settings.models.is_relative_to(tmp_path / "home")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("device = ", "not valid TOML"),
        ('colour = "red"', "unknown or non-text setting 'colour'"),
        ("device = 3", "unknown or non-text setting 'device'"),
        ('home = "/elsewhere"', "unknown or non-text setting 'home'"),
        ("#" * 70_000, "larger than"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, text, said):
    (tmp_path / "config.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        load_settings(environ=environ(tmp_path))


def test_a_network_vault_is_refused_or_allowed_and_nothing_else(tmp_path):
    home = {"SAFELIGHT_HOME": str(tmp_path)}
    assert load_settings(environ=home)["network_vault"] == "refuse"
    assert load_settings(environ=home | {"SAFELIGHT_NETWORK_VAULT": "allow"})["network_vault"] == (
        "allow"
    )
    with pytest.raises(UsageError, match="refuse or allow"):
        load_settings(environ=home | {"SAFELIGHT_NETWORK_VAULT": "yes"})


def test_the_safety_checker_is_on_until_it_is_turned_off(tmp_path):
    home = {"SAFELIGHT_HOME": str(tmp_path)}
    assert load_settings(environ=home)["safety_checker"] == "on"
    (tmp_path / "config.toml").write_text('safety_checker = "off"\n')
    chosen = load_settings(environ=home).values["safety_checker"]
    assert (chosen.value, chosen.source) == ("off", "file")
    with pytest.raises(UsageError, match="safety_checker is 'no'; it is on or off"):
        load_settings(environ=home | {"SAFELIGHT_SAFETY_CHECKER": "no"})
