"""What a person keeps at hand for making pictures, sealed: presets, styles, word lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from safelight.exits import UsageError

if TYPE_CHECKING:
    from vault import Kind, Record, Vault

__all__ = ["Kit", "Preset", "Style", "WordList", "lines_of"]

MAX_NAME: Final = 64  # characters
MAX_THINGS: Final = 2000  # of each sort; styles that people share by file have some hundreds
MAX_TEXT: Final = 65_536  # characters of a style's prompt, as of any prompt
MAX_LIST: Final = 900_000  # bytes of a word list; a record's metadata has 1 MiB
HERE: Final = "{prompt}"  # in a style: where the prompt itself goes


@dataclass(frozen=True, kw_only=True, slots=True)
class Preset:
    """Settings by a name; fields as in the studio's form."""

    id: str = ""
    name: str
    fields: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Style:
    """Words that go around a prompt, as A1111's styles do."""

    id: str = ""
    name: str
    prompt: str = field(default="", repr=False)
    negative_prompt: str = field(default="", repr=False)

    def around(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        """Put the style's words around a prompt and behind a negative one."""
        return _joined(self.prompt, prompt), _joined(self.negative_prompt, negative_prompt)


@dataclass(frozen=True, kw_only=True, slots=True)
class WordList:
    """What a wildcard of this name stands for: one of these lines."""

    id: str = ""
    name: str
    lines: tuple[str, ...] = field(repr=False)


class Kit:
    """Presets, styles and word lists in an open vault. A name is there once of each sort."""

    def __init__(self, vault: "Vault") -> None:
        self._vault = vault

    def presets(self) -> list[Preset]:
        """List the presets by name."""
        found = self._records("preset")
        return [
            Preset(id=r.id, name=r.metadata["name"], fields=r.metadata["fields"]) for r in found
        ]

    def styles(self) -> list[Style]:
        """List the styles by name."""
        return [
            Style(
                id=r.id,
                name=r.metadata["name"],
                prompt=r.metadata["prompt"],
                negative_prompt=r.metadata["negative_prompt"],
            )
            for r in self._records("style")
        ]

    def wordlists(self) -> list[WordList]:
        """List the word lists by name."""
        found = self._records("wordlist")
        return [
            WordList(id=r.id, name=r.metadata["name"], lines=tuple(r.metadata["lines"]))
            for r in found
        ]

    def keep(self, things: Sequence[Preset | Style | WordList]) -> int:
        """Seal things in the place of those of the same sort and name; gives how many.

        Raises UsageError for a name or content that is not acceptable; then none is sealed.
        """
        from vault import Draft

        last = {(_sort(each), each.name): _content(each) for each in things}
        there = {sort: self._records(sort) for sort in {sort for sort, _ in last}}
        for sort, records in there.items():
            names = {name for each, name in last if each == sort}
            names |= {r.metadata["name"] for r in records}
            if len(names) > MAX_THINGS:
                raise UsageError(f"at most {MAX_THINGS} of one sort are kept")
        drafts = [Draft(kind=_kind(sort), metadata=content) for (sort, _), content in last.items()]
        old = [r.id for s, found in there.items() for r in found if (s, r.metadata["name"]) in last]
        for start in range(0, len(drafts), 16):
            self._vault.add(drafts[start : start + 16])
        if old:  # only now: a crash between the two leaves two, and never none
            self._vault.delete(old)
        return len(drafts)

    def remove(self, record_id: str) -> None:
        """Remove one of them; nothing where it is none, or gone already."""
        if record_id in {r.id for sort in _SORTS for r in self._records(sort)}:
            self._vault.delete([record_id])

    def _records(self, sort: str) -> "list[Record]":
        found = {
            r.metadata["name"]: r  # the newest wins: it comes first, so it is put in last
            for r in reversed(list(self._vault.list(kinds=(_kind(sort),))))
            if r.metadata.get("type") == sort
        }
        return [found[name] for name in sorted(found, key=str.casefold)]


_SORTS: Final = ("preset", "style", "wordlist")


def _sort(thing: Preset | Style | WordList) -> str:
    return type(thing).__name__.lower()


def _kind(sort: str) -> "Kind":
    from vault import Kind

    return Kind.WORDLIST if sort == "wordlist" else Kind.PRESET


def _content(thing: Preset | Style | WordList) -> dict[str, Any]:
    name = thing.name
    if not 0 < len(name) <= MAX_NAME or name != name.strip() or not name.isprintable():
        raise UsageError(f"a name has 1 to {MAX_NAME} printable characters")
    found: dict[str, Any] = {"type": _sort(thing), "name": name}
    if isinstance(thing, Preset):
        return found | {"fields": dict(thing.fields)}
    if isinstance(thing, Style):
        if max(len(thing.prompt), len(thing.negative_prompt)) > MAX_TEXT:
            raise UsageError(f"a style's prompt has at most {MAX_TEXT} characters")
        return found | {"prompt": thing.prompt, "negative_prompt": thing.negative_prompt}
    if not thing.lines:
        raise UsageError("a word list has at least one line")
    if sum(len(line.encode("utf-8", "replace")) + 4 for line in thing.lines) > MAX_LIST:
        raise UsageError(f"a word list has at most {MAX_LIST} bytes")
    return found | {"lines": list(thing.lines)}


def _joined(style: str, prompt: str) -> str:
    if HERE in style:
        return style.replace(HERE, prompt)
    return ", ".join(filter(None, (prompt.strip(), style.strip())))


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a word list's file: blank ones and comments (#) are none."""
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()
