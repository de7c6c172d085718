"""What a box may do after it looked at its journal, at the second copy and at the cloud: one table without holes.

Pure: words in, words out.  `device/recovery/recovering.py` finds the words and does what the table says; `docs/recovery.md` says
the same to people, held true by a test.
"""

from __future__ import annotations

import enum


class Store(enum.StrEnum):
    """How a journal, or a second copy, was found."""

    WHOLE = "whole"          # it reads, it follows, and nothing names a row beyond it
    SHORTER = "shorter"      # it reads, and something proves that rows are missing at its end (a copy's: or before its beginning)
    ROTTEN = "rotten"        # something in it cannot be read, or is not what was written
    GONE = "gone"            # it was there once, or should be


class Cloud(enum.StrEnum):
    """The cloud's head of this journal, beside ours."""

    EQUAL = "equal"                  # ours, or one that ours follows
    AHEAD = "ahead"                  # records that this box does not have, or others under the same numbers
    UNREACHABLE = "unreachable"      # it has not spoken yet: every boot begins here


class Act(enum.StrEnum):
    SELL = "sell"
    NEW = "sell under a new jid"     # that names the old head
    CASH = "cash only"               # under a new jid that names the old head, until the cloud has spoken
    STOP = "stop"                    # exit 3: a person must look first


# Nothing known is missing: sell.  Rows may be missing: what they promised is unknown, so the old chain is left where it stands,
# and no wallet is asked until the cloud said what it has.  A file lies there that cannot be read, and no copy tells what was in
# it: its open payments would be forgotten by going on.
COLUMNS = (Cloud.EQUAL, Cloud.AHEAD, Cloud.UNREACHABLE)
TABLE: dict[tuple[Store, Store], tuple[Act, Act, Act]] = {
    # journal, second copy             equal     ahead     unreachable
    (Store.WHOLE, Store.WHOLE):       (Act.SELL, Act.NEW, Act.SELL),
    (Store.WHOLE, Store.SHORTER):     (Act.SELL, Act.NEW, Act.SELL),
    (Store.WHOLE, Store.ROTTEN):      (Act.SELL, Act.NEW, Act.SELL),
    (Store.WHOLE, Store.GONE):        (Act.SELL, Act.NEW, Act.SELL),
    (Store.SHORTER, Store.WHOLE):     (Act.SELL, Act.NEW, Act.SELL),
    (Store.SHORTER, Store.SHORTER):   (Act.NEW, Act.NEW, Act.CASH),
    (Store.SHORTER, Store.ROTTEN):    (Act.NEW, Act.NEW, Act.CASH),
    (Store.SHORTER, Store.GONE):      (Act.NEW, Act.NEW, Act.CASH),
    (Store.ROTTEN, Store.WHOLE):      (Act.SELL, Act.NEW, Act.SELL),
    (Store.ROTTEN, Store.SHORTER):    (Act.NEW, Act.NEW, Act.CASH),
    (Store.ROTTEN, Store.ROTTEN):     (Act.STOP, Act.STOP, Act.STOP),
    (Store.ROTTEN, Store.GONE):       (Act.STOP, Act.STOP, Act.STOP),
    (Store.GONE, Store.WHOLE):        (Act.SELL, Act.NEW, Act.SELL),
    (Store.GONE, Store.SHORTER):      (Act.NEW, Act.NEW, Act.CASH),
    (Store.GONE, Store.ROTTEN):       (Act.NEW, Act.NEW, Act.CASH),
    (Store.GONE, Store.GONE):         (Act.NEW, Act.NEW, Act.CASH),
}


def act(journal: Store, copy: Store, cloud: Cloud = Cloud.UNREACHABLE) -> Act:
    """What the box does in this cell."""
    return TABLE[journal, copy][COLUMNS.index(cloud)]
