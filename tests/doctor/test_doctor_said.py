"""A daemon that lives and says the wrong thing: whatever it says, the doctor's whole tree ends in one sentence and one code."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import socket
import threading
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.till import Till
from device.ask import DaemonAway, ask
from device.doctor import tool as doctor
from device.doctor.codes import CODES
from device.metrics import main as metrics
from device.timeline import main as timeline
from tests.sealed_box import SealedBox

STATE = {
    "phase": "IDLE", "lines": [], "orders": [], "parked": [{"order_no": "X"}], "held": [], "refunds": [], "papers": [],
    "health": {"printer": "gone", "scanner": "ok", "display": "ok", "signer": "ok", "link": "down", "collector": "away",
               "second_copy": "ok", "channel:wechat": "slow", "drawer": "stuck"},
    "whys": {"printer": "no such file", "channel:wechat": "late"}, "link_why": "refused", "software": "0.0.1", "pid": 1,
    "since": 1, "unacked": 31, "oldest_unacked_s": 90_000, "room_bytes": 1 << 30, "notice": "", "training": False}
ODD = [None, True, -1, 0, 1 << 62, 1 << 200, 1.5e308, "", "ok", "\x1b[31m", "\ud800", "字" * 9000, [], [None], {}, {"": None},
       {"health": {}}, json.loads("[" * 40 + "]" * 40)]


class Talker:
    """Whatever is put into `says` is what a caller hears, all callers the same."""

    def __init__(self, path):
        path.parent.mkdir(exist_ok=True)
        self.says, self.line = b"", socket.socket(socket.AF_UNIX)
        self.line.bind(str(path))
        self.line.listen()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def serve(self):
        while True:
            try:
                caller, _ = self.line.accept()
            except OSError:
                return
            with caller, contextlib.suppress(OSError):
                if caller.recv(4096):
                    caller.sendall(self.says)

    def stop(self):
        self.line.shutdown(socket.SHUT_RDWR)
        self.line.close()
        self.thread.join(5)


@pytest.fixture(scope="module")
def broker():
    """Somebody to greet, so that the look at the line is done too."""
    with socket.create_server(("127.0.0.1", 0)) as line:
        yield line.getsockname()[1]


@pytest.fixture(scope="module")
def box(tmp_path_factory, broker):
    made = SealedBox(tmp_path_factory.mktemp("said"))
    sold = Till(made.state)
    sold.cash_sale()
    sold.close()
    made.toml.write_text(made.toml.read_text().partition("[channel.")[0].replace('[display]\nkind = "none"', (
        f'[display]\nkind = "file"\npath = "{made.folder}/screen"')) + f'[mqtt]\nhost = "127.0.0.1"\nport = {broker}\n')
    route = made.folder / "root/proc/net/route"
    route.parent.mkdir(parents=True)
    route.write_text("Iface Destination Gateway Flags RefCnt Use Metric Mask\neth0 00000000 0100000A 0003 0 0 0 00000000\n")
    return made


@pytest.fixture(scope="module")
def daemon(box):
    made = Talker(box.folder / "run" / "daemon.sock")
    yield made
    made.stop()


def places(value, at=()):
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for n, one in enumerate(value):
            yield from places(one, (*at, n))


def put(value, at, new):
    value = copy.deepcopy(value)
    if not at:
        return new
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = new
    return value


def ended(box):
    """The doctor over the whole tree, as a shell sees it: its one line of JSON, which must be one."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = doctor.main(["--config", str(box.toml), "--json", "--root", str(box.folder / "root")])
    assert status == 1 and not err.getvalue()
    report = json.loads(out.getvalue().encode("utf-8"))
    assert report["code"] in CODES and report["sentence"] and report["action"] and len(report["sentence"]) < 800
    assert len(report["findings"]) < 300
    return report


json_values = st.recursive(st.sampled_from(ODD) | st.integers() | st.text(max_size=8),
                           lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
                           max_leaves=6)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.sampled_from(sorted(places({"ok": True, "state": STATE}), key=str)), new=json_values,
       cut=st.none() | st.integers(0, 99))
@example(at=("state", "health"), new=[1], cut=None)
@example(at=("state", "health", "printer"), new={}, cut=None)
@example(at=("state", "whys"), new=None, cut=None)
@example(at=("state", "oldest_unacked_s"), new="long", cut=None)
@example(at=("state", "parked"), new=7, cut=None)
@example(at=("state", "since"), new=[], cut=None)
@example(at=("state", "pid"), new="one", cut=None)
@example(at=("state", "whys", "printer"), new="\ud800", cut=None)
@example(at=("state", "software"), new="9" * 100_000, cut=None)
@example(at=("state", "link_why"), new=["x"], cut=None)
@example(at=("state", "health"), new={f"part{n}": "odd" for n in range(5000)}, cut=None)
def test_whatever_stands_where_in_the_answer_the_tree_ends_in_one_code(box, daemon, at, new, cut):
    said = json.dumps(put({"ok": True, "state": STATE}, at, new)).encode()
    daemon.says = (said[:len(said) * cut // 100] if cut is not None else said) + b"\n"
    ended(box)


def test_a_whole_answer_is_understood(box, daemon):
    daemon.says = json.dumps({"ok": True, "state": STATE}).encode() + b"\n"
    codes = {one["code"] for one in ended(box)["findings"]}
    assert {"printer_gone", "drawer_stuck", "channel_silent", "records_wait", "parked", "update_waits", "broker_refuses"} <= codes
    assert "daemon_mute" not in codes


@pytest.mark.parametrize("raw", [b"", b"\n", b"[" * 200_000 + b"\n", b'{"state": ' + b"9" * 5000 + b"}\n", b"\xff\xfe\n",
                                 b'{"ok":true,"state":{"since":NaN,"health":{}}}\n', b"x" * (1 << 20)])
def test_raw_bytes_that_are_no_answer_are_a_mute_daemon(box, daemon, raw):
    daemon.says = raw
    report = ended(box)
    mute, = (one for one in report["findings"] if one["code"] == "daemon_mute")
    assert "says nothing of use" in mute["sentence"]


@pytest.mark.parametrize("told", [b'{"ok":true,"timeline":[]}', b'{"ok":true,"timeline":{"steps":7}}', b'{"ok":true}', b"{}"])
def test_the_other_tools_say_a_sentence_too(box, daemon, told, capsys):
    daemon.says = told + b"\n"
    with contextlib.suppress(SystemExit):
        assert timeline(["--config", str(box.toml), "000001-1Q4V-0007"]) in (1, 2)
    assert metrics(["--config", str(box.toml)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_an_answer_that_drips_is_over_when_a_silent_one_is(tmp_path):
    ours, theirs = socket.socket(socket.AF_UNIX), tmp_path / "daemon.sock"
    ours.bind(str(theirs))
    ours.listen()
    enough = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            caller, _ = ours.accept()
            with caller:
                while not enough.wait(0.02):
                    caller.sendall(b" ")

    dripping = threading.Thread(target=drip, daemon=True)
    dripping.start()
    began = time.monotonic()
    with pytest.raises(DaemonAway):
        ask(theirs, "state", timeout_s=0.2)
    assert time.monotonic() - began < 2
    enough.set()
    dripping.join(5)
    ours.close()
