"""What the box knows only now: typed digits, the question on the screen, health of parts, the line.

Emptying the desk at any moment equals a restart and breaks nothing.
"""

from __future__ import annotations

import msgspec

from device.txn.books import Sale
from device.txn.effects import PlaySound
from device.txn.routing import Outcome
from device.txn.words import say
from device.types import Terms

PRINTS = frozenset({"ok", "paper_low", "wrong_model"})       # words of a printer that prints

KICKS = PRINTS | {"paper_out", "cover_open", "cutter", "hot"}


class Code(msgspec.Struct, frozen=True):
    """A payer's code on its way out.  It lives here for one step, and nothing may print it."""

    order_no: str
    code: str

    def __repr__(self) -> str:
        return f"Code({self.order_no!r}, ...)"


class Billed(msgspec.Struct, frozen=True):
    """What the bill of one day says of one order: what it took and what went back, 0 where it does not name it."""

    order_no: str
    day: str
    paid_fen: int
    back_fen: int
    channel_no: str


class Desk(msgspec.Struct, frozen=True):
    """`mode` is the question that digits and scans answer: "", code, check, refund, pick, badge, pin, reprint, park."""

    terms: Terms = msgspec.field(default_factory=Terms)
    typed: str = ""
    qty: int = 0
    mode: str = ""
    pick: Sale | None = None
    looking: str = ""                          # an order the journal's index is asked for
    words: tuple[str, str] = ("", "")
    tone: str = "plain"
    health: tuple[tuple[str, str], ...] = ()   # (part, word), sorted; a part that is well is not named
    code: Code | None = None
    spent: tuple[str, ...] = ()                # digests of codes that were charged: each goes to one attempt
    part_fen: int = 0                          # the next code pays this much only; 0: all that is due
    extras: tuple[tuple[str, str], ...] = ()   # for the next wallet order: instalments
    outcomes: tuple[Outcome, ...] = ()         # what lately became of attempts, for the choice of a route
    asking: tuple[str, str, int] = ("", "", 0)   # the question about another box's sale: its id, the number, when
    lease: str = ""                            # under which the picked sale may be given back
    back_fen: int = 0                          # a refund that waits for a supervisor
    supervisor: str = ""                       # whose badge was scanned; the PIN comes next
    tries: int = 0                             # PINs that were wrong, one after the other
    billed: tuple[Billed, ...] = ()            # of orders nobody decided: a payment may stand in one of several bills
    config: str = ""                           # digest of a configuration that waits until no customer stands there
    taking: bool = False                       # and that is being taken now
    renew: tuple[str, str, str] = ("", "", "")   # the cloud's verdict, a new journal's name, and why: between two customers
    receipt: tuple[str, str] = ("", "")        # a sale's number, and the token of its receipt, while that is shown and not printed
    up: bool = False
    collector: bool = False

    def well(self, part: str) -> bool:
        """True unless the part said otherwise; a printer low on paper still prints."""
        return all(name != part or word in PRINTS for name, word in self.health)

    def kicks(self) -> bool:
        """True when the printer can open the drawer: change is due also while the roll is being changed."""
        return all(name != "printer" or word in KICKS for name, word in self.health)

    def of_part(self, part: str, word: str) -> dict:
        """What changes on the desk when `part` says `word` of its health."""
        rest = tuple(pair for pair in self.health if pair[0] != part)
        return {"health": rest if word == "ok" else tuple(sorted((*rest, (part, word))))}


class Told(msgspec.Struct, frozen=True):
    """The answer to a command: one sentence, and a word for programs when it was not done."""

    ok: bool
    said: str = ""
    name: str = ""


class Verdict(msgspec.Struct):
    """The answer to one input: facts for the disk, words for the person, what changes on the desk."""

    facts: list = []
    words: tuple[str, str] | None = None
    tone: str = "plain"
    refused: bool = False
    desk: dict = {}
    again: tuple[str, ...] = ()                # orders whose channel is asked now
    sound: PlaySound | None = None             # what is heard of it, once its row is kept
    told: Told | None = None                   # to a command, once its row is kept


def refuse(key: str, /, **values: object) -> Verdict:
    """One clear sentence, and nothing changed but the digits typed so far."""
    return Verdict(words=say(key, **values), tone="bad", refused=True, desk={"typed": ""})


def observe(desk: Desk, verdict: Verdict) -> Desk:
    """The desk after a verdict.  Words stay until other words replace them or `words` is put to ("", "")."""
    changes = dict(verdict.desk)
    if verdict.words is not None:
        changes |= {"words": verdict.words, "tone": verdict.tone}
    return msgspec.structs.replace(desk, **changes) if changes else desk
