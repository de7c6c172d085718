"""Bodies of signed records and the payload that the signer gets.  Only what a third party may read: no payment code, no payer."""

from __future__ import annotations

import msgspec

from device.txn.books import Books, Due, Sale, Tender
from device.txn.facts import RecordDue


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
               paid_no: str = "", lease: str = "") -> RecordDue:
    """`order_no` the sale's number, `paid_no` that of the order whose money goes back: a sale may have several."""
    more = {"approved_by": approved_by, "paid_no": paid_no, "lease": lease}
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
    text = msgspec.json.encode(head)
    return text[:-1] + b',"body":' + (late(record.body) if record.late else record.body) + b"}"


def late(body: bytes) -> bytes:
    """The body of a record that waited while the signer was broken."""
    return body[:-1] + (b'"late":true}' if body == b"{}" else b',"late":true}')
