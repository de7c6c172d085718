"""Four tellings of the same money, and the program and the line that the counter keeps."""

from __future__ import annotations

import base64
import json
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from device.ask import DaemonAway, ask
from device.drivers.channels.codec_bytes import BillRow
from sim.counter.kept import Kept
from sim.counter.line import Line
from sim.counter.sums import channel_fen, cloud_sums, is_copy, order_no_of, paper_fen, summary

NO, OTHER, BACK = "0000014PYZ0000000114", "0000014PYZ0000000225", "0000014PYZ0000000336"
SALE = f"街角便利店\n合计 / Total     ￥9.00\n微信 / WeChat  ￥9.00\n单号 / No. {NO}\n"
REFUND = f"退款凭证 / Refund slip\n退款 / Refund    ￥2.50\n退款号 / Refund no. {BACK}\n单号 / No. {NO}\n"
REPORT = "X 报表 / X report\n销售 / Sales  2  ￥11.00\n退款 / Refunds  1  -￥2.50\n累计 / Grand total  ￥8.50\n"


def token(kind: str, **body: object) -> str:
    payload = json.dumps({"kind": kind, "body": body}).encode()
    return f"h.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}.s"


TOKENS = [
    token("boot"),
    token("sale", amount_fen=900, tenders=[{"method": "wechat", "amount_fen": 900}]),
    token("sale", amount_fen=200, tenders=[{"method": "cash", "amount_fen": 200}]),
    token("refund", amount_fen=250, method="wechat"),
]
ORDERS = [{"captured_fen": 900, "refunded_fen": 250}]
JOURNAL = {"sales_fen": 1100, "refunds_fen": 250, "count": 3, "wallet_fen": 650}
PAPERS = [SALE, SALE.replace("9.00", "2.00").replace(NO, OTHER), REFUND, REPORT]


def test_all_four_agree_when_they_do():
    told = summary({}, JOURNAL, TOKENS, True, ORDERS, PAPERS)
    assert told["agree"] is True
    assert (told["sales"], told["channel_fen"], told["journal_fen"], told["cloud_fen"], told["paper_fen"]) == (
        2, 650, 850, 850, 850)
    assert told["journal_fen"] == told["channel_fen"] + told["cash_fen"]


def row(kind: str, no: str, fen: int, refund_no: str = "") -> BillRow:
    return BillRow(kind, no, fen, "2026-11-18T10:00:00+08:00", refund_no=refund_no)


PAID = token("sale", amount_fen=900, tenders=[{"method": "wechat", "amount_fen": 900, "order_no": NO}])
GIVEN = token("refund", amount_fen=250, method="wechat", order_no=OTHER, paid_no=NO, refund_no=BACK)
BILL = [row("paid", NO, 900), row("refund", NO, 250, BACK)]
LATE = [row("paid", OTHER, 700), row("refund", OTHER, 700)]      # late money that went back: no sale, no refund


@pytest.mark.parametrize(("bill", "differ", "equal"), [
    (BILL, 0, True), ([*BILL, *LATE], 0, True), ([row("paid", NO, 900), row("refund", "", 250, BACK)], 0, True),
    (BILL[:1], 1, False), ([*BILL, LATE[0]], 1, False), ([row("paid", OTHER, 900), row("refund", NO, 250, BACK)], 2, False),
    ([], 1, False), (None, 0, True),
])
def test_a_channels_own_bill_is_set_against_the_books_payment_by_payment(bill, differ, equal):
    orders = [{"channel": "wechat", "captured_fen": 900, "refunded_fen": 250}]
    books = {"sales_fen": 900, "refunds_fen": 250, "count": 2, "wallet_fen": 650}
    told = summary({}, books, [PAID, GIVEN], True, orders, [SALE, REFUND], {"wechat": bill})
    assert (told["bill_differences"], told["agree"]) == (differ, equal)
    assert told["bills_fen"] == (650 if equal else sum(r.amount_fen if r.kind == "paid" else -r.amount_fen for r in bill))


@pytest.mark.parametrize("change", [
    {"journal": JOURNAL | {"sales_fen": 1101}}, {"journal": JOURNAL | {"wallet_fen": 649}}, {"tokens": TOKENS[:-1]},
    {"journal": JOURNAL | {"count": 4}}, {"verified": False}, {"orders": []}, {"papers": PAPERS[1:]},
    {"papers": [*PAPERS, SALE]}, {"state": {"orders": [{"phase": "awaiting"}]}},
    {"state": {"refunds": [{"refund_no": BACK}]}},
])
def test_any_difference_is_told(change):
    given = {"state": {}, "journal": JOURNAL, "tokens": TOKENS, "verified": True, "orders": ORDERS, "papers": PAPERS}
    assert summary(**(given | change))["agree"] is False


def test_a_copy_counts_only_where_the_original_is_torn():
    copy, torn = "*** 副本 COPY 1 ***\n" + SALE, "街角便利店\n维他柠檬茶"
    assert is_copy(copy) and not is_copy(SALE) and order_no_of(SALE) == NO
    assert paper_fen([SALE, copy]) == 900
    assert paper_fen([torn, copy, copy]) == 900
    assert paper_fen(["*** 培训 TRAINING ***\n" + SALE]) == 0


def test_a_closed_tombstone_is_not_undecided():
    state = {"orders": [{"phase": "closed"}, {"phase": "cancelling"}], "refunds": []}
    assert summary(state, JOURNAL, TOKENS, True, ORDERS, PAPERS)["undecided"] == 1
    assert channel_fen([{"captured_fen": 5, "refunded_fen": 5}]) == 0


def test_a_token_that_is_none_is_refused():
    with pytest.raises(ValueError, match="three parts"):
        cloud_sums(["not.a-token"])


def reached(what, limit_s: float = 5.0) -> bool:
    until = time.monotonic() + limit_s
    while not what() and time.monotonic() < until:
        threading.Event().wait(0.01)
    return bool(what())


def test_a_kept_program_is_started_again_and_a_cut_ends(tmp_path: Path):
    kept = Kept([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path / "log")
    kept.start()
    try:
        first = kept.pid
        kept.cut(0.2)
        assert kept.pid is None and not kept.powered
        assert reached(lambda: kept.pid is not None) and kept.pid != first and kept.starts == 2
        kept.stop()
        assert kept.pid is None and not kept.powered
        kept.start()
        assert kept.pid is not None and kept.starts == 3
    finally:
        kept.close()
    assert kept.pid is None


def test_a_cut_line_ends_connections_and_a_joined_one_passes_again():
    with socket.create_server(("127.0.0.1", 0)) as far:
        line = Line(far.getsockname()[1])
        try:
            box = socket.create_connection(("127.0.0.1", line.port), timeout=5)
            end, _ = far.accept()
            box.sendall(b"up")
            assert end.recv(2) == b"up"
            line.cut()
            assert box.recv(1) == b"" and end.recv(1) == b""
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", line.port), timeout=1)
            line.join()
            again = socket.create_connection(("127.0.0.1", line.port), timeout=5)
            end_again, _ = far.accept()
            end_again.sendall(b"ack")
            assert again.recv(3) == b"ack"
            for one in (box, end, again, end_again):
                one.close()
        finally:
            line.cut()


def test_a_daemon_that_is_not_there_is_said_to_be_away(tmp_path: Path):
    with pytest.raises(DaemonAway):
        ask(tmp_path / "daemon.sock", "state")
