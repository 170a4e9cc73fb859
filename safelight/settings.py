"""Settings: flags over environment over file over built-in, each with where it came from."""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safelight.exits import UsageError

__all__ = ["Setting", "Settings", "load_settings"]

MAX_CONFIG = 65_536  # bytes of config.toml; it has a handful of lines
# name -> (environment variable, built-in value); paths are filled in from the home
_NAMES = {
    "home": ("SAFELIGHT_HOME", ""),
    "vault": ("SAFELIGHT_VAULT", ""),
    "passphrase_file": ("SAFELIGHT_PASSPHRASE_FILE", ""),
    # "refuse", or "allow": one machine alone uses a vault on a network file system
    "network_vault": ("SAFELIGHT_NETWORK_VAULT", "refuse"),
    "model": ("SAFELIGHT_MODEL", "pocket"),
    # the folder of LoRA files that the studio offers
    "loras": ("SAFELIGHT_LORAS", ""),
    "device": ("SAFELIGHT_DEVICE", "auto"),
    "precision": ("SAFELIGHT_PRECISION", "auto"),
    # "on", or "off": the safety checker that some checkpoints bring along blacks pictures out
    "safety_checker": ("SAFELIGHT_SAFETY_CHECKER", "on"),
    # where `models pull` fetches from, and the only place that any verb asks
    "hub": ("SAFELIGHT_HUB", "https://huggingface.co"),
}


@dataclass(frozen=True, slots=True)
class Setting:
    """One value and its source: flag, environment, file or built-in."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """Every setting, resolved once. Paths are absolute; none of them has to exist yet."""

    values: Mapping[str, Setting]
    vault: Path
    models: Path
    loras: Path
    cache: Path
    config: Path

    def __getitem__(self, name: str) -> str:
        return self.values[name].value


def load_settings(
    flags: Mapping[str, str | None] | None = None, environ: Mapping[str, str] | None = None
) -> Settings:
    """Resolve the settings; raises UsageError for a configuration file that makes no sense."""
    environ = os.environ if environ is None else environ
    flags = flags or {}
    given = flags.get("home") or environ.get("SAFELIGHT_HOME", "")
    home = Path(given).expanduser().absolute() if given else None
    data, cache, config = _folders(home)
    file = _read(config / "config.toml")
    values = {
        name: _resolve(name, flags.get(name), environ.get(variable), file.get(name), built_in)
        for name, (variable, built_in) in _NAMES.items()
    }
    if values["network_vault"].value not in {"refuse", "allow"}:
        raise UsageError(
            f"network_vault is '{values['network_vault'].value}'; it is refuse or allow"
        )
    if values["safety_checker"].value not in {"on", "off"}:
        raise UsageError(f"safety_checker is '{values['safety_checker'].value}'; it is on or off")
    places = {name: _place(values, name, data) for name in ("vault", "loras")}
    if home is None:
        values["home"] = Setting("home", str(data), "built-in")
    return Settings(
        values=values,
        vault=places["vault"],
        models=data / "models",
        loras=places["loras"],
        cache=cache,
        config=config / "config.toml",
    )


def _place(values: dict[str, Setting], name: str, data: Path) -> Path:
    """Give the folder that a setting names, or the usual one of that name, and say so in it."""
    given = values[name].value
    if given:
        return Path(given).expanduser().absolute()
    values[name] = Setting(name, str(data / name), "built-in")
    return data / name


def _folders(home: Path | None) -> tuple[Path, Path, Path]:
    if home is not None:
        return home, home / "cache", home
    import platformdirs

    dirs = platformdirs.PlatformDirs("safelight", appauthor=False)
    return Path(dirs.user_data_dir), Path(dirs.user_cache_dir), Path(dirs.user_config_dir)


def _read(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise UsageError(f"the configuration file is larger than {MAX_CONFIG} bytes")
        table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the configuration file {path} is not valid TOML: {error}",
            hint="mend it or move it away; `safelight config --explain` shows what is read",
        ) from error
    allowed = [name for name in _NAMES if name != "home"]
    for name, value in table.items():
        if name not in allowed or not isinstance(value, str):
            raise UsageError(
                f"the configuration file {path} has an unknown or non-text setting '{name}'",
                hint=f"allowed, each as text: {', '.join(allowed)}",
            )
    return table


def _resolve(
    name: str, flag: str | None, variable: str | None, file: str | None, built_in: str
) -> Setting:
    for value, source in ((flag, "flag"), (variable, "environment"), (file, "file")):
        if value:
            return Setting(name, value, source)
    return Setting(name, built_in, "built-in")
