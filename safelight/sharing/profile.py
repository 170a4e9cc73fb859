"""What may leave with a shared picture: a profile, a file format, words that stay behind."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from safelight.exits import UsageError

__all__ = ["FORMATS", "PROFILES", "Format", "Share"]

MAX_WORDS = 100  # to redact
MAX_WORD = 200  # characters

# Profile -> what it lets out, in words for people.
PROFILES: Final[Mapping[str, str]] = {
    "strip": "pixels alone",
    "minimal": "pixels, and the mark that an AI made them",
    "a1111": "that mark, prompts and settings as the text that most programs read",
    "full": "all of that, and every setting as JSON",
}


@dataclass(frozen=True, slots=True)
class Format:
    """A file format: its suffix, media type, and what its encoder is told."""

    suffix: str
    media_type: str
    encoder: str
    options: Mapping[str, int | str]


FORMATS: Final[Mapping[str, Format]] = {
    "png": Format("png", "image/png", "PNG", {"compress_level": 6}),
    "webp": Format("webp", "image/webp", "WEBP", {"quality": 90, "method": 4}),
    "jpeg": Format("jpg", "image/jpeg", "JPEG", {"quality": 92, "subsampling": "4:4:4"}),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """How pictures leave. profile: a name in PROFILES. format: a name in FORMATS.

    redactions: words and phrases that are taken out of every text, whatever their case, also from
    the middle of words. Raises UsageError.
    """

    profile: str = "strip"
    format: str = "png"
    redactions: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for what, got, allowed in (
            ("profile", self.profile, PROFILES),
            ("format", self.format, FORMATS),
        ):
            if got not in allowed:
                raise UsageError(
                    f"there is no {what} '{got[:40]}'", hint=f"one of: {', '.join(allowed)}"
                )
        if len(self.redactions) > MAX_WORDS or any(
            not 0 < len(word.strip()) <= MAX_WORD for word in self.redactions
        ):
            raise UsageError(
                f"up to {MAX_WORDS} redactions of 1 to {MAX_WORD} characters each are taken"
            )
