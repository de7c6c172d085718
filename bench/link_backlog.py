"""A journal with a backlog, for benches: rows of the real format, records really chained and really signed, written fast.

A young till makes its own sales; their rows are the pattern. Each further record stands in a row of its own between copies of
the rows that a sale makes around it, and the books are said again behind them, so that the till goes on from there.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.till import EPOCH, GOODS, Till
from device.drivers.signer.file import FileSigner
from device.store_forward.token import b64, digest, seal, signing_input
from device.txn import facts
from device.txn.books import Books
from device.txn.facts import BooksStood, Entry, RecordSigned
from device.txn.numbers import order_number
from device.types import Stamp

AT = Stamp("b1", 1_000_000, EPOCH.isoformat(timespec="milliseconds"), "ntp")


def made(folder: Path, records: int, *, signed: int | None = None, around: bool = True) -> dict[str, str]:
    """A journal in `folder` that ends at record `records`; its public key.  Records above `signed` share one signature that holds
    for none, without `around` a record's row stands alone.
    """
    folder.mkdir()
    till = Till(folder)
    till.qr_sale()
    till.cash_sale()
    signer, books, last = till.signer, till.box.books, till.journal.last
    till.close()
    db = sqlite3.connect(folder / "journal.db", isolation_level=None)
    db.execute("PRAGMA synchronous = OFF")
    kept = [row for (row,) in db.execute("SELECT facts FROM journal ORDER BY n DESC LIMIT 8") if b"RecordSigned" not in row][:6]
    db.execute("BEGIN")
    db.executemany("INSERT INTO journal VALUES (?, ?, ?)", _rows(last, books, signer, records, kept if around else [],
                                                                         records if signed is None else signed))
    end = db.execute("SELECT max(n) FROM journal").fetchone()[0] + 1
    db.execute("INSERT INTO journal VALUES (?, ?, ?)", (end, books.chain.seq, facts.encode(Entry(AT, (BooksStood(books),)))))
    db.execute("UPDATE meta SET value = ? WHERE key = 'fold_from'", (str(end),))
    db.execute("DELETE FROM meta WHERE key = 'copy'")
    db.execute("COMMIT")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    db.close()
    shutil.rmtree(folder / "second")                     # the next start lays it anew from the restating row, as after a repair
    return signer.jwk


def _rows(n: int, books: Books, signer: FileSigner, records: int, around: list[bytes],
          signed: int) -> Iterator[tuple[int, int, bytes]]:
    """Rows behind row `n`, up to record `records`; the books' chain moves along."""
    chain = books.chain
    signature = b"\1" * 64
    for seq in range(chain.seq + 1, records + 1):
        total = {"sales_fen": chain.sales_fen + 750, "refunds_fen": chain.refunds_fen, "count": chain.count + 1}
        payload = msgspec.json.encode({
            "v": 1, "box": chain.box, "jid": chain.jid, "seq": seq, "prev": chain.prev, "at": AT.wall, "clk": "ntp", "boot": "b1",
            "mono_ms": 100_000 + seq * 400, "kind": "sale", "sum": total, "body": _body(order_number("000001", "BENC", seq), seq)})
        signing = signing_input(signer.kid, payload)
        token = seal(signing, signer.signature(signing)) if seq <= signed else f"{signing.decode()}.{b64(signature)}"
        for row in around:
            n += 1
            yield n, seq - 1, row
        n += 1
        yield n, seq, facts.encode(Entry(AT, (RecordSigned(seq, digest(token), token),)))
        chain.seq, chain.prev = seq, digest(token)
        chain.sales_fen, chain.count = chain.sales_fen + 750, chain.count + 1


def _body(no: str, seq: int) -> dict[str, object]:
    lines = [{"gtin": g.item.gtin, "name": g.item.name_zh, "qty_milli": 1000, "price_fen": g.item.price_fen,
              "amount_fen": g.item.price_fen} for g in GOODS]
    tender = {"method": "wechat", "amount_fen": 750, "order_no": no, "channel_no": f"4200{seq:021d}",
              "account": "wechat:1900000001"}
    return {"order_no": no, "amount_fen": 750, "cashier": "01", "lines": lines, "tenders": [tender]}
