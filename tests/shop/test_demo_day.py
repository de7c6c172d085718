"""Whole days through the real daemon, broker, channel server and collector: the books agree, every wish came true."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jws

from tests import ROOT
from tests.canary import secrets_stayed

DAYS = ROOT / "tests" / "days"
SECONDS_MAX = 300

needs_broker = pytest.mark.skipif(
    not (Path("/usr/sbin/mosquitto").exists() or shutil.which("mosquitto")), reason="Mosquitto is not installed")


def demo(*args: str, stdin: str = "") -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run([sys.executable, "-m", "sim.demo", *args, "--json"], cwd=ROOT, capture_output=True, text=True,
                          timeout=SECONDS_MAX, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@needs_broker
def test_an_ordinary_day_ends_with_books_channel_cloud_and_paper_agreeing():
    status, lines, errors = demo("--day", str(DAYS / "ordinary.toml"))
    assert [line for line in lines[:-1] if not line["ok"]] == [], errors
    assert status == 0 and lines[-1]["agree"] is True and lines[-1]["undecided"] == 0
    assert lines[-1]["sales"] >= 20 and lines[-1]["refunds"] == 2
    assert lines[-1]["journal_fen"] == lines[-1]["cloud_fen"] == lines[-1]["paper_fen"]
    assert lines[-1]["journal_fen"] == lines[-1]["channel_fen"] + lines[-1]["cash_fen"]
    assert lines[-1]["bills_fen"] == lines[-1]["channel_fen"] == lines[-1]["by_channel"]["gateway"]["bill_fen"] > 0


@needs_broker
def test_a_day_of_hardware_sells_on_every_cable_and_the_doctor_names_each_fault():
    status, lines, errors = demo("--day", str(DAYS / "hardware.toml"))
    assert [line for line in lines[:-1] if not line["ok"]] == [], errors
    assert status == 0 and lines[-1]["agree"] is True and lines[-1]["sales"] == 8
    asked = [line for line in lines[:-1] if line["call"] == "GET /doctor"]
    assert len({line["expect"]["value"] for line in asked}) >= 9 and all(line["answer"]["action_zh"] for line in asked)
    story = next(line["answer"] for line in lines[:-1] if line["call"] == "GET /timeline")
    assert {"scan", "sale", "paper_due", "paper_started", "paper", "drawer_due", "drawer", "record"} <= set(story["whats"])


@needs_broker
def test_a_day_of_payment_codes_ends_equal_and_keeps_no_secret_of_it(tmp_path: Path):
    status, lines, errors = demo("--day", str(DAYS / "codes.toml"), "--state", str(tmp_path / "counter"), "--record")
    assert [line for line in lines[:-1] if not line["ok"]] == [], errors
    assert status == 0 and lines[-1]["agree"] is True and (lines[-1]["sales"], lines[-1]["refunds"]) == (6, 1)
    assert len(codes_of(lines)) == 7
    secrets_stayed(tmp_path / "counter", codes_of(lines), errors)


def codes_of(lines: list[dict[str, Any]]) -> list[str]:
    """Every payer's code that a phone showed on that day."""
    return [line["answer"]["code"] for line in lines[:-1] if line["call"] == "POST /phone/code"]


@needs_broker
def test_a_rough_day_loses_nothing_and_tells_nothing_twice():
    status, lines, errors = demo("--day", str(DAYS / "rough.toml"))
    assert [line for line in lines[:-1] if not line["ok"]] == [], errors
    assert status == 0 and lines[-1]["agree"] is True and lines[-1]["sales"] == 10


@needs_broker
def test_a_day_of_every_channel_ends_with_each_ones_own_bill_equal_to_the_books_and_tells_no_secret(tmp_path: Path):
    status, lines, errors = demo("--day", str(DAYS / "channels.toml"), "--state", str(tmp_path / "counter"), "--record")
    assert [line for line in lines[:-1] if not line["ok"]] == [], errors
    told = lines[-1]
    assert status == 0 and told["agree"] is True and (told["sales"], told["refunds"], told["undecided"]) == (17, 9, 0)
    assert (told["bills_fen"], told["bill_differences"]) == (told["channel_fen"], 0)
    assert {name for name, of in told["by_channel"].items() if of["bill_fen"]} == {"gateway", "wechat", "alipay", "unionpay"}
    assert told["by_channel"]["card"] == {"channel_fen": 0, "cloud_fen": 0, "bill_fen": None}
    secrets_stayed(tmp_path / "counter", codes_of(lines), errors)


@needs_broker
def test_a_day_without_a_line_ends_with_every_record_once_in_postgresql_and_proven_by_somebody_else():
    status, lines, errors = demo("--day", str(DAYS / "link.toml"))
    assert [line for line in lines[:-1] if not line["ok"]] == [], errors
    assert status == 0 and lines[-1]["agree"] is True and (lines[-1]["sales"], lines[-1]["refunds"]) == (8, 1)
    held = lines[-2]["answer"]
    keys, chains = jwk.KeySet.import_key_set({"keys": held["keys"]}), defaultdict(list)
    for token in held["tokens"]:
        record = json.loads(jws.deserialize_compact(token, keys, algorithms=["ES256"]).payload)
        chains[record["box"], record["jid"]].append((record, token))
    assert {box for box, _ in chains} == {"box-1", "box-2"}
    for chain in chains.values():
        before = [""] + [token for _, token in chain]
        assert [record["seq"] for record, _ in chain] == list(range(1, len(chain) + 1))
        assert all(record["prev"] == digest(token) for (record, _), token in zip(chain, before, strict=False))
    told = [(record["body"]["version"], record["body"]["state"]) for chain in chains.values() for record, _ in chain
            if record["kind"] == "config"]
    assert told == [(1, "trial"), (1, "active"), (2, "trial"), (2, "rolled_back")]


def digest(token: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode().rstrip("=")


@needs_broker
def test_a_wish_that_does_not_come_true_fails_the_day_and_the_state_goes_on(tmp_path: Path):
    day = tmp_path / "day.toml"
    day.write_text('[[step]]\ncall = "POST /scan"\nbody = {code = "4891028705949"}\n'
                   '[[step]]\ncall = "POST /key"\nbody = {key = "CASH"}\n'
                   'expect = {path = "phase", value = "AWAITING", within_s = 1}\n')
    status, lines, _ = demo("--day", str(day), "--state", str(tmp_path / "state"))
    assert status == 1 and lines[1]["expect"]["held"] is False and lines[1]["expect"]["seen"] == "PAID"
    assert lines[-1]["agree"] is True and lines[-1]["sales"] == 1
    day.write_text('[[step]]\ncall = "GET /receipts"\nexpect = {path = "#", value = 1}\n')
    status, lines, errors = demo("--day", str(day), "--state", str(tmp_path / "state"))
    assert (status, lines[-1]["sales"], lines[-1]["paper_fen"]) == (0, 1, 700), errors


def test_a_day_that_cannot_be_played_is_refused_in_one_sentence(tmp_path: Path):
    day = tmp_path / "day.toml"
    day.write_text('[[step]]\ncall = "POST /fly"\n')
    status, lines, errors = demo("--day", str(day))
    assert (status, lines) == (2, [])
    assert json.loads(errors)["error"] == f"{day}, step 1: There is no call POST /fly."


@contextlib.contextmanager
def serving(state: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo on a free port, and its URL."""
    served = subprocess.Popen([sys.executable, "-m", "sim.demo", "--port", "0", "--state", str(state)], cwd=ROOT,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert served.stdout is not None
        yield served, served.stdout.readline().strip()
    finally:
        if served.poll() is None:
            served.kill()
        served.communicate()


def got(url: str, **body: Any) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode() if body else None), timeout=10) as reply:
        return json.load(reply)


def seen(look: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 15
    while not look():
        assert time.monotonic() < until_s
        time.sleep(0.05)


@needs_broker
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_demo_serves_its_page_and_takes_everything_it_started_with_it(tmp_path: Path, how: signal.Signals):
    with serving(tmp_path) as (served, url):
        box = got(url + "overview.json")["daemon"]["pid"]
        started = children_of(served.pid)
        assert box in started and len(started) == 5      # the box, the broker, the collector, the courier, who watches
        served.send_signal(how)
        assert served.wait(30) == (0 if how is signal.SIGTERM else -how)
        seen(lambda: not any(runs(pid) for pid in started))


@needs_broker
def test_a_demo_that_is_killed_agrees_with_its_channel_when_it_starts_again(tmp_path: Path):
    with serving(tmp_path / "state") as (served, url):
        got(url + "scan", code="4891028705949")
        got(url + "key", key="PAY")
        seen(lambda: got(url + "state")["phase"] == "AWAITING")
        got(url + "phone/scan", wallet="ecny")
        seen(lambda: got(url + "state")["phase"] == "PAID" and got(url + "state")["papers"] == [])
        memory, paper = tmp_path / "state" / "channels" / "gateway.json", tmp_path / "state" / "paper.json"
        seen(lambda: b'"paid"' in memory.read_bytes() and paper.exists() and len(json.loads(paper.read_bytes())) == 1)
        served.kill()
        served.wait(30)
    (tmp_path / "day.toml").write_text('[[step]]\ncall = "GET /channel/orders"\nexpect = {path = "0.state", value = "paid"}\n')
    status, lines, errors = demo("--day", str(tmp_path / "day.toml"), "--state", str(tmp_path / "state"))
    assert (status, lines[-1]["agree"], lines[-1]["channel_fen"]) == (0, True, 700), errors


def children_of(parent: int) -> list[int]:
    return [int(word) for task in Path(f"/proc/{parent}/task").iterdir() for word in (task / "children").read_text().split()]


def runs(pid: int) -> bool:
    """A process that is there and no zombie: nobody may be left to reap one."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
