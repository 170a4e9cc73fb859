"""`safelight tag`, `album`, `rate`, `favourite` and `note`: say something about pictures."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from safelight.access import Access
from safelight.cli.options import Json, with_access
from safelight.console import line, note
from safelight.exits import UsageError

if TYPE_CHECKING:
    from safelight.labels import Change

__all__ = ["NamesCommand", "album", "favourite", "note_on", "rate", "tag"]

Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids, or their first digits.")]
_SIGNS = "+-"


class NamesCommand(TyperCommand):
    """A command whose words `+x` and `-y` are names to add and to remove, never short options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the signed words behind `--`, where no parser takes `-y` for an option."""
        end = args.index("--") if "--" in args else len(args)
        names = [word for word in args[:end] if _is_name(word)]
        rest = [word for word in args[:end] if not _is_name(word)]
        return super().parse_args(ctx, [*rest, "--", *args[end + 1 :], *names])


def _is_name(word: str) -> bool:
    return len(word) > 1 and word[0] in _SIGNS and word[:2] != "--" and word != "-h"


@with_access
def tag(
    access: Access,
    words: Annotated[
        list[str], typer.Argument(metavar="ID... +TAG... -TAG...", help="+x adds, -x removes.")
    ],
    json: Json = False,
) -> None:
    """Add tags to pictures, remove them: `safelight tag 3f2a +sea`."""
    from safelight.labels import tagged

    ids, add, remove = _sorted(words, "tag")
    _label(access, ids, tagged(add, remove), json=json)


@with_access
def album(
    access: Access,
    words: Annotated[
        list[str],
        typer.Argument(metavar="ID... +ALBUM... -ALBUM...", help="+x puts in, -x takes out."),
    ],
    json: Json = False,
) -> None:
    """Put pictures into albums, take them out: `album 3f2a +Walks`."""
    from safelight.labels import in_albums

    ids, add, remove = _sorted(words, "album")
    _label(access, ids, in_albums(add, remove), json=json)


@with_access
def rate(
    access: Access,
    ids: Ids,
    stars: Annotated[int, typer.Argument(metavar="STARS", help="1 to 5; 0 takes it away.")],
    json: Json = False,
) -> None:
    """Rate pictures with one to five stars: `safelight rate 3f2a 4`."""
    from safelight.labels import rated

    _label(access, ids, rated(stars), json=json)


@with_access
def favourite(
    access: Access,
    ids: Ids,
    off: Annotated[bool, typer.Option("--off", help="No favourites any more.")] = False,
    json: Json = False,
) -> None:
    """Make pictures favourites. `vault retention` never touches them."""
    from safelight.labels import favoured

    _label(access, ids, favoured(not off), json=json)


@with_access
def note_on(
    access: Access,
    record_id: Annotated[str, typer.Argument(metavar="ID", help="An id, or its first digits.")],
    text: Annotated[
        str, typer.Argument(metavar="TEXT|-", help="The note; - reads it from input, '' removes.")
    ],
    json: Json = False,
) -> None:
    """Write a note on a picture. `-` keeps it out of the shell's history."""
    from safelight.labels import noted
    from safelight.orders import read_bounded

    if text == "-":
        text = read_bounded("-", "the note")
    _label(access, [record_id], noted(text), json=json)


def _sorted(words: list[str], what: str) -> tuple[list[str], list[str], list[str]]:
    """Sort words into ids, names to add and names to remove."""
    ids = [word for word in words if word[:1] not in set(_SIGNS)]
    add = [word[1:] for word in words if word[:1] == "+"]
    remove = [word[1:] for word in words if word[:1] == "-"]
    if not ids or not (add or remove):
        raise UsageError(
            f"give ids and {what}s: +x adds, -x removes", hint=f"safelight {what} 3f2a +sea -draft"
        )
    return ids, add, remove


def _label(access: Access, ids: list[str], change: "Change", *, json: bool) -> None:
    from safelight.labels import Labels, label, labelled_line

    with access.open() as vault:
        resolved = list(dict.fromkeys(vault.resolve(each) for each in ids))  # all, before any
        for record in label(vault, resolved, change):
            if json:
                line({"id": record.id, **labelled_line(Labels.of(record.metadata))})
        if not json:
            note(f"{len(resolved)} labelled.")
