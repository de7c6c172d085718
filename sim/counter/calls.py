"""Every call of the counter, as a function from method, path and body to an answer.

Knows the shapes of requests and answers and says in one sentence what is wrong with a bad one.  Knows no socket, no
process and no device: the counter behind it is a protocol, so tests hand in a fake.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

T = TypeVar("T")
log = logging.getLogger("counter")

KEYS = (*"0123456789", "00", "ENTER", "CLEAR", "QTY", "VOID", "PAY", "CODE", "CASH", "CHECK", "HOLD", "PARK", "CANCEL",
        "REFUND", "REPRINT", "DRAWER", "X", "Z")
WALLETS = ("wechat", "alipay", "unionpay", "ecny")
OUTCOMES = ("pay", "abandon", "insufficient", "slow")
FAULTS = ("link", "broker", "collector", "channel_slow", "channel_lying", "channel_down", "printer_paper",
          "printer_off", "printer_dies", "printer_low", "printer_cover", "printer_cutter", "printer_hot", "printer_mute",
          "printer_model", "scanner", "keypad", "display", "power_cut", "clock_jump")
KINDS: dict[str, tuple[str, ...]] = {          # of devices, by part: cables and, of a display, a pole's command sets
    "scanner": ("evdev", "serial", "hidraw"), "printer": ("tcp", "serial", "usb", "file"),
    "display": ("file", "cd5220", "epson", "aedex", "adm788", "dsp800", "led8"), "sound": ("file", "wire", "printer", "none")}
CHANNELS = ("wechat", "alipay", "unionpay", "gateway", "card")
BODY_BYTES_MAX = 65_536
CODE_LEN_MAX = 8_192           # twice the longest scan anyone tries; the daemon refuses far earlier, as it should
FAULT_S_MAX = 86_400
CONSOLE_LINE_MAX = 400
JUMP_S_MAX = 20 * 366 * 86_400

PAGE_DIR = Path(__file__).parent
PRODUCTS_CSV = PAGE_DIR.parent / "data" / "products.csv"
PAGE_FILES = {"/": ("page.html", "text/html; charset=utf-8"), "/page.css": ("page.css", "text/css; charset=utf-8"),
              "/page.js": ("page.js", "text/javascript; charset=utf-8")}


class Refusal(Exception):
    """The call is not taken: `sentence` says why, `status` is the 4xx it becomes."""

    def __init__(self, sentence: str, status: int = 400) -> None:
        super().__init__(sentence)
        self.sentence, self.status = sentence, status


class Counter(Protocol):
    """What stands behind the calls.  Every method may raise Refusal; none blocks longer than a few seconds."""

    def scan(self, code: str) -> None: ...
    def key(self, key: str) -> None: ...
    def display_png(self) -> bytes: ...
    def display_json(self) -> dict[str, Any]: ...
    def receipts(self) -> list[dict[str, Any]]: ...
    def receipt(self, n: int, form: str) -> bytes: ...
    def phone_scan(self, wallet: str, qr: str | None, outcome: str) -> dict[str, Any]: ...
    def phone_code(self, wallet: str, outcome: str) -> str: ...
    def card_tap(self, outcome: str) -> dict[str, Any]: ...
    def sound(self) -> bytes: ...
    def fault(self, kind: str, on: bool, channel: str | None, seconds: float | None, jump_s: float = ...) -> dict[str, Any]: ...
    def pass_time(self, seconds: float) -> dict[str, Any]: ...
    def change_box(self) -> dict[str, Any]: ...
    def change_devices(self, kinds: dict[str, str], opening_ticket: bool) -> dict[str, Any]: ...
    def doctor(self) -> dict[str, Any]: ...
    def timeline(self) -> dict[str, Any]: ...
    def push(self, keys: dict[str, Any], payee_change: bool) -> dict[str, Any]: ...
    def command(self, verb: str, args: str) -> dict[str, Any]: ...
    def console_type(self, line: str) -> dict[str, Any]: ...
    def console_code(self) -> dict[str, Any]: ...
    def console(self) -> list[str]: ...
    def fleet(self) -> dict[str, Any]: ...
    def state(self) -> dict[str, Any]: ...
    def cloud_records(self) -> dict[str, Any]: ...
    def channel_orders(self) -> list[dict[str, Any]]: ...
    def overview(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Answer:
    """An HTTP answer without HTTP: `kind` is the content type."""

    status: int
    kind: str
    body: bytes

    def value(self) -> Any:
        """The JSON value of the body; for pictures and paper bytes, their size."""
        return json.loads(self.body) if self.kind.startswith("application/json") else {"bytes": len(self.body)}


class ScanBody(msgspec.Struct, forbid_unknown_fields=True):
    code: str


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    key: str


class PhoneScanBody(msgspec.Struct, forbid_unknown_fields=True):
    wallet: str = "wechat"
    qr: str | None = None          # left out: what the customer display shows
    outcome: str = "pay"


class PhoneCodeBody(msgspec.Struct, forbid_unknown_fields=True):
    wallet: str
    outcome: str = "pay"           # what the payer does when the code is charged


class CardTapBody(msgspec.Struct, forbid_unknown_fields=True):
    outcome: str = "pay"


class FaultBody(msgspec.Struct, forbid_unknown_fields=True):
    kind: str
    on: bool
    channel: str | None = None
    seconds: float | None = None
    jump_s: float | None = None    # of clock_jump: how far ahead of the truth, or behind it


class TimeBody(msgspec.Struct, forbid_unknown_fields=True):
    seconds: float


class BoxBody(msgspec.Struct, forbid_unknown_fields=True):
    pass


class DevicesBody(msgspec.Struct, forbid_unknown_fields=True):
    """Which kind of each device stands there from now on; left out: the one that does."""

    scanner: str = ""
    printer: str = ""
    display: str = ""
    sound: str = ""
    opening_ticket: bool = False


class PushBody(msgspec.Struct, forbid_unknown_fields=True):
    set: dict[str, Any]            # sections and keys as in box.toml
    payee_change: bool = False     # money may go elsewhere than before


class ConsoleBody(msgspec.Struct, forbid_unknown_fields=True):
    line: str


class CmdBody(msgspec.Struct, forbid_unknown_fields=True):
    verb: str
    args: str = ""


def answer(counter: Counter, method: str, path: str, raw: bytes = b"") -> Answer:
    """The answer to one call.  Bad input is a 4xx with one sentence, a mistake of ours a 500; neither raises."""
    try:
        return _route(counter, method, path.partition("?")[0], raw)
    except Refusal as refusal:
        return as_json({"error": refusal.sentence}, refusal.status)
    except Exception as mistake:                     # the page must go on showing the rest; the log has the trace
        log.exception("%s %s", method, path)
        return as_json({"error": f"The counter itself failed: {type(mistake).__name__}: {mistake}."}, 500)


def known(method: str, path: str) -> str | None:
    """None when the call exists, else one sentence saying what is wrong with its name."""
    path = path.partition("?")[0]
    table = {"GET": GETS, "POST": POSTS}.get(method)
    if table is None:
        return f"{method} is not used here: calls are GET or POST."
    if path in table or (method == "GET" and (_RECEIPT.fullmatch(path) or path in PAGE_FILES)):
        return None
    other = "POST" if method == "GET" else "GET"
    if path in (POSTS if method == "GET" else GETS):
        return f"{path} is called with {other}, not {method}."
    return f"There is no call {method} {path[:80]}."


def as_json(value: Any, status: int = 200) -> Answer:
    """`value` as a JSON answer."""
    return Answer(status, "application/json; charset=utf-8", json.dumps(value, ensure_ascii=False).encode())


def products() -> list[dict[str, Any]]:
    """The price list as rows `{gtin, name_zh, name_en, price_fen, unit, source}`; empty when there is none yet."""
    if not PRODUCTS_CSV.exists():
        return []
    rows = csv.DictReader(io.StringIO(PRODUCTS_CSV.read_text("utf-8-sig")))
    return [{**row, "price_fen": int(row["price_fen"])} for row in rows]


def _route(counter: Counter, method: str, path: str, raw: bytes) -> Answer:
    wrong = known(method, path)
    if wrong is not None:
        raise Refusal(wrong, 405 if "called with" in wrong or "not used" in wrong else 404)
    if method == "POST":
        return as_json({"ok": True, **POSTS[path](counter, raw)})
    if path in PAGE_FILES:
        name, kind = PAGE_FILES[path]
        return Answer(200, kind, (PAGE_DIR / name).read_bytes())
    if path == "/sound.wav":
        return Answer(200, "audio/wav", counter.sound())
    if path == "/display.png":
        return Answer(200, "image/png", counter.display_png())
    receipt = _RECEIPT.fullmatch(path)
    if receipt:
        return _receipt(counter, int(receipt[1]), receipt[2])
    return as_json(GETS[path](counter))


_RECEIPT = re.compile(r"/receipts/([0-9]{1,6})\.(bin|png|txt)")
_FORMS = {"bin": "application/octet-stream", "png": "image/png", "txt": "text/plain; charset=utf-8"}


def _receipt(counter: Counter, n: int, form: str) -> Answer:
    return Answer(200, _FORMS[form], counter.receipt(n, form))


def _scan(counter: Counter, raw: bytes) -> dict[str, Any]:
    code = _body(raw, ScanBody).code
    if not code:
        raise Refusal("code is empty: a scanner always reads something.")
    if len(code) > CODE_LEN_MAX:
        raise Refusal(f"code has {len(code)} characters; this scanner reads at most {CODE_LEN_MAX}.")
    counter.scan(code)
    return {}


def _key(counter: Counter, raw: bytes) -> dict[str, Any]:
    key = _body(raw, KeyBody).key
    _one_of("key", key, KEYS)
    counter.key(key)
    return {}


def _phone_scan(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, PhoneScanBody)
    _one_of("wallet", body.wallet, WALLETS)
    _one_of("outcome", body.outcome, OUTCOMES)
    return counter.phone_scan(body.wallet, body.qr or None, body.outcome)


def _phone_code(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, PhoneCodeBody)
    _one_of("wallet", body.wallet, WALLETS)
    _one_of("outcome", body.outcome, OUTCOMES)
    return {"code": counter.phone_code(body.wallet, body.outcome)}


def _card_tap(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw or b"{}", CardTapBody)
    _one_of("outcome", body.outcome, OUTCOMES)
    return counter.card_tap(body.outcome)


def _fault(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, FaultBody)
    _one_of("kind", body.kind, FAULTS)
    if body.channel is not None:
        _one_of("channel", body.channel, CHANNELS)
        if not body.kind.startswith("channel_"):
            raise Refusal(f"channel goes with channel_slow, channel_lying and channel_down, not with {body.kind}.")
    if body.seconds is not None and not 0 < body.seconds <= FAULT_S_MAX:
        raise Refusal(f"seconds must be above 0 and at most {FAULT_S_MAX}.")
    if body.jump_s is None:
        return counter.fault(body.kind, body.on, body.channel, body.seconds)
    if body.kind != "clock_jump" or not abs(body.jump_s) <= JUMP_S_MAX:
        raise Refusal(f"jump_s goes with clock_jump, and is at most {JUMP_S_MAX} either way.")
    return counter.fault(body.kind, body.on, body.channel, body.seconds, body.jump_s)


def _time(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, TimeBody)
    if not 0 < body.seconds <= FAULT_S_MAX:
        raise Refusal(f"seconds must be above 0 and at most {FAULT_S_MAX}.")
    return counter.pass_time(body.seconds)


def _box(counter: Counter, raw: bytes) -> dict[str, Any]:
    _body(raw or b"{}", BoxBody)
    return counter.change_box()


def _devices(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, DevicesBody)
    chosen = {part: kind for part, kind in msgspec.to_builtins(body).items() if part in KINDS and kind}
    for part, kind in chosen.items():
        _one_of(part, kind, KINDS[part])
    return counter.change_devices(chosen, body.opening_ticket)


def _push(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, PushBody)
    return counter.push(body.set, body.payee_change)


def _cmd(counter: Counter, raw: bytes) -> dict[str, Any]:
    body = _body(raw, CmdBody)
    return counter.command(body.verb, body.args)


def _console(counter: Counter, raw: bytes) -> dict[str, Any]:
    line = _body(raw, ConsoleBody).line
    if len(line) > CONSOLE_LINE_MAX or not line.isprintable():
        raise Refusal(f"line is at most {CONSOLE_LINE_MAX} printable characters.")
    return counter.console_type(line)


POSTS: dict[str, Callable[[Counter, bytes], dict[str, Any]]] = {
    "/scan": _scan, "/key": _key, "/phone/scan": _phone_scan, "/phone/code": _phone_code, "/card/tap": _card_tap,
    "/fault": _fault, "/time": _time, "/box": _box, "/devices": _devices, "/push": _push, "/cmd": _cmd,
    "/console": _console, "/console/code": lambda counter, raw: counter.console_code()}
GETS: dict[str, Callable[[Counter], Any]] = {
    "/display.json": lambda c: c.display_json(), "/receipts": lambda c: c.receipts(), "/state": lambda c: c.state(),
    "/cloud/records": lambda c: c.cloud_records(), "/fleet": lambda c: c.fleet(), "/channel/orders": lambda c: c.channel_orders(),
    "/products.json": lambda c: products(), "/overview.json": lambda c: c.overview(),
    "/doctor": lambda c: c.doctor(), "/timeline": lambda c: c.timeline(),
    "/console": lambda c: {"lines": c.console()}, "/display.png": lambda c: None, "/sound.wav": lambda c: None}


def _body(raw: bytes, shape: type[T]) -> T:
    if len(raw) > BODY_BYTES_MAX:
        raise Refusal(f"The body has more than {BODY_BYTES_MAX} bytes.", 413)
    if not raw.strip():
        raise Refusal("The body is empty: send a JSON object.")
    try:
        return msgspec.json.decode(raw, type=shape)
    except msgspec.ValidationError as wrong:
        raise Refusal(f"The body does not fit: {str(wrong).replace('Object', 'the object')}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as wrong:
        raise Refusal(f"The body is not JSON: {wrong}.") from None


def _one_of(what: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        shown = value if len(value) <= 40 else value[:40] + "…"
        raise Refusal(f"Unknown {what} {shown!r}: it is one of {' '.join(allowed)}.")
