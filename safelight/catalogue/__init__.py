"""Find pictures of an opened vault by everything that is sealed with them, all in memory."""

from safelight.catalogue.catalogue import Catalogue, Group, Loading
from safelight.catalogue.chunk import Row
from safelight.catalogue.query import Query, QueryError

__all__ = ["Catalogue", "Group", "Loading", "Query", "QueryError", "Row"]
