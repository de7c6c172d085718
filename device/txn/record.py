"""Bodies of signed records and the payload that the signer gets.  Only what a third party may read: no payment code, no payer."""

from __future__ import annotations

from typing import Any

import msgspec

from device.txn.books import Books, Due, Sale, Tender
from device.txn.facts import RecordDue

BODY_BYTES_MAX = 11_500                  # with head, header and signature a token of at most 16 KiB
NAME_CUT = 6                             # characters of a name in a basket that is too long for whole ones


class _Amount(msgspec.Struct):
    amount_fen: int


_amounts = msgspec.json.Decoder(_Amount)


def due(kind: str, **body: object) -> RecordDue:
    return RecordDue(kind, msgspec.json.encode(body).decode())


def sale_due(sale: Sale, **more: object) -> RecordDue:
    return due("sale", order_no=sale.order_no, amount_fen=sale.amount_fen, cashier=sale.cashier,
               lines=[{"gtin": x.gtin, "name": x.name_zh, "qty_milli": x.qty_milli, "price_fen": x.price_fen,
                       "amount_fen": x.amount_fen} for x in sale.lines],
               tenders=[_tender(t) for t in sale.tenders],
               **({"price_lists": sale.price_lists} if sale.price_lists else {}), **more)


def _tender(t: Tender) -> dict[str, object]:
    said: dict[str, object] = {"method": t.method, "amount_fen": t.amount_fen, "order_no": t.order_no, "channel_no": t.channel_no}
    if t.wallet:
        said["wallet"] = t.wallet
    if t.payer:
        said["payer"] = t.payer
    if t.account is not None:                         # what another box needs to give it back
        said |= {"account": t.account.account, **({"way": t.way} if t.way != "qr" else {})}
    if t.instalments:
        said |= {"instalments": t.instalments, "fee_payer": t.fee_payer}
    return said


def refund_due(order_no: str, refund_no: str, amount_fen: int, method: str, cause: str, approved_by: str = "",
               paid_no: str = "", lease: str = "", drawer: str = "") -> RecordDue:
    """`order_no` the sale's number, `paid_no` that of the order whose money goes back: a sale may have several."""
    more = {"approved_by": approved_by, "paid_no": paid_no, "lease": lease, "drawer": drawer}
    return due("refund", order_no=order_no, refund_no=refund_no, amount_fen=amount_fen, method=method, cause=cause,
               **{name: said for name, said in more.items() if said})


def payload(books: Books, record: Due) -> bytes:
    """The payload of the next record in the chain, keys in the order that verifiers pin."""
    chain = books.chain
    amount = _amounts.decode(record.body).amount_fen if record.kind in ("sale", "refund") else 0
    head = {"v": 1, "box": chain.box, "jid": chain.jid, "seq": chain.seq + 1, "prev": chain.prev, "at": record.at.wall,
            "clk": record.at.clk, "boot": record.at.boot, "mono_ms": record.at.mono_ms, "kind": record.kind,
            "sum": {"sales_fen": chain.sales_fen + (amount if record.kind == "sale" else 0),
                    "refunds_fen": chain.refunds_fen + (amount if record.kind == "refund" else 0),
                    "count": chain.count + (record.kind in ("sale", "refund"))}}
    body = record.body if len(record.body) <= BODY_BYTES_MAX else short(record.kind, record.body)
    text = msgspec.json.encode(head)
    return text[:-1] + b',"body":' + (late(body) if record.late else body) + b"}"


def short(kind: str, body: bytes) -> bytes:
    """A body that would make no legal token, shortened until it does: `shortened` says so, and every amount still adds up.

    A sale loses the names of its goods, which their numbers stand for, before it loses lines; a report tells of its channels by the
    day instead of the hour; what else is too long loses its longest parts.
    Without this a full basket would be sold, and never signed.
    """
    told = {**msgspec.json.decode(body), "shortened": True}
    for step in STEPS.get(kind, ()):
        step(told)
        if len(made := msgspec.json.encode(told)) <= BODY_BYTES_MAX:
            return made
    while len(made := msgspec.json.encode(told)) > BODY_BYTES_MAX:
        longest = max(told, key=lambda key: len(msgspec.json.encode(told[key])))
        told[longest] = {"left_out": len(told[longest])}
    return made


def _names_cut(sale: dict[str, Any]) -> None:
    for line in sale["lines"]:
        line["name"] = line["name"][:NAME_CUT]


def _names_gone(sale: dict[str, Any]) -> None:
    for line in sale["lines"]:
        line["name"] = ""


def _lines_summed(sale: dict[str, Any]) -> None:
    sale["lines"] = [{"gtin": "", "name": f"{len(sale['lines'])} lines", "qty_milli": 1000, "price_fen": sale["amount_fen"],
                      "amount_fen": sale["amount_fen"]}]


def late(body: bytes) -> bytes:
    """The body of a record that waited while the signer was broken."""
    return body[:-1] + (b'"late":true}' if body == b"{}" else b',"late":true}')


def _hours_summed(report: dict[str, Any]) -> None:
    days: dict[tuple[str, str], dict[str, Any]] = {}
    for row in report["channels"]:
        day = days.setdefault((row["channel"], row["way"]), {
            "channel": row["channel"], "way": row["way"], "attempts": 0, "paid": 0, "ms": 0, "late": 0, "failed": {}})
        paid = day["paid"] + row["paid"]
        day["ms"] = (day["ms"] * day["paid"] + row["ms"] * row["paid"]) // paid if paid else 0
        day["paid"], day["attempts"], day["late"] = paid, day["attempts"] + row["attempts"], day["late"] + row["late"]
        for cause, count in row["failed"].items():
            day["failed"][cause] = day["failed"].get(cause, 0) + count
    report["channels"] = list(days.values())


STEPS = {"sale": (_names_cut, _names_gone, _lines_summed), "x_report": (_hours_summed,), "z_report": (_hours_summed,)}
