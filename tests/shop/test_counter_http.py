"""The counter's calls over real HTTP, against a counter that only remembers: shapes and plain refusals."""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from sim.counter.calls import FAULTS, KEYS, Refusal
from sim.counter.server import CounterServer

PNG = base64.b64decode(
    b"iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


class CounterThatRemembers:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def scan(self, code: str) -> None:
        self.calls.append(("scan", code))

    def key(self, key: str) -> None:
        self.calls.append(("key", key))

    def display_png(self) -> bytes:
        return PNG

    def display_json(self) -> dict[str, Any]:
        return {"phase": "AWAITING", "qr": "weixin://wxpay/bizpayurl?pr=abc"}

    def receipts(self) -> list[dict[str, Any]]:
        return [{"n": 1, "order_no": "A" * 20, "copy": False, "state": "printed"}]

    def receipt(self, n: int, form: str) -> bytes:
        if n != 1:
            raise Refusal(f"There is no receipt {n}.", 404)
        return {"bin": b"\x1b@", "png": PNG, "txt": "合计".encode()}[form]

    def phone_scan(self, wallet: str, qr: str | None, outcome: str) -> dict[str, Any]:
        self.calls.append(("phone", wallet, qr, outcome))
        return {}

    def phone_code(self, wallet: str, outcome: str) -> str:
        return "280000000000000001"

    def card_tap(self, outcome: str) -> dict[str, Any]:
        self.calls.append(("tap", outcome))
        return {"order_no": "A" * 20}

    def sound(self) -> bytes:
        return b"RIFF"

    def fault(self, kind: str, on: bool, channel: str | None, seconds: float | None) -> dict[str, Any]:
        self.calls.append(("fault", kind, on, channel, seconds))
        return {}

    def console_type(self, line: str) -> dict[str, Any]:
        self.calls.append(("console", line))
        return {}

    def console_code(self) -> dict[str, Any]:
        return {"code": "7K3Q 0ZF2"}

    def console(self) -> list[str]:
        return ["box-1> "]

    def state(self) -> dict[str, Any]:
        return {"phase": "IDLE"}

    def cloud_records(self) -> dict[str, Any]:
        return {"keys": [], "tokens": []}

    def channel_orders(self) -> list[dict[str, Any]]:
        return []

    def overview(self) -> dict[str, Any]:
        return {"state": self.state()}


@pytest.fixture
def served() -> Iterator[tuple[CounterThatRemembers, str]]:
    counter = CounterThatRemembers()
    server = CounterServer(counter, port=0)
    yield counter, server.start()
    server.stop()


def asked(
    url: str, path: str, body: Any = None, raw: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    data = raw if raw is not None else None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path.lstrip("/"), data, headers or {})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.status, _value(reply)
    except urllib.error.HTTPError as refused:
        return refused.code, _value(refused)


def _value(reply: Any) -> Any:
    raw = reply.read()
    return json.loads(raw) if reply.headers["Content-Type"].startswith("application/json") else raw


def test_every_key_and_every_fault_reaches_the_counter(served):
    counter, url = served
    for key in KEYS:
        assert asked(url, "/key", {"key": key}) == (200, {"ok": True})
    for kind in FAULTS:
        assert asked(url, "/fault", {"kind": kind, "on": True, "seconds": 2}) == (200, {"ok": True})
    assert [c[1] for c in counter.calls] == [*KEYS, *FAULTS]


def test_a_scan_reaches_the_counter_as_it_was_sent(served):
    counter, url = served
    assert asked(url, "/scan", {"code": "6901234567892"}) == (200, {"ok": True})
    assert asked(url, "/scan", {"code": "é" * 4096}) == (200, {"ok": True})
    assert counter.calls == [("scan", "6901234567892"), ("scan", "é" * 4096)]


def test_a_phone_scan_without_a_qr_means_the_one_shown(served):
    counter, url = served
    asked(url, "/phone/scan", {"wallet": "wechat", "outcome": "slow"})
    asked(url, "/phone/scan", {"wallet": "wechat", "qr": "weixin://x"})
    assert counter.calls == [("phone", "wechat", None, "slow"), ("phone", "wechat", "weixin://x", "pay")]
    assert asked(url, "/phone/code", {"wallet": "alipay"}) == (200, {"ok": True, "code": "280000000000000001"})


def test_a_card_is_tapped_at_the_terminal(served):
    counter, url = served
    assert asked(url, "/card/tap", {}) == (200, {"ok": True, "order_no": "A" * 20})
    asked(url, "/card/tap", {"outcome": "insufficient"})
    assert asked(url, "/card/tap", {"outcome": "steal"})[0] == 400
    assert counter.calls == [("tap", "pay"), ("tap", "insufficient")]


def test_a_technician_types_at_the_console(served):
    counter, url = served
    assert asked(url, "/console", {"line": "print test"}) == (200, {"ok": True})
    assert asked(url, "/console/code", {}) == (200, {"ok": True, "code": "7K3Q 0ZF2"})
    assert asked(url, "/console") == (200, {"lines": ["box-1> "]})
    assert asked(url, "/console", {"line": "\x1b[2J"})[0] == 400 and asked(url, "/console", {"line": "x" * 401})[0] == 400
    assert counter.calls == [("console", "print test")]


def test_what_is_read_has_its_own_type(served):
    _, url = served
    assert asked(url, "/display.png") == (200, PNG)
    assert asked(url, "/sound.wav") == (200, b"RIFF")
    assert asked(url, "/receipts/1.bin") == (200, b"\x1b@")
    assert asked(url, "/receipts/1.txt") == (200, "合计".encode())
    assert asked(url, "/receipts")[1][0]["n"] == 1
    assert asked(url, "/cloud/records") == (200, {"keys": [], "tokens": []})
    assert asked(url, "/channel/orders") == (200, [])
    assert b"page.js" in asked(url, "/")[1]


@pytest.mark.parametrize(
    ("path", "raw", "word"),
    [
        ("/scan", b"{", "not JSON"),
        ("/scan", b"", "empty"),
        ("/scan", b"[]", "does not fit"),
        ("/scan", b"{}", "code"),
        ("/scan", b'{"code": 6901234567892}', "str"),
        ("/scan", b'{"code": ""}', "empty"),
        ("/scan", b'{"code": "1", "x": 1}', "unknown field"),
        ("/scan", b'{"code": "\xff"}', "not JSON"),
        ("/scan", json.dumps({"code": "x" * 8193}).encode(), "8193"),
        ("/key", b'{"key": "pay"}', "Unknown key"),
        ("/key", b'{"key": null}', "does not fit"),
        ("/phone/scan", b'{"wallet": "paypal"}', "Unknown wallet"),
        ("/phone/scan", b'{"wallet": "wechat", "outcome": "steal"}', "Unknown outcome"),
        ("/phone/code", b'{"wallet": "x"}', "Unknown wallet"),
        ("/fault", b'{"kind": "fire", "on": true}', "Unknown kind"),
        ("/fault", b'{"kind": "link"}', "`on`"),
        ("/fault", b'{"kind": "link", "on": "yes"}', "bool"),
        ("/fault", b'{"kind": "link", "on": true, "seconds": -1}', "above 0"),
        ("/fault", b'{"kind": "link", "on": true, "channel": "wechat"}', "channel goes with"),
        ("/fault", b'{"kind": "channel_slow", "on": true, "channel": "bank"}', "Unknown channel"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_and_changes_nothing(served, path, raw, word):
    counter, url = served
    status, answer = asked(url, path, raw=raw)
    assert (status, list(answer)) == (400, ["error"])
    assert word in answer["error"] and answer["error"].endswith(".") and "\n" not in answer["error"]
    assert counter.calls == []


def test_calls_that_do_not_exist_say_so(served):
    _, url = served
    assert asked(url, "/nothing")[0] == 404
    assert asked(url, "/scan")[0] == 405
    assert asked(url, "/state", {})[0] == 405
    assert asked(url, "/receipts/9.png") == (404, {"error": "There is no receipt 9."})
    assert asked(url, "/receipts/1.pdf")[0] == 404


def test_a_body_too_large_and_a_strange_host_are_refused(served):
    counter, url = served
    assert asked(url, "/scan", raw=b" " * 70_000)[0] == 413
    assert asked(url, "/key", {"key": "PAY"}, headers={"Host": "evil.example"})[0] == 403
    assert counter.calls == []


def test_events_carry_the_overview(served):
    _, url = served
    with urllib.request.urlopen(url + "events", timeout=5) as stream:
        assert json.loads(stream.readline().removeprefix(b"data: ")) == {"state": {"phase": "IDLE"}}


def test_the_page_names_every_key_and_fault_and_nothing_from_elsewhere(served):
    _, url = served
    script, page = asked(url, "/page.js")[1].decode(), asked(url, "/")[1].decode()
    assert set(re.findall(r'\["([0-9A-Z]+)", "[^"]*"', script)) >= set(KEYS)
    assert set(FAULTS) <= set(re.findall(r'\["([a-z_]+)", "', script))
    assert not re.findall(r"https?://(?!www\.w3\.org)", script + page + asked(url, "/page.css")[1].decode())
