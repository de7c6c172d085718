"""No record that falls due is too long to be signed: a full basket, a long day and many parts are shortened, and add up."""

from __future__ import annotations

import json

import pytest

from device.drivers.signer.file import FileSigner
from device.store_forward.es256 import public_verifier
from device.store_forward.token import TOKEN_BYTES_MAX, parse
from device.store_forward.verify import verify
from device.txn import record
from device.txn.books import Books, Due
from device.txn.keys import LINES_MAX
from device.types import Found, Item, Stamp
from tests.store_forward.test_signer_gap import Till

LONG = "脉动青柠味维生素饮料600ml整箱装促销特惠"


@pytest.fixture
def till(tmp_path) -> Till:
    return Till(FileSigner(tmp_path / "record.key"))


def filled(till: Till, lines: int, name: str, price_fen: int = 4_999) -> None:
    for n in range(lines):
        till.scan(Found(Item(f"6{n:013d}", name, name, price_fen)))


@pytest.mark.parametrize("name", [LONG, "茶", '"' * 40])
@pytest.mark.parametrize("lines", [40, 75, LINES_MAX])
def test_a_full_basket_is_signed_and_adds_up(till, lines, name):
    filled(till, lines, name)
    till.press("CASH")
    assert not till.box.books.due and not till.box.books.basket.lines and till.whole()
    token = till.tokens()[-1]
    body = json.loads(bytes(parse(token).payload.body))
    assert len(body["lines"]) == lines and body["lines"][-1]["gtin"] == f"6{lines - 1:013d}" and len(token) <= TOKEN_BYTES_MAX
    assert body.get("shortened", False) == (body["lines"][0]["name"] != name)


def test_the_line_that_is_one_too_many_is_refused_before_anybody_pays(till):
    filled(till, LINES_MAX + 1, LONG, 1)
    assert len(till.box.books.basket.lines) == LINES_MAX and "100" in till.box.desk.words[0]


def test_a_full_basket_that_waited_for_a_broken_signer_is_signed_too(till):
    till.breaks()
    filled(till, LINES_MAX, LONG)
    till.press("CASH")
    till.comes_back()
    assert till.said()[-1] == ("sale", True) and till.whole()


def test_a_sale_in_very_many_parts_keeps_its_tenders_and_sums_its_lines(till):
    filled(till, LINES_MAX, LONG)
    for _ in range(60):
        till.press("100 CASH")
    till.press("CASH")
    body = json.loads(bytes(parse(till.tokens()[-1]).payload.body))
    assert len(body["tenders"]) == 61 and [line["name"] for line in body["lines"]] == [f"{LINES_MAX} lines"] and till.whole()


def test_a_long_days_report_tells_of_its_channels_by_the_day():
    rows = [{"channel": channel, "way": way, "hour": hour, "attempts": 10, "paid": 8 - hour % 2, "ms": 5_000 + hour, "late": 1,
             "failed": {"cashier": 1, "timeout": 1}} for channel in ("alipay", "gateway", "unionpay", "wechat")
            for way in ("code", "qr") for hour in range(24)]
    told = json.loads(record.short("z_report", json.dumps({"no": 7, "sales_fen": 9, "channels": rows}).encode()))
    assert len(told["channels"]) == 8 and told["shortened"] and told["sales_fen"] == 9
    first = told["channels"][0]
    assert 5_000 <= first.pop("ms") <= 5_024
    assert first == {"channel": "alipay", "way": "code", "attempts": 240, "paid": 180, "late": 24,
                     "failed": {"cashier": 24, "timeout": 24}}


@pytest.mark.parametrize("body", [{"amount_fen": 5, "parts": [{"order_no": "0" * 20, "n": n} for n in range(900)]},
                                  {"why": "x" * 40_000, "also": "y" * 40_000, "amount_fen": 5}])
def test_any_other_record_loses_its_longest_part(tmp_path, body):
    signer, books = FileSigner(tmp_path / "k"), Books()
    books.chain.box, books.chain.jid, books.chain.prev = "b" * 32, "A" * 22, "A" * 43
    books.chain.seq = books.chain.sales_fen = books.chain.count = books.chain.refunds_fen = 2**53 - 2
    at = Stamp("b" * 64, 2**53 - 1, "2026-09-01T10:00:00.000+08:00", "anchored")
    token = signer.sign(record.payload(books, Due("z" * 40, json.dumps(body).encode(), at, late=True)))
    kept = json.loads(bytes(parse(token).payload.body))
    assert kept["shortened"] and kept["late"] and kept["amount_fen"] == 5
    assert any("left_out" in str(value) for value in kept.values())


def test_the_longest_body_that_is_not_shortened_makes_a_legal_token(tmp_path):
    signer, books = FileSigner(tmp_path / "k"), Books()
    books.chain.box, books.chain.jid, books.chain.prev = "b" * 32, "A" * 22, "A" * 43
    books.chain.seq = books.chain.sales_fen = books.chain.count = books.chain.refunds_fen = 2**53 - 2
    at = Stamp("b" * 64, 2**53 - 1, "2026-09-01T10:00:00.000+08:00", "anchored")
    due = Due("z" * 40, b'{"w":"' + b"x" * (record.BODY_BYTES_MAX - 8) + b'"}', at, late=True)
    token = signer.sign(record.payload(books, due))
    assert len(due.body) == record.BODY_BYTES_MAX and len(token) <= TOKEN_BYTES_MAX
    assert [d.name for d in verify([token], {signer.kid: public_verifier(signer.jwk)}, (2**53 - 2, "A" * 43))] == []
