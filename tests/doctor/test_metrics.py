"""The box in numbers, from the books to the command: success, time and causes by channel and hour, and nobody's payment named."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading

from bench.till import Till
from device.txn.figures import figures
from device.txn.inputs import DeviceSaid, QrReady, Rang, Said, Scanned
from tests import ROOT
from tests.counter import TEA, Counter
from tests.txn.test_paying import TERMS, WECHAT_CODE


def busy_morning() -> Counter:
    """A code turned down and then paid by QR; an hour later a slow route, and its money on the other one."""
    counter = Counter(TERMS)
    counter.scan(TEA)
    counter.press("CODE")
    counter.tell(Scanned(WECHAT_CODE))
    counter.say(counter.order_no, Said.REFUSED)
    no = counter.pay()
    counter.mono_ms += 4_000
    counter.say(no, Said.PAID, 500)
    counter.wall = "2026-09-01T11:00:00+08:00"
    counter.scan(TEA)
    counter.press("PAY")
    slow = counter.order_no
    counter.mono_ms += 8_000
    counter.tell(Rang(("slow", slow)))
    counter.say(slow, Said.CLOSED)
    counter.tell(QrReady(counter.order_no, "https://q"))
    counter.say(counter.order_no, Said.PAID, 500)
    return counter


def test_each_channel_and_hour_says_how_often_how_fast_and_why_not():
    counter = busy_morning()
    said = figures(counter.box.books, counter.box.desk, counter.mono_ms)
    rows = {(r["channel"], r["way"], r["hour"]): (r["attempts"], r["paid"], r["ms"], r["failed"]) for r in said["channels"]}
    assert rows == {("wechat", "code", 10): (1, 0, 0, {"refused": 1}), ("wechat", "qr", 10): (1, 1, 4_000, {}),
                    ("wechat", "qr", 11): (1, 0, 0, {"reroute": 1}), ("gateway", "qr", 11): (1, 1, 0, {})}
    assert [(r["channel"], r["attempts"], r["rate"]) for r in said["routes"]] == [("wechat", 2, 0.5), ("gateway", 1, 1.0)]
    counter.press("Z")
    assert figures(counter.box.books, counter.box.desk, counter.mono_ms)["channels"] == []


def test_the_z_report_names_the_hours_in_which_a_channel_failed_and_no_others():
    counter = busy_morning()
    counter.press("Z")
    lines = [f"{part.left} = {part.right}" for part in counter.printed[-1].paper if hasattr(part, "left")]
    assert "  10:00  拒绝/refused 1 = 1 / 2" in lines and "  11:00  换通道/rerouted 1 = 0 / 1" in lines
    assert sum(":00  " in line for line in lines) == 2


def test_what_waits_is_counted_and_nothing_names_a_payment():
    counter = busy_morning()
    counter.tell(DeviceSaid("printer", "paper_out"))
    counter.scan(TEA)
    no = counter.pay()
    counter.press("PARK ENTER")
    said = figures(counter.box.books, counter.box.desk, counter.mono_ms)
    assert (said["parked"], said["undecided"], said["papers_due"], said["health"]) == (1, 1, 1, {"printer": "paper_out"})
    assert no not in json.dumps(said) and WECHAT_CODE not in json.dumps(said)


def test_the_command_asks_the_running_daemon(tmp_path):
    till = Till(tmp_path)
    till.cash_sale()
    till.close()
    (tmp_path / "record.pem").rename(tmp_path / "record.key")
    config = tmp_path / "box.toml"
    config.write_text(f'box = "box-1"\nbox_no = "000001"\ntenant = "t"\nstate_dir = "{tmp_path}"\nrun_dir = "{tmp_path}/run"\n'
                      f'record_key_file = "{tmp_path}/record.key"\n[display]\nkind = "none"\n')
    command = [sys.executable, "-m", "device"]
    asked = [*command, "metrics", "--config", str(config)]
    away = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
    assert away.returncode == 1 and "does not answer" in away.stderr and not away.stdout
    run = subprocess.Popen([*command, "run", "--config", str(config)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        assert run.stderr is not None and any("journal=" in line for line in run.stderr)
        threading.Thread(target=run.stderr.read, daemon=True).start()
        said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True)
        hurried = subprocess.run([*command, "forward", "--config", str(config), "--json"], cwd=ROOT, capture_output=True, text=True)
    finally:
        run.send_signal(signal.SIGTERM)
        run.wait(timeout=30)
    assert said.returncode == 0, said.stderr
    metrics = json.loads(said.stdout)
    assert metrics["sales"] == 1 and metrics["unacked"] >= 1 and metrics["room_bytes"] > 0 and metrics["health"] is not None
    assert hurried.returncode == 0 and "names no broker" in json.loads(hurried.stdout)["forward"]
