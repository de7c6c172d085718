"""A supervisor's yes: a badge that is scanned, then a PIN that is typed.  Offline, from hashes in the terms.

Three wrong PINs end the question, and a record says so.  Badge and PIN stand in no fact, sentence or record.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from device.txn import record
from device.txn.books import Books
from device.txn.desk import Desk, Verdict, refuse
from device.txn.words import say
from device.types import Stamp, Supervisor, Terms

PIN_ROUNDS = 20_000          # about 10 ms: a PIN has few digits, and the hash only keeps it out of sight
TRIES_MAX = 3
OVER = {"mode": "", "pick": None, "back_fen": 0, "supervisor": "", "tries": 0}


def needs_approval(terms: Terms, amount_fen: int) -> bool:
    return bool(terms.approve_refund_fen) and amount_fen > terms.approve_refund_fen


def badge_hash(badge: str) -> str:
    """What the terms hold of a badge: SHA-256 of its code, hex."""
    return hashlib.sha256(badge.strip().encode()).hexdigest()


def pin_hash(pin: str, salt: str) -> str:
    """`salt$hex` of `pin`, digits; `salt` any ASCII text of the fleet's choice."""
    return f"{salt}${hashlib.pbkdf2_hmac('sha256', pin.encode(), salt.encode(), PIN_ROUNDS).hex()}"


def supervisor_of(terms: Terms, symbol: str) -> Supervisor | None:
    """Whose badge `symbol` is, None for what is no badge of this shop."""
    return next((s for s in terms.supervisors if hmac.compare_digest(s.badge, badge_hash(symbol))), None)


def badge_scanned(b: Books, d: Desk, symbol: str) -> Verdict:
    known = supervisor_of(d.terms, symbol)
    if known is None:
        return refuse("badge_unknown")
    return Verdict(words=say("pin_type", name=known.name), tone="wait", desk={"mode": "pin", "supervisor": known.name, "typed": ""})


def pin_entered(b: Books, d: Desk, at: Stamp, go: Callable[[Books, Desk, int, str, Stamp], Verdict]) -> Verdict:
    """The question's end: `go` with the amount and the supervisor's name, or a refusal."""
    known = next((s for s in d.terms.supervisors if s.name == d.supervisor), None)
    salt = known.pin.partition("$")[0] if known is not None else ""
    if known is not None and hmac.compare_digest(known.pin, pin_hash(d.typed, salt)):
        verdict = go(b, d, d.back_fen, known.name, at)
        verdict.desk |= OVER | {"typed": ""}
        return verdict
    if d.tries + 1 < TRIES_MAX:
        return Verdict(words=say("pin_wrong"), tone="bad", refused=True, desk={"typed": "", "tries": d.tries + 1})
    return Verdict([record.due("payment_alert", cause="approval_refused", by=d.supervisor, amount_fen=d.back_fen)],
                   say("pin_over"), "bad", desk=OVER | {"typed": ""})
