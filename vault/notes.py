"""The vault's own small notes: a JSON object inside the sealed root (FORMAT.md, 6).

Names in use: `coming` and `retired` (key store entries on their way in and out), `clock` and
`retention` (what deletes itself), `backup` and `verified` (when that was done last).
"""

import json
from collections.abc import Mapping
from typing import Any, cast

from vault.errors import BadValueError, DamagedError

__all__ = ["NOTES_BYTES", "decode_notes", "encode_notes"]

NOTES_BYTES = 64 * 1024  # of JSON, UTF-8


def decode_notes(settings: bytes) -> dict[str, Any]:
    """Return the notes of a root's settings; raises DamagedError unless they are an object."""
    try:
        notes = json.loads(settings)
    except (ValueError, RecursionError):
        notes = None
    if not isinstance(notes, dict):
        raise DamagedError("the root's settings are not what this program writes")
    return cast(dict[str, Any], notes)


def encode_notes(notes: Mapping[str, Any]) -> bytes:
    """Return the settings of notes; raises BadValueError above 64 KiB."""
    text = json.dumps(notes, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    if len(text) > NOTES_BYTES:
        raise BadValueError(f"the vault's notes have {len(text)} bytes, more than {NOTES_BYTES}")
    return text
