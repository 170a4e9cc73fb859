"""Take pictures of other programs into the vault: the files as they are, and what they say."""

from safelight.importing.importer import Duplicate, Importer, Refused, Source, Taken
from safelight.importing.original import Original, read_original

__all__ = ["Duplicate", "Importer", "Original", "Refused", "Source", "Taken", "read_original"]
