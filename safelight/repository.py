"""What a hub says a repository holds: checked, and what of it a checkpoint needs.

Nothing here speaks with the network. Every name that the hub gives is looked at before any is used.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safelight.exits import ApplicationError, ExitStatus

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo

__all__ = ["HubError", "HubNotFoundError", "RemoteFile", "Repository", "choose", "read_repository"]

LISTED_LIMIT = 20_000  # files in a repository; Stable Diffusion's have about fifty
CHOSEN_LIMIT = 1024  # files of one checkpoint; a sharded one has about forty
MAX_BYTES = 1 << 40  # of one file
MODEL_INDEX = "model_index.json"
SIDE_FILES = re.compile(
    r"model_index\.json"
    r"|(?i:LICEN[SC]E|NOTICE|ATTRIBUTION)([._-][A-Za-z0-9._-]+)?"
    r"|scheduler/scheduler_config\.json"
    r"|tokenizer(_\d)?/(tokenizer|tokenizer_config|vocab|special_tokens_map|added_tokens)\.json"
    r"|tokenizer(_\d)?/merges\.txt"
    r"|[A-Za-z0-9][A-Za-z0-9._-]*/config\.json"
)
FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# diffusers' and transformers' names of weights; the second place of the variant is the older one.
WEIGHTS = re.compile(
    r"(diffusion_pytorch_model|model)(?:\.(?P<variant>[a-z0-9_]+))?(?P<shard>-\d+-of-\d+)?"
    r"(?:\.(?P<old>[a-z0-9_]+))?\.safetensors"
)
INDEX = re.compile(
    r"(diffusion_pytorch_model|model)\.safetensors\.index(?:\.(?P<variant>[a-z0-9_]+))?\.json"
)
PICKLES = (".bin", ".ckpt", ".pt", ".pth", ".pkl")
LEFT_OUT = ("feature_extractor", "image_encoder")  # no picture needs these
CONFIG = "config.json"
NETWORK = "diffusion_pytorch_model"  # how the weights of one network are named
CHECKER = "safety_checker"
PREPARATION = "feature_extractor/preprocessor_config.json"  # how it is given a picture


class HubError(ApplicationError):
    """The hub cannot be reached, or what it offers is not acceptable."""

    status = ExitStatus.MODEL


class HubNotFoundError(HubError):
    """The hub has no such repository or revision, or shows it to nobody without a token."""

    status = ExitStatus.NOT_FOUND


@dataclass(frozen=True, kw_only=True, slots=True)
class RemoteFile:
    """One file of a repository. sha256: hex, of files in large storage; else empty.

    blob_id: git's sha1 of the content (of the pointer, for files in large storage), hex or empty.
    """

    name: str
    bytes: int
    sha256: str
    blob_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Repository:
    """A repository at one commit (40 hex digits). licence: as its model card names it."""

    id: str
    commit: str
    licence: str
    files: tuple[RemoteFile, ...]


def read_repository(info: "ModelInfo") -> Repository:
    """Check what the hub answered. Raises HubError where it is not acceptable."""
    commit = info.sha
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise HubError(f"the hub names no commit for '{info.id}'", hint="it is no hub of models")
    listed = info.siblings or []
    if len(listed) > LISTED_LIMIT:
        raise HubError(f"'{info.id}' has {len(listed)} files; at most {LISTED_LIMIT} are read")
    files: dict[str, RemoteFile] = {}
    for each in listed:
        name = _plain_path(each.rfilename)
        if name in files:
            raise HubError(f"the hub lists '{name}' twice")
        size = each.lfs.size if each.lfs else each.size
        files[name] = RemoteFile(
            name=name,
            bytes=_size(name, size),
            sha256=_hex(each.lfs.sha256, 64) if each.lfs else "",
            blob_id=_hex(each.blob_id, 40),
        )
    return Repository(
        id=str(info.id), commit=commit, licence=_licence(info), files=tuple(files.values())
    )


def choose(repository: Repository, variant: str) -> tuple[RemoteFile, ...]:
    """Choose the files of a checkpoint: configurations, tokenizer, notices, and safetensors; or
    of one network, as ControlNets are published: config.json and weights without a folder.

    variant: of the weights, "fp16" for example; "" for the plain ones. A component without that
    variant comes plain. A safety checker comes along where it can be used: not as a pickle, and
    not without its preparation. Raises HubError for what is no diffusers repository, keeps its
    weights as pickles, or has the variant nowhere.
    """
    names = {file.name for file in repository.files}
    if MODEL_INDEX not in names:
        return _one_network(repository, variant)
    folders: dict[str, list[RemoteFile]] = defaultdict(list)
    chosen: list[RemoteFile] = []
    for file in repository.files:
        folder = file.name.rpartition("/")[0]
        if folder in {*LEFT_OUT, CHECKER}:
            continue
        if SIDE_FILES.fullmatch(file.name):
            chosen.append(file)
        elif FOLDER.fullmatch(folder):
            folders[folder].append(file)
    variants: set[str] = set()
    for folder, files in sorted(folders.items()):
        groups = _by_variant(files)
        variants |= set(groups)
        chosen += _weights(folder, files, groups, variant)
    chosen += _safety_checker(repository.files, variant)
    _check_choice(repository, chosen, variants, variant)
    return _sorted(chosen)


def _sorted(files: Iterable[RemoteFile]) -> tuple[RemoteFile, ...]:
    return tuple(sorted(files, key=lambda file: (file.bytes, file.name)))


def _safety_checker(files: Iterable[RemoteFile], variant: str) -> list[RemoteFile]:
    """Give the files of the safety checker, or none where something of it is missing."""
    by_name = {file.name: file for file in files}
    own = [file for name, file in by_name.items() if name.rpartition("/")[0] == CHECKER]
    groups = _by_variant(own)
    weights = groups.get(variant) or groups.get("") or []
    beside = [by_name.get(name) for name in (f"{CHECKER}/config.json", PREPARATION)]
    found = [file for file in beside if file is not None]
    return [*found, *weights] if weights and len(found) == len(beside) else []


def _one_network(repository: Repository, variant: str) -> tuple[RemoteFile, ...]:
    """Choose the files of a repository that is one network of diffusers, such as a ControlNet."""
    files = [file for file in repository.files if "/" not in file.name]
    own = [file for file in files if file.name.startswith(NETWORK)]
    if not own or all(file.name != CONFIG for file in files):
        raise HubError(
            f"'{repository.id}' has no {MODEL_INDEX}, so it is no diffusers repository",
            hint="only repositories in diffusers' layout can be pulled, and single networks of it",
        )
    groups = _by_variant(own)
    chosen = [file for file in files if file.name == CONFIG or SIDE_FILES.fullmatch(file.name)]
    chosen += _weights("it", own, groups, variant)
    _check_choice(repository, chosen, set(groups), variant)
    return _sorted(chosen)


def _check_choice(
    repository: Repository, chosen: list[RemoteFile], variants: set[str], variant: str
) -> None:
    if not variants:
        raise HubError(f"'{repository.id}' has no weights in .safetensors files")
    if variant and variant not in variants:
        there = ", ".join(sorted(variants - {""})) or "none, only plain weights"
        raise HubError(
            f"'{repository.id}' has no weights of variant '{variant}'", hint=f"it has: {there}"
        )
    if len(chosen) > CHOSEN_LIMIT:
        raise HubError(f"the checkpoint has {len(chosen)} files; at most {CHOSEN_LIMIT} are taken")
    for file in chosen:
        if not file.sha256 and not file.blob_id:
            raise HubError(f"the hub gives no hash for '{file.name}', so it cannot be checked")


def _by_variant(files: Iterable[RemoteFile]) -> dict[str, list[RemoteFile]]:
    """Sort weights and their indexes by variant; one whole file wins over shards."""
    whole: dict[str, list[RemoteFile]] = defaultdict(list)
    shards: dict[str, list[RemoteFile]] = defaultdict(list)
    for file in files:
        name = file.name.rpartition("/")[2]
        if found := WEIGHTS.fullmatch(name):
            kind = shards if found["shard"] else whole
            kind[found["variant"] or found["old"] or ""].append(file)
        elif found := INDEX.fullmatch(name):
            shards[found["variant"] or ""].append(file)
    complete = {
        variant: group
        for variant, group in shards.items()
        if any(file.name.endswith(".safetensors") for file in group)
    }
    return complete | whole


def _weights(
    folder: str,
    files: Iterable[RemoteFile],
    groups: Mapping[str, list[RemoteFile]],
    variant: str,
) -> Iterator[RemoteFile]:
    found = groups.get(variant) or groups.get("")
    if found:
        yield from found
        return
    if groups:
        there = ", ".join(sorted(groups))
        raise HubError(
            f"{folder} has only weights of variant {there}", hint=f"give --variant {min(groups)}"
        )
    pickle = next((file.name for file in files if file.name.lower().endswith(PICKLES)), None)
    if pickle is not None:
        raise HubError(
            f"the repository has {folder} only as a pickle ({pickle}): loading one runs whatever"
            " code is inside",
            hint="look for a repository of the same model with .safetensors files",
        )


def _plain_path(name: object) -> str:
    """Refuse a path that could name anything outside the folder it is put into."""
    parts = name.split("/") if isinstance(name, str) else []
    bad = not parts or any(
        part in {"", ".", ".."} or "\\" in part or not part.isprintable() for part in parts
    )
    if bad or not isinstance(name, str) or len(name) > 1024:
        raise HubError(
            f"the repository lists a file that climbs out of its folder or has no proper name:"
            f" {str(name)[:80]!r}",
            hint="nothing of it was fetched; such a repository is broken or hostile",
        )
    return name


def _size(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_BYTES:
        return value
    raise HubError(f"the hub says no acceptable size for '{name}'")


def _hex(value: object, digits: int) -> str:
    """Give a hash in lower case, or "" where there is none of that length."""
    text = value.lower() if isinstance(value, str) else ""
    return text if re.fullmatch(rf"[0-9a-f]{{{digits}}}", text) else ""


def _licence(info: "ModelInfo") -> str:
    card = info.card_data
    given = getattr(card, "license", None)
    if given == "other":
        given = getattr(card, "license_name", None) or given
    if isinstance(given, list):
        given = ", ".join(map(str, given))
    tags = [str(tag) for tag in info.tags or [] if str(tag).startswith("license:")]
    text = str(given) if given else "".join(tags[:1]).removeprefix("license:")
    return "".join(char for char in text if char.isprintable())[:100] or "unknown"
