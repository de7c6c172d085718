"""The story of one payment: every step with its time, nothing secret, and what most likely went wrong."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading

import pytest

from bench.till import QR, Till
from device.timeline import Asked, Story, main, shown, told
from device.timeline_words import Step, cause
from device.txn.inputs import ChannelSaid, Pressed, Printed, PrintUnsure, QrReady, Said
from device.types import Stamp
from tests import ROOT


@pytest.fixture
def till(tmp_path):
    made = Till(tmp_path)
    made.cash_sale()
    yield made
    made.journal.close()


def paying(till: Till) -> str:
    till._scan()
    till.tell(Pressed("PAY"))
    return till.box.books.basket.order_no


def story(till: Till, no: str, **more) -> Story:
    till.journal.sync()
    found = told(till.journal, no, **more)
    assert found is not None and QR not in str(found)
    return found


def whats(one: Story) -> list[str]:
    return [step.what for step in one.steps]


def test_a_sale_is_told_from_its_first_scan_to_its_record_with_the_time_of_each_step(till):
    till.cash_sale()
    no = paying(till)
    till.tell(QrReady(no, QR))
    till.tell(ChannelSaid(no, Said.PAID, 750, "4200001"))
    till.cash_sale()
    asked = [Asked(no, "QueryOrder", "channel:wechat", till.mono_ms - n, 120, "open") for n in (1500, 1000, 500)]
    one = story(till, no, asked=asked, now=till._stamp(), acked=(till.box.books.chain.jid, 99))
    assert whats(one)[:4] == ["scan", "scan", "intent", "qr"] and whats(one)[-1] == "acked"
    assert {"paid", "sale", "paper_due", "paper_started", "paper", "record_due", "record", "asked"} <= set(whats(one))
    assert whats(one).count("scan") == 2 and whats(one).count("sale") == 1, "not the sales beside it"
    assert [s.after_s for s in one.steps] == sorted(s.after_s for s in one.steps) and one.steps[0].after_s == 0
    told_of = next(s.en for s in one.steps if s.what == "asked")
    assert told_of == "wechat was asked (QueryOrder) and said open after 0.1 s (3 times the same)"
    assert (one.cause, one.acked) == ("nothing went wrong", True)


@pytest.mark.parametrize("words, cause", [
    (lambda no: [ChannelSaid(no, Said.REFUSED, detail="the shop may not take payments")], "gave no QR|not paid"),
    (lambda no: [QrReady(no, QR), Pressed("CANCEL"), ChannelSaid(no, Said.CLOSED)], "not paid: the cashier cancelled"),
    (lambda no: [QrReady(no, QR)], "not paid yet"),
    (lambda no: [], "gave no QR"),
    (lambda no: [QrReady(no, QR), ChannelSaid(no, Said.PAID, 751, "4200001")], "another amount")])
def test_what_went_wrong_is_said_in_a_sentence(till, words, cause):
    no = paying(till)
    for event in words(no):
        till.tell(event)
    one = story(till, no)
    assert re.search(cause, one.cause), (one.cause, whats(one))
    assert one.cause_zh and whats(one)[0] == "scan"


@pytest.mark.parametrize("whats, likely", [
    ("intent paid sale held", "held at 3"),
    ("intent paid sale refund refund_stuck", "refund_stuck at 4: act at the channel's own page"),
    ("intent paid sale refund refund_stuck refunded", "nothing went wrong"),
    ("intent paid sale refund refund_failed", "refund_failed at 4: the money did not go back"),
    ("intent paid sale refund refund_failed refunded", "nothing went wrong"),
    ("intent paid late refund refunded", "the customer paid after the till had given up, and the money went back"),
    ("intent paid late", "the customer paid after the till had given up; the money is not given back yet"),
    ("intent paid paid_undoing refund", "the customer paid after the till had given up; the money is on its way back"),
    ("intent qr parked", "undecided: the channel has not said whether it was paid; it is asked on"),
    ("intent charge overdue", "undecided: the channel has not said whether it was paid; it is asked on"),
    ("intent paid sale paper_due", "the receipt waits for the printer"),
    ("intent paid sale paper_due paper record_due", "the record waits for the signer"),
    ("intent paid sale record_due record", "nothing went wrong"),
    ("intent - - - - - - - - - - qr paid sale", "the channel took 11 s to give a QR"),
    ("intent - - - - - - - - - qr paid sale", "nothing went wrong"),
    ("intent paid paper_due - - - - - - - - - - - paper", "the receipt came 12 s late")])
def test_the_likely_cause_is_the_worst_that_the_steps_tell(whats, likely):
    steps = [Step("", float(at), what, f"{what} at {at}", "") for at, what in enumerate(whats.split()) if what != "-"]
    assert cause(steps, acked=None)[0] == likely
    if likely == "nothing went wrong":
        assert cause(steps, acked=False) == ("the record waits for the cloud", "记录等待上传")


def test_a_receipt_that_may_not_have_come_out_and_a_record_that_waits_for_the_cloud(till, monkeypatch):
    no = paying(till)
    till.tell(QrReady(no, QR))
    monkeypatch.setattr("bench.till.Printed", lambda job, proof: PrintUnsure(job, "the cable was pulled"))
    till.tell(ChannelSaid(no, Said.PAID, 750, "4200001"))
    assert "may not have come out (the cable was pulled)" in story(till, no).cause
    monkeypatch.setattr("bench.till.Printed", Printed)
    one = story(till, no, acked=(till.box.books.chain.jid, 1))
    assert one.acked is False and whats(one)[-1] == "unacked"


def test_a_piece_of_a_number_is_no_number(till):
    """Box number, cashier and amounts stand in every row, and a number begins like its neighbour."""
    no = paying(till)
    till.tell(Pressed("CANCEL"))
    assert told(till.journal, no) is not None
    for piece in (no[:6], no[:-1], no[1:], "1", "07", "", no + "0"):
        assert told(till.journal, piece) is None, piece


def test_words_of_others_reach_the_terminal_written_out():
    step = Step("2026-11-24T10:00:00.000+08:00", 0.0, "asked", "wechat said \x1b[2Jdone", "\x9b2J", 1)
    story_ = Story("X", (step,), None, "a\x07", "b\u202e")
    told_ = "".join([*shown(story_), *shown(story_, "zh")])
    assert not set("\x1b\x9b\x07\u202e") & set(told_) and "\\x1b[2Jdone" in told_


def test_a_number_that_nobody_knows_and_a_file_that_is_none(till, tmp_path, capsys):
    till.journal.sync()
    assert told(till.journal, "0000010000ZZZZZZZZZZ") is None
    assert main([str(tmp_path / "nowhere.db"), "X"]) == 2 and "is not there" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "box.toml"), "X"]) == 2 and "cannot be read" in capsys.readouterr().err


def test_the_command_reads_a_dead_box_and_asks_a_living_one(tmp_path, capsys):
    till = Till(tmp_path)
    no = paying(till)
    till.tell(QrReady(no, QR))
    till.tell(ChannelSaid(no, Said.PAID, 750, "4200001"))
    till.close()
    (tmp_path / "record.pem").rename(tmp_path / "record.key")
    config = tmp_path / "box.toml"
    config.write_text(f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nstate_dir = "{tmp_path}"\nrun_dir = "{tmp_path}/run"\n'
                      f'record_key_file = "{tmp_path}/record.key"\n[display]\nkind = "none"\n[printer]\nkind = "none"\n')
    assert main([str(tmp_path / "journal.db"), no]) == 0
    dead = capsys.readouterr().out
    assert "scanned" in dead and "the channel says paid" in dead and dead.splitlines()[-1] == "Most likely: nothing went wrong"
    assert main(["--config", str(config), "--json", no.lower()]) == 0
    asleep = json.loads(capsys.readouterr().out)
    run = subprocess.Popen([sys.executable, "-m", "device", "run", "--config", str(config)], cwd=ROOT, stderr=subprocess.PIPE,
                           text=True)
    try:
        assert run.stderr is not None and any("journal=" in line for line in run.stderr)
        threading.Thread(target=run.stderr.read, daemon=True).start()
        assert main(["--config", str(config), "--json", no]) == 0
        awake = json.loads(capsys.readouterr().out)
        assert main(["--config", str(config), "0000010000ZZZZZZZZZZ"]) == 1
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(timeout=30)
    assert [s["what"] for s in awake["steps"]][:8] == [s["what"] for s in asleep["steps"]][:8]
    assert main(["--config", str(config), "--lang", "zh", no]) == 0 and "多半是" in capsys.readouterr().out


def test_walls_alone_tell_times_across_a_restart(till):
    no = paying(till)
    till.tell(QrReady(no, QR))
    one = story(till, no, asked=[Asked(no, "QueryOrder", "channel:wechat", 1000, 250, "unknown: no answer came")],
                now=Stamp("b9", 5_000, "2026-09-01T09:00:00.000+08:00", "ntp"))
    last = one.steps[-1]
    assert last.what == "asked" and last.at == "2026-09-01T08:59:56.250+08:00" and last.after_s == pytest.approx(3596.25)
    assert "no answer came" in one.cause
