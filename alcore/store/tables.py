"""Names of other modules of the store that `driver` and `session` import from here."""

from alcore.store.facts import PREPROCESSING, utc_now
from alcore.store.rows import AskedRequest, Record

__all__ = ["PREPROCESSING", "AskedRequest", "Record", "utc_now"]
