"""Share pictures: made anew from their pixels, with exactly the fields that a profile names."""

from safelight.sharing.parcel import Parcel, pack
from safelight.sharing.profile import FORMATS, PROFILES, Share
from safelight.sharing.zipping import zip_stream

__all__ = ["FORMATS", "PROFILES", "Parcel", "Share", "pack", "zip_stream"]
