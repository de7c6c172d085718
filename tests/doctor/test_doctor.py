"""The doctor: each thing that can be wrong has its finding, a well box has none, and looking changes nothing."""

from __future__ import annotations

import datetime
import json
import os
import re
import socket
import sqlite3
import threading
import time
import unittest.mock
from types import SimpleNamespace

import pytest

from bench.till import Till
from device.doctor import box as doctor_box
from device.doctor import tool as doctor
from device.doctor.codes import CODES, ROOTS, page
from device.doctor.counter import WORDS
from device.doctor.keys import THIEF
from device.doctor.words_zh import ZH
from device.drivers.signer.file import FileSigner
from device.keys.sealed import KINDS
from device.push.store import PushStore, Told
from device.txn.inputs import Pressed
from device.types import Account, Terms
from sim.channels.gateway import GatewayRules
from sim.channels.gateway_server import GatewayServer
from sim.channels.keys import key_pair, platform
from sim.channels.tls import tls_room
from sim.channels.wechat import WechatRules
from sim.channels.wechat_server import WechatServer
from sim.counter import wiring
from sim.counter.boxes import Boxes
from sim.counter.channels import opened
from tests import ROOT
from tests.sealed_box import SealedBox, command

PRICES = "gtin,name_zh,name_en,price_fen,unit,source\n6902538004045,水,Water,200,piece,x\n"


@pytest.fixture(scope="module")
def pairs():
    return key_pair("a"), platform()


@pytest.fixture
def box(tmp_path, pairs, monkeypatch):
    """A box with a sealed WeChat key that sold once, under a clock that is right."""
    monkeypatch.setattr("device.real_clock.clock_quality", lambda: "ntp")
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    (tmp_path / "platform.pem").write_bytes(pairs[1].public.public_pem)
    made = SealedBox(tmp_path, serial_no=pairs[0].serial_no, platform_key_id=pairs[1].key_id)
    assert made.keys("import", "wechat", "private_key", "-", given=pairs[0].private_pem)[0] == 0
    sold = Till(made.state, terms=Terms(accounts=(account(),)))
    sold.qr_sale()
    sold.close()
    (made.state / "record.pem").rename(made.state / "record.key")
    (made.state / "prices.csv").write_text(PRICES)
    return made


def account(mchid="1900000001"):
    return Account("wechat", "main", (("appid", "wx0000000000000001"), ("mchid", mchid)))


def found(box, *more):
    """Exit status, findings by code (the last of each), and the whole report.  A box without a daemon is ill of that alone."""
    more = [word for word in more if word != "--online"] if "--online" in more else [*more, "--offline"]
    status, out, err = command("doctor", "--config", str(box.toml), "--json", *more)
    last = json.loads(out)
    findings = last.pop("findings")
    assert last["code"] in {one["code"] for one in findings if one["action"]} or (last["code"], last["wrong"]) == ("ok", 0)
    assert not err and all(set(one) == {"code", "part", "sentence", "action"} and one["sentence"] for one in findings)
    assert last["wrong"] == sum(bool(one["action"]) for one in findings) and status == bool(last["wrong"])
    rest = [one["code"] for one in findings if one["action"] and one["code"] != "daemon_down"]
    return int(bool(rest)), {one["code"]: one for one in findings}, last


def listing(folder):
    return {file: (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"") for file in folder.rglob("*")}


def test_a_well_box_has_nothing_wrong_and_is_not_touched(box):
    before = listing(box.folder)
    status, said, last = found(box)
    assert status == 0 and set(said) == {"daemon_down", "not_enrolled", "seal_same_card", "copy_same_card", "thief"}
    assert (last["checks"], last["wrong"], last["to_know"]) == (1 + len(doctor.CHECKS), 1, 4)
    assert (last["code"], last["part"], last["sentence_zh"]) == ("daemon_down", "daemon", "收银程序没有运行。")
    assert "1900000001" in said["thief"]["sentence"] and "back to their payers" in said["thief"]["sentence"]
    assert listing(box.folder) == before
    status, out, _ = command("doctor", "--config", str(box.toml), "--offline")
    assert status == 1 and f"{1 + len(doctor.CHECKS)} checks: 1 wrong, 4 to know" in out.splitlines()
    *_, root, action, _zh = out.splitlines()
    assert root.startswith("daemon_down: daemon: The daemon does not run") and "systemctl start" in action


def put(text, *, at):
    def harm(box):
        (box.state / at).write_text(text)
    return harm


def edit(old, new):
    def harm(box):
        assert old in box.toml.read_text()
        box.toml.write_text(box.toml.read_text().replace(old, new))
    return harm


def plain_key(box):
    pem = box.folder / "merchant.pem"
    pem.write_bytes(b"-----BEGIN PRIVATE KEY-----")
    pem.chmod(0o640)
    edit("[channel.wechat]", f'[channel.wechat]\nprivate_key_file = "{pem}"')(box)


def plain_secret(box):
    edit("[channel.wechat]", '[channel.wechat]\nsecret = "192006250b4c09247ec02edce69f6a2d"')(box)
    box.toml.chmod(0o644)


def newer_key(box):
    assert box.keys("import", "wechat", "private_key", "-", "--overlap", "-1", given=key_pair("b").private_pem)[0] == 0


def booted(box, under, *presses):
    """The till once more, with two goods in its basket."""
    (box.state / "record.key").rename(box.state / "record.pem")
    till = Till(box.state, "b2", Terms(accounts=(under,)))
    till._scan()
    for press in presses:
        till.tell(press)
    till.close()
    (box.state / "record.pem").rename(box.state / "record.key")


def open_order(box):
    booted(box, account("1900000007"), Pressed("PAY"))


def another_key(box):
    (box.state / "record.key").unlink()
    FileSigner(box.state / "record.key")


def later_row(box):
    with unittest.mock.patch("bench.till.EPOCH", datetime.datetime.now().astimezone() + datetime.timedelta(days=3)):
        booted(box, account())


def rot(box):
    db = sqlite3.connect(box.state / "journal.db")
    db.execute("UPDATE journal SET facts = '[\"rotten' WHERE n = 2")
    db.commit()
    db.close()


def told_of(word):
    def harm(box):
        store = PushStore(box.state)
        store.state.told = Told(0, 7, "d" * 64, word, "why it is so", ("printer.colums is no key",) if word == "refused" else ())
        store.save()
    return harm


def released(state):
    def harm(box):
        (box.state / "update.json").write_text(json.dumps({"release": "d" * 64, "version": "9.9.9", "state": state, "why": "so"}))
    return harm


HARMS = {
    "update_undone": released("rolled_back"),
    "update_refused": released("refused"),
    "update_runs": released("ready"),
    "update_lost": lambda box: (box.state / "update.json").write_bytes(b"{"),
    "push_refused": told_of("refused"),
    "push_undone": told_of("rolled_back"),
    "push_waits": told_of("deferred"),
    "config_refused": edit("box_no", "box_nr"),
    "config_open": plain_secret,
    "journal_unreadable": rot,
    "journal_new": lambda box: (box.state / "journal.db").rename(box.folder / "away.db"),
    "record_key_gone": lambda box: (box.state / "record.key").unlink(),
    "record_key_unfit": another_key,
    "clock_back": later_row,
    "keypad_gone": edit('[keypad]\nkind = "none"', '[keypad]\nkind = "evdev"\npath = "/dev/till/no-keypad"'),
    "prices_gone": lambda box: (box.state / "prices.csv").unlink(),
    "prices_refused": put("gtin,price\n1,2\n", at="prices.csv"),
    "rules_gone": edit("state_dir", 'rules_file = "/nowhere/rules"\nstate_dir'),
    "broker_plain": edit("[display]", '[mqtt]\nhost = "broker.example.com"\n[display]'),
    "command_key_gone": edit("[display]", 'command_key_file = "gone.jwk"\n[mqtt]\nhost = "127.0.0.1"\n[display]'),
    "ack_key_unfit": edit("[display]", '[mqtt]\nhost = "127.0.0.1"\n[display]'),
    "cloud_file_gone": edit("[display]", '[mqtt]\nhost = "127.0.0.1"\nca_file = "ca.pem"\n[display]'),
    "seal_gone": lambda box: box.seal.unlink(),
    "seal_unfit": lambda box: box.seal.write_bytes(b"short"),
    "sealed_closed": lambda box: box.seal.write_bytes(b"f" * 64),
    "key_before": newer_key,
    "plain_merchant_key": plain_secret,
    "plain_twice": plain_key,
    "key_open": plain_key,
    "channel_unusable": lambda box: (box.folder / "platform.pem").unlink(),
    "account_without_key": open_order,
    "keys_left": edit('mchid = "1900000001"', 'mchid = "1900000002"'),
    "training": edit("box_no", "training = true\nbox_no"),
}


SYMPTOMS = {"config_open", "broker_plain", "key_before", "plain_merchant_key", "seal_gone", "plain_twice", "key_open",
            "command_key_gone", "channel_unusable"}      # something above them is found, too
TO_KNOW = {"update_runs", "journal_new", "training", "keys_left", "push_waits"}


@pytest.mark.parametrize("code", HARMS)
def test_each_thing_that_is_wrong_is_found_and_says_what_to_do(box, code):
    HARMS[code](box)
    before = listing(box.state)
    status, said, last = found(box)
    assert code in said, said
    assert bool(said[code]["action"]) is (code not in TO_KNOW)
    assert status == (code not in {"journal_new", "training", "push_waits", "update_runs"})
    assert last["code"] == code or code in TO_KNOW | SYMPTOMS, last
    assert listing(box.state) == before
    assert "PRIVATE KEY" not in str(said) and "192006250b4c0924" not in str(said)


def test_a_clock_nobody_set_and_a_card_that_fills_are_found(box, monkeypatch):
    monkeypatch.setattr("device.real_clock.clock_quality", lambda: "unset")
    real = os.statvfs
    for free, code in ((1 << 20, "card_full"), (100 << 20, "card_low")):
        card = SimpleNamespace(f_bavail=free, f_frsize=1, f_flag=0)
        monkeypatch.setattr("device.doctor.box.os.statvfs", lambda path, card=card: card)
        status, said, _ = found(box)
        assert status == 1 and {"clock_unset", code} <= set(said)
    monkeypatch.setattr("device.doctor.box.os.statvfs", real)


def test_the_page_is_that_of_the_table_and_the_table_has_every_code_and_no_other():
    assert (ROOT / "docs" / "doctor.md").read_text() == page()
    source = "".join(file.read_text() for file in (ROOT / "device" / "doctor").glob("*.py"))
    made = set(re.findall(r'(?:Finding|found|_held)\(f?"([a-z_{}.]+)"', source)) | set(WORDS.values())
    made |= {f"{head}_{kind}" for head in ("broker", "channel") for kind in ("line", "certificate", "tls")}
    made |= {f"{part}_{word}" for part in ("scanner", "keypad", "display", "device") for word in ("gone", "closed")}
    made |= set(re.findall(r'"(data_[a-z]+)"', (ROOT / "device/appliance/partition.py").read_text()))     # said at boot
    made |= {"ok", *re.findall(r'"(channel_[a-z]+|collector_[a-z]+|part_unwell|printer_[a-z]+)"', source)}
    assert {code for code in made if "{" not in code} - {"ok"} == set(CODES)
    assert set(ZH) == {*CODES, "ok"}
    assert all(zh and bool(do) is bool(CODES[code].action) for code, (zh, do) in ZH.items() if code != "ok")
    assert len(ROOTS) >= 80 and all(row.action for row in ROOTS)


def test_every_key_that_can_be_sealed_has_a_word_for_thieves_and_the_page_has_it():
    page = (ROOT / "docs" / "keys.md").read_text()
    assert set(THIEF) == {(channel, kind) for channel, kinds in KINDS.items() for kind in kinds}
    for (channel, kind), word in THIEF.items():
        assert f"| {channel} | `{kind}` | {word} |" in page


def test_a_certificate_that_ends_soon_is_named(box, monkeypatch):
    room = tls_room()
    (box.state / "box.pem").write_bytes(room.client_pem)
    (box.state / "box.key").write_bytes(b"")
    (box.state / "box.key").chmod(0o644)
    edit("[display]", '[mqtt]\nhost = "127.0.0.1"\ncert_file = "box.pem"\nkey_file = "box.key"\n[display]')(box)
    said = found(box)[1]
    assert "key_open" in said and not {"certificate_over", "certificate_soon"} & set(said)
    monkeypatch.setattr(doctor_box, "EXPIRES_DAYS", 400)
    assert "box.pem" in found(box)[1]["certificate_soon"]["sentence"]
    (box.state / "box.pem").write_bytes(b"no certificate")
    assert "certificate_unfit" in found(box)[1]


@pytest.mark.parametrize("argv, status", [(("--nothing",), 2), (("--config", "/nowhere/box.toml"), 1)])
def test_arguments_and_files_that_do_not_serve(argv, status, capsys):
    assert command("doctor", *argv)[0] == status


# A running daemon

class Daemon:
    """A socket that answers one line to each caller, as the daemon does; silent when `state` is None."""

    def __init__(self, box, state):
        (box.folder / "run").mkdir(exist_ok=True)
        self.path, self.state = box.folder / "run" / "daemon.sock", state
        self.line = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.line.bind(str(self.path))
        self.line.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                caller, _ = self.line.accept()
            except OSError:
                return
            with caller:
                if caller.recv(4096) and self.state is not None:
                    caller.sendall(json.dumps({"ok": True, "state": self.state}).encode() + b"\n")

    def stop(self):
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
        self.thread.join(5)
        self.path.unlink()


@pytest.mark.parametrize("state, code", [
    ({"health": {"printer": "strange", "link": "down", "channel:wechat": "lying"}}, "part_unwell"), (None, "daemon_mute"),
    ({"health": {"printer": "ok"}, "parked": [{}]}, "parked"),
    ({"unacked": 31, "oldest_unacked_s": 90_000, "room_bytes": 1 << 30}, "records_wait")])
def test_a_running_daemon_is_asked_and_its_journal_left_alone(box, state, code):
    (box.state / "journal.db").write_bytes(b"held by the daemon, and none of our business")
    daemon = Daemon(box, state)
    try:
        said = found(box)[1]
    finally:
        daemon.stop()
    assert code in said and not {"journal_unreadable", "daemon_down"} & set(said)
    assert code != "part_unwell" or ("strange" in said[code]["sentence"] and "lying" in said["channel_unproven"]["sentence"])


def test_what_only_the_service_can_open_is_said_and_not_complained_of(box):
    edit(f'seal_key_file = "{box.seal}"\n', "")(box)
    daemon = Daemon(box, {"health": {"printer": "ok"}})
    try:
        status, said, _ = found(box)
    finally:
        daemon.stop()
    assert status == 0 and "sealed_unseen" in said and "channel_unusable" not in said
    assert found(box)[1].keys() >= {"seal_gone", "sealed_closed", "channel_unusable"}


# Over the line

@pytest.fixture
def wechat(pairs):
    server = WechatServer(WechatRules(lambda: time.time_ns() // 1_000_000), merchant_public_pem=pairs[0].public_pem,
                          merchant_serial=pairs[0].serial_no, platform=pairs[1])
    server.start()
    yield server
    server.stop()


def at(box, server):
    edit("http://127.0.0.1:1", server.url)(box)


def test_a_channel_that_knows_us_passes_and_nothing_is_made_there(box, wechat):
    at(box, wechat)
    status, said, last = found(box, "--online")
    assert status == 0 and last["checks"] == 1 + len(doctor.CHECKS) + len(doctor.ONLINE), said
    assert [seen.call for seen in wechat.seen] == ["other", "query"] and wechat.orders() == []


@pytest.mark.parametrize("harm, code", [
    (lambda box, server: edit("http://127.0.0.1:1", "https://no-such-host.invalid")(box), {"channel_name", "dns", "link_cable"}),
    (lambda box, server: None, "channel_line"),
    (lambda box, server: edit("http://127.0.0.1:1", server.url.replace("http:", "https:"))(box), "channel_tls"),
    (lambda box, server: (at(box, server), setattr(server, "now_s", lambda: time.time() - 90)), "clock_off"),
    (lambda box, server: (at(box, server), newer_key(box)), "channel_signature"),
    (lambda box, server: (at(box, server), server.fault("lying", count=None)), "channel_unproven")])
def test_each_step_of_a_payment_line_has_its_finding(box, wechat, harm, code):
    harm(box, wechat)
    status, said, last = found(box, "--online")
    assert status == 1 and last["code"] in ({code} if isinstance(code, str) else code), said


def test_the_gateways_line_is_tested_with_its_terminals_key(box):
    server = GatewayServer(GatewayRules(lambda: time.time_ns() // 1_000_000), secret=b"f" * 64)
    server.start()
    try:
        box.configure("gateway", base_url=server.url, terminal_id="T10001", secret="f" * 64)
        box.toml.chmod(0o600)
        assert found(box, "--online")[0] == 0
        box.configure("gateway", base_url=server.url, terminal_id="T10001", secret="e" * 64)
        assert "channel_signature" in found(box, "--online")[1]
    finally:
        server.stop()


def test_every_channel_of_a_demo_proves_that_it_knows_the_box_and_holds_no_order_of_it_afterwards(tmp_path):
    """Over HTTPS, with sealed keys, each by its own way of saying that it never heard of an order."""
    boxes = Boxes(tmp_path)
    channels = opened(tmp_path, "all")
    for channel in channels.values():
        channel.start()
    try:
        wiring.write_rules(tmp_path, 1)
        wiring.write_box(tmp_path, boxes, run_dir=tmp_path / "run", broker_port=1, printer_port=1, channels=channels)
        said = found(SimpleNamespace(toml=tmp_path / "box.toml"), "--online")[1]
        orders = [order for channel in channels.values() for order in channel.orders()]
    finally:
        for channel in channels.values():
            channel.stop()
    assert not {code for code in said if code.startswith("channel_")} | {"clock_off"} & set(said), said
    assert orders == [] and "broker_line" in said


def test_the_brokers_line_is_greeted_and_left(box):
    with socket.create_server(("127.0.0.1", 0)) as broker:
        port = broker.getsockname()[1]
        edit("[display]", f'[mqtt]\nhost = "127.0.0.1"\nport = {port}\n[display]')(box)
        assert "broker_line" not in found(box, "--online")[1]
        caller, _ = broker.accept()
        with caller:
            assert caller.recv(100) == b""
    assert "broker_line" in found(box, "--online")[1]
    edit('host = "127.0.0.1"', 'host = "no-such-host.invalid"')(box)
    assert {"broker_name", "dns", "link_cable"} & found(box, "--online")[1].keys()
