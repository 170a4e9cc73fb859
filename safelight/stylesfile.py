"""Styles from a file: A1111's `styles.csv`, also used by SD.Next, Forge and reForge."""

import csv
import io
from collections.abc import Iterator
from typing import Final

from safelight.exits import UsageError
from safelight.kit import Style

__all__ = ["read_styles"]

MAX_FILE: Final = 4 << 20  # bytes
MAX_ROWS: Final = 2000
COLUMNS: Final = {"prompt": "prompt", "text": "prompt", "negative_prompt": "negative_prompt"}


def read_styles(data: bytes) -> list[Style]:
    """Read a styles.csv: a header with `name`, `prompt` and maybe `negative_prompt`, a style a row.

    Rows without a name, or with nothing but one, are separators and passed over. Raises UsageError
    that names the line, and never what it says.
    """
    if len(data) > MAX_FILE:
        raise UsageError(f"the styles are larger than {MAX_FILE} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("the styles are not valid UTF-8") from None
    found = list(_rows(text))
    if not found:
        raise UsageError("the file holds no style", hint="columns: name,prompt,negative_prompt")
    return found


def _rows(text: str) -> Iterator[Style]:
    rows = csv.reader(io.StringIO(text, newline=""))
    header: list[str] = []
    try:
        for number, row in enumerate(rows):
            if number > MAX_ROWS:
                raise UsageError(f"the file has more than {MAX_ROWS} styles")
            if not header:
                header = [cell.strip().lower() for cell in row]
                if "name" not in header or not {"prompt", "text"} & set(header):
                    raise UsageError(
                        "these are no styles: the first line names no 'name' and 'prompt'",
                        hint="columns: name,prompt,negative_prompt",
                    )
                continue
            style = _style(dict(zip(header, row, strict=False)))
            if style is not None:
                yield style
    except csv.Error:
        raise UsageError(f"line {rows.line_num} of the styles is not valid CSV") from None


def _style(cells: dict[str, str]) -> Style | None:
    name = "".join(each for each in cells.get("name", "") if each.isprintable()).strip()[:64]
    texts = {COLUMNS[column]: cell.strip() for column, cell in cells.items() if column in COLUMNS}
    if not name or not any(texts.values()):
        return None
    return Style(name=name.strip(), **texts)
