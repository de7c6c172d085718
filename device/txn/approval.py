"""A supervisor's yes: a badge that is scanned, then a PIN that is typed.  Offline, from hashes in the terms.

Three wrong PINs end the question, and a record says so; five in a row shut the badge until its PIN is another, and a boot forgets
none of them.  Badge and PIN stand in no fact, sentence or record.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

from device.txn import record
from device.txn.books import Books
from device.txn.desk import Desk, Verdict, refuse
from device.txn.facts import PinRight, PinWrong
from device.txn.words import say
from device.types import Stamp, Supervisor, Terms

PIN_ROUNDS = 20_000          # about 10 ms: a PIN has few digits, and the hash only keeps it out of sight
TRIES_MAX = 3                # in one question
WRONG_MAX = 5                # since the last right one, in the journal: four digits are ten thousand PINs
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


def locked(b: Books, known: Supervisor) -> bool:
    """Whether the badge is shut: too many wrong PINs were tried against this very one."""
    tries = b.pins.get(known.name)
    return tries is not None and tries.wrong >= WRONG_MAX and tries.salt == known.pin.partition("$")[0]


def badge_scanned(b: Books, d: Desk, symbol: str) -> Verdict:
    known = supervisor_of(d.terms, symbol)
    if known is None:
        return refuse("badge_unknown")
    if locked(b, known):
        return refuse("pin_locked", name=known.name)
    return Verdict(words=say("pin_type", name=known.name), tone="wait", desk={"mode": "pin", "supervisor": known.name, "typed": ""})


def pin_entered(b: Books, d: Desk, at: Stamp, go: Callable[[Books, Desk, int, str, Stamp], Verdict]) -> Verdict:
    """The question's end: `go` with the amount and the supervisor's name, or a refusal."""
    known = next((s for s in d.terms.supervisors if s.name == d.supervisor), None)
    if known is None or locked(b, known):
        return Verdict(words=say("pin_locked", name=d.supervisor) if known else say("badge_unknown"), tone="bad", refused=True,
                       desk=OVER | {"typed": ""})
    salt = known.pin.partition("$")[0]
    if hmac.compare_digest(known.pin, pin_hash(d.typed, salt)):
        verdict = go(b, d, d.back_fen, known.name, at)
        verdict.desk |= OVER | {"typed": ""}
        if known.name in b.pins:
            verdict.facts = [PinRight(known.name), *verdict.facts]
        return verdict
    wrong = PinWrong(known.name, salt)
    before = b.pins.get(known.name)
    last = before is not None and before.salt == salt and before.wrong + 1 >= WRONG_MAX
    if d.tries + 1 < TRIES_MAX and not last:
        return Verdict([wrong], say("pin_wrong"), "bad", refused=True, desk={"typed": "", "tries": d.tries + 1})
    alert = record.due("payment_alert", cause="approval_refused", by=d.supervisor, amount_fen=d.back_fen,
                       **({"locked": True} if last else {}))
    return Verdict([wrong, alert], say("pin_locked", name=known.name) if last else say("pin_over"), "bad",
                   desk=OVER | {"typed": ""})
