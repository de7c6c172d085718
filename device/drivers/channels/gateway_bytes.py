"""Our own gateway's bytes about money: calls built from the intent alone, and what a reply proves.

Pure.  The protocol stands byte by byte in docs/channels.md.  Refuses to know keys and signatures.
"""

from __future__ import annotations

from typing import Any

import msgspec

from device.drivers.channels.codec_bytes import BillRow, OrderFields, RefundFields, Reply, Request, Verdict, lie, plain
from device.drivers.channels.gateway_key_bytes import WALLETS

QR_CHARS_MAX = 512
ORDER_WORDS = {
    "place": ("qr", "refused", "paid", "closed"),
    "charge": ("paid", "open", "refused"),
    "query": ("paid", "open", "absent", "closed", "given_back"),
    "undo": ("closed", "given_back", "paid", "refused"),
}
REFUND_WORDS = {
    "refund": ("done", "processing", "refused", "abnormal"),
    "refund_query": ("done", "processing", "absent", "refused", "abnormal"),
}



class _Said(msgspec.Struct):
    result: str
    order_no: str = ""
    refund_no: str = ""
    amount_fen: int = -1
    channel_no: str = ""
    wallet: str = ""
    qr: str = ""
    detail: str = ""


class _BillHead(msgspec.Struct):
    result: str
    day: str
    rows: int = 0
    paid_fen: int = 0
    refunded_fen: int = 0


class _BillLine(msgspec.Struct):
    kind: str
    order_no: str
    amount_fen: int
    at: str
    channel_no: str = ""
    refund_no: str = ""
    fee_milli_fen: int = 0


_NO_JSON = (msgspec.MsgspecError, ValueError, RecursionError)


def order_call(call: str, intent: OrderFields, code: str = "") -> Request:
    """`place charge query undo` of an order; the same intent gives the same bytes."""
    body: dict[str, Any] = {"order_no": intent.order_no, "amount_fen": intent.amount_fen, "way": intent.way}
    if call in ("place", "charge"):
        body |= {"description": intent.description, "made_at": intent.made_at, "expires_at": intent.expires_at,
                 "extras": dict(intent.extras)}
    if call == "charge":
        body["code"] = code
    return Request("POST", f"/v1/{call}", msgspec.json.encode(body))


def refund_call(call: str, intent: RefundFields) -> Request:
    """`refund` or `refund_query`."""
    body: dict[str, Any] = {"refund_no": intent.refund_no, "order_no": intent.order_no, "amount_fen": intent.amount_fen}
    if call == "refund":
        body |= {"paid_fen": intent.paid_fen, "reason": intent.reason, "made_at": intent.made_at}
    return Request("POST", f"/v1/{call}", msgspec.json.encode(body))


def bill_call(call: str, day: str) -> Request:
    """`bill`, which says whether it is ready, or `bill_file`."""
    return Request("POST", f"/v1/{call}", msgspec.json.encode({"day": day}))


def unproven(reply: Reply, proof_fault: str) -> Verdict | None:
    """The verdict on a reply that is no proven answer; None when its content decides."""
    if reply.status >= 500:
        return Verdict("unknown", detail=f"the gateway answered {reply.status}", health="gone")
    if reply.status == 429:
        return Verdict("unknown", detail="the gateway asks us to slow down", health="slow")
    if reply.status == 401:              # never signed: whom it does not know, it has no key for
        return lie("the gateway does not accept our signature: check terminal_id, secret and the clock")
    if proof_fault:
        return lie(proof_fault)
    return None if reply.status == 200 else Verdict("unknown", detail=f"the gateway answered {reply.status}")


def order_word(call: str, intent: OrderFields, body: bytes) -> Verdict:
    """What a proven reply's `body` to an order's `call` says about `intent`."""
    try:
        said = msgspec.json.decode(body, type=_Said)
    except _NO_JSON:
        return lie("the gateway's reply is not in its own form")
    if said.order_no != intent.order_no:
        return lie("the gateway answered about another order")
    detail = plain(said.detail)
    if said.result == "conflict":
        return Verdict("unknown", detail="the gateway holds this number with other content: ask")
    if said.result not in ORDER_WORDS[call]:
        return Verdict("unknown", detail=detail or "the gateway says a word we do not know here")
    nameless = said.result in ("absent", "closed", "refused") and said.amount_fen == 0      # it never held such an order
    if said.amount_fen != intent.amount_fen and not nameless:
        return lie(f"the gateway holds {said.amount_fen} fen where we asked {intent.amount_fen}")
    if said.result == "qr":
        if not (said.qr.startswith("https://") and said.qr.isascii() and said.qr.isprintable() and len(said.qr) <= QR_CHARS_MAX):
            return lie("the gateway's code is not one a wallet could scan")
        return Verdict("qr", qr=said.qr)
    if said.result in ("paid", "given_back") and said.wallet not in WALLETS:
        return lie("the gateway says paid and names no wallet")
    return Verdict(said.result, amount_fen=said.amount_fen, channel_no=plain(said.channel_no), detail=detail,
                   wallet=said.wallet if said.wallet in WALLETS else "")


def refund_word(call: str, intent: RefundFields, body: bytes) -> Verdict:
    """What a proven reply's `body` to `refund` or `refund_query` says about `intent`."""
    try:
        said = msgspec.json.decode(body, type=_Said)
    except _NO_JSON:
        return lie("the gateway's reply is not in its own form")
    if (said.refund_no, said.order_no) != (intent.refund_no, intent.order_no):
        return lie("the gateway answered about another refund")
    if said.amount_fen != intent.amount_fen:
        return lie(f"the gateway refunds {said.amount_fen} fen where we asked {intent.amount_fen}")
    if said.result not in REFUND_WORDS[call]:
        return Verdict("unknown", detail=plain(said.detail) or "the gateway says a word we do not know here")
    return Verdict(said.result, amount_fen=said.amount_fen, channel_no=plain(said.channel_no), detail=plain(said.detail))


def bill_word(call: str, day: str, body: bytes) -> Verdict:
    """What a proven reply to `bill` or `bill_file` says of `day`: JSON lines, the head with the sums first."""
    try:
        first, *rest = body.split(b"\n")
        head = msgspec.json.decode(first, type=_BillHead)
        lines = [msgspec.json.decode(line, type=_BillLine) for line in rest if line]
    except _NO_JSON:
        return lie("the gateway's bill is not in its own form")
    if head.day != day:
        return lie("the gateway sent the bill of another day")
    if head.result == "none":
        return Verdict("refused", detail="no trade that day")
    if head.result != "ready":
        return Verdict("unknown", detail="the bill is not ready yet")
    if call == "bill":
        return Verdict("follow", follow=bill_call("bill_file", day))
    sums = tuple(sum(line.amount_fen for line in lines if line.kind == kind) for kind in ("paid", "refund"))
    if (len(lines), *sums) != (head.rows, head.paid_fen, head.refunded_fen) or {n.kind for n in lines} - {"paid", "refund"}:
        return lie("the gateway's bill does not add up")
    return Verdict("bill", rows=tuple(BillRow(n.kind, n.order_no, n.amount_fen, n.at, n.channel_no, n.refund_no,
                                              n.fee_milli_fen) for n in lines))
