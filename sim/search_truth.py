"""What a channel holds of one order, as small as it can be and still decide money.  For the search; no clock, no chance.

Each kind of channel is a row of traits (docs/channels.md says where they come from).  `outcomes` lists everything that a call
may do there and say; the first is what an honest channel does when nobody plays tricks.  Bytes, proofs and times are not here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from device.txn.inputs import ChannelSaid, Input, QrReady, RefundSaid, RefundWord, Said


class Kind(msgspec.Struct, frozen=True):
    """One way to pay at one channel.

    `undo`: `closes` an unpaid order and leaves a paid one alone, `moves` a paid one's money back, or only `asks`.  `left` is
    what an undo says of a paid order that it leaves alone.  `back` is what an undone order is called.  `marks`: an undo of a
    number nobody knows kills the number.  `unborn`: no order exists before the payer scans its QR, which stays good until it
    is dead.  `open` and `failed` are the words for an unpaid order and for a failed charge.
    """

    channel: str
    way: str
    undo: str
    left: Said = Said.UNKNOWN
    back: Said = Said.CLOSED
    open: Said = Said.OPEN
    failed: Said = Said.CLOSED
    marks: bool = False
    unborn: bool = False


KINDS = {kind.channel + "." + kind.way: kind for kind in (
    Kind("wechat", "qr", "closes"),
    Kind("unionpay", "qr", "asks", left=Said.PAID, open=Said.UNKNOWN, unborn=True),
    Kind("alipay", "qr", "closes", unborn=True),
    Kind("gateway", "qr", "closes", left=Said.PAID, marks=True),
    Kind("wechat", "code", "moves", left=Said.REFUSED),
    Kind("gateway", "code", "moves", left=Said.REFUSED, back=Said.GIVEN_BACK, marks=True),
    Kind("alipay", "code", "moves", left=Said.REFUSED, back=Said.GIVEN_BACK),
    Kind("unionpay", "code", "asks", left=Said.PAID, open=Said.UNKNOWN),
    Kind("card", "card", "moves", left=Said.PAID, back=Said.GIVEN_BACK, failed=Said.REFUSED),
)}


class Truth(msgspec.Struct, frozen=True):
    """`state`: "" never heard of, shown (a QR without an order), open, paid, closed, dead at birth by its mark.

    `asked` is the intent as the first request of this number brought it.  `late`: a payer inside the wallet may still pay
    once after the close.  `over`: its shelf life is over, nobody can pay it any more.  `never`: the channel will not undo it.
    `tomorrow`: it was paid after midnight, and stands in the second day's bill.
    """

    kind: str
    asked: bytes
    amount_fen: int
    state: str = ""
    late: bool = True
    over: bool = False
    undone: bool = False
    never: bool = False
    tomorrow: bool = False
    refunds: tuple[tuple[str, int, bool], ...] = ()      # number, fen, done
    refused: tuple[str, ...] = ()                        # numbers of refunds that will never be

    @property
    def taken_fen(self) -> int:
        return self.amount_fen if self.state == "paid" else 0

    @property
    def back_fen(self) -> int:
        """What went back, refunds under way included."""
        return self.amount_fen if self.undone else sum(fen for _, fen, _ in self.refunds)


Outcome = tuple[str, Truth, Input | None]      # what happened; the order afterwards; the answer, None when it proves nothing


def outcomes(verb: str, effect: Any, truth: Truth) -> list[Outcome]:
    """What the call of `effect` may do to `truth`: `verb` is place, charge, query, undo, refund or refund query."""
    kind = KINDS[truth.kind]
    no = effect.intent.order_no
    if verb in ("refund", "refund query"):
        return _refunded(verb, effect.intent, truth)
    found = {"place": _placed, "charge": _charged, "query": _asked, "undo": _undone}[verb](kind, truth)
    return [(how, after, _answer(said, no, after, verb)) for how, after, said in found]


def _answer(said: Said | str, no: str, after: Truth, verb: str) -> Input | None:
    if said == "qr":
        return QrReady(no, f"qr:{no}")
    if said is Said.UNKNOWN:
        return None
    assert isinstance(said, Said)
    fen, number = (after.amount_fen, "4200") if said is Said.PAID else (0, "")
    return ChannelSaid(no, said, fen, number, undo=verb == "undo")


Step = tuple[str, Truth, Said | str]


def _to(truth: Truth, **changes: Any) -> Truth:
    return msgspec.structs.replace(truth, **changes)


def _placed(kind: Kind, t: Truth) -> list[Step]:
    if t.state == "killed":
        return [("finds its number dead", t, Said.REFUSED)]
    if t.state in ("paid", "closed") or t.over:
        return [("comes too late", t, Said.UNKNOWN)]
    made = _to(t, state="shown" if kind.unborn else "open") if not t.state else t
    return [("is taken", made, "qr"), ("is refused", t, Said.REFUSED)]


def _charged(kind: Kind, t: Truth) -> list[Step]:
    if t.state == "killed":
        return [("finds its number dead", t, Said.REFUSED)]
    assert not t.state, "a payer was charged twice under one number"
    return [("is refused", _to(t, state="closed", late=False), Said.REFUSED), ("is paid", _to(t, state="paid"), Said.PAID),
            ("asks the payer", _to(t, state="open"), Said.OPEN)]


def _word(kind: Kind, t: Truth) -> Said:
    if t.undone:
        return kind.back
    if t.state == "closed" and not t.late and kind.way != "qr":
        return kind.failed
    return {"": Said.ABSENT, "shown": Said.ABSENT, "open": kind.open, "paid": Said.PAID}.get(t.state, Said.CLOSED)


def _asked(kind: Kind, t: Truth) -> list[Step]:
    return [("is answered", t, _word(kind, t))]


def _undone(kind: Kind, t: Truth) -> list[Step]:
    if kind.undo == "asks":
        return [("only asks", t, _word(kind, t))]
    if not t.state and kind.marks:
        return [("marks the number", _to(t, state="killed"), Said.CLOSED)]
    if t.state == "open":
        return [("closes it", _to(t, state="closed"), Said.CLOSED), ("finds its payer busy", t, kind.open)]
    if t.state == "closed":
        return [("finds it dead", t, Said.CLOSED)]
    if t.state != "paid" or t.undone:
        return [("finds nothing to undo", t, _word(kind, t))]
    if kind.undo == "closes":
        return [("leaves the paid order alone", t, kind.left)]
    if t.never or t.refunds:
        return [("is refused for good", t, kind.left)]
    return [("gives the money back", _to(t, undone=True), kind.back), ("is refused for good", _to(t, never=True), kind.left)]


def _refunded(verb: str, refund: Any, t: Truth) -> list[Outcome]:
    no, fen = refund.refund_no, refund.amount_fen
    known = next((r for r in t.refunds if r[0] == no), None)

    def told(word: RefundWord) -> Input:
        return RefundSaid(no, word, fen)
    if known is not None and known[2]:
        return [("is done already", t, told(RefundWord.DONE))]
    if known is not None:
        done = _to(t, refunds=tuple((n, f, d or n == no) for n, f, d in t.refunds))
        return [("is done", done, told(RefundWord.DONE)), ("is under way", t, told(RefundWord.PROCESSING))]
    if verb == "refund query":
        return [("is not known", t, told(RefundWord.ABSENT))]
    if no in t.refused or t.state != "paid" or t.undone or t.back_fen + fen > t.amount_fen:
        return [("can never be", t, told(RefundWord.REFUSED))]
    return [("is done", _to(t, refunds=(*t.refunds, (no, fen, True))), told(RefundWord.DONE)),
            ("is under way", _to(t, refunds=(*t.refunds, (no, fen, False))), told(RefundWord.PROCESSING)),
            ("is refused", _to(t, refused=(*t.refused, no)), told(RefundWord.REFUSED))]


def by_itself(truth: Truth) -> list[tuple[str, Truth]]:
    """What payers and the channel do unasked."""
    kind = KINDS[truth.kind]
    if truth.over:
        return []
    match truth.state:
        case "shown":
            return [("the payer scans", _to(truth, state="open")), ("the payer pays", _to(truth, state="paid"))]
        case "open":
            ends = [] if kind.undo == "asks" and kind.way == "qr" else [("the channel ends it", _to(truth, state="closed"))]
            return [("the payer pays", _to(truth, state="paid")), *ends]
        case "closed" if truth.late and kind.way == "qr":
            return [("a payer already inside pays late", _to(truth, state="paid", late=False))]
    return []
