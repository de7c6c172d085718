"""The store's old name, for what still asks by it."""

from fleet.proof import defects
from fleet.store import Outcome, Store, Unreadable, records, sums

__all__ = ["Outcome", "Store", "Unreadable", "defects", "records", "sums"]
