"""Shouqianba's terminals: one-use codes that make them, and the key of the day that each of them fetches.

Knows the vendor, codes and keys; a signature is compared by the server.  Source: Shouqianba's open documents, whose question
page says what a lost answer costs.
"""

from __future__ import annotations

import datetime
import json
import random
from collections.abc import Callable
from typing import Any

import msgspec

BEIJING = datetime.timezone(datetime.timedelta(hours=8))
CODE_LIFE_S = 7 * 86_400


class Terminal(msgspec.Struct):
    """`day` is the key's (YYYY-MM-DD, Beijing); `before` the key that a lost answer may be asked for with, once."""

    sn: str
    device_id: str
    key: bytes
    day: str
    before: bytes = b""


class Terminals:
    """`now_s` Unix time.  `overlap`: the key before stays good, as a newer page of theirs says; the older one kills it."""

    def __init__(self, now_s: Callable[[], float], first: Terminal, *, vendor_sn: str = "91800001",
                 vendor_key: bytes = b"d1312asd31123tga123g11d1312asd31", app_id: str = "2026000000000001", seed: int = 0) -> None:
        self.vendor_sn, self.vendor_key, self.app_id, self.overlap = vendor_sn, vendor_key, app_id, False
        self._now_s, self._random = now_s, random.Random(seed)
        self.all = {first.sn: first}
        self._codes: dict[str, tuple[float, int]] = {}         # until when, and how often

    def issue(self, uses: int = 1) -> str:
        """A fresh activation code of eight digits."""
        code = f"{self._random.randrange(10 ** 8):08d}"
        self._codes[code] = self._now_s() + CODE_LIFE_S, uses
        return code

    def activate(self, body: bytes) -> dict[str, str] | str:
        """terminal_sn and terminal_key, or the error's sentence."""
        asked = fields_of(body)
        until_s, uses = self._codes.get(asked.get("code", ""), (0.0, 0))
        if asked.get("app_id") != self.app_id or not 0 < len(asked.get("device_id", "")) <= 128 or not until_s:
            return "参数错误"
        if self._now_s() >= until_s:
            return "激活码已过期"
        if not uses:
            return "激活码已经被使用"
        if any(terminal.device_id == asked["device_id"] for terminal in self.all.values()):
            return "设备号重复"
        self._codes[asked["code"]] = until_s, uses - 1
        terminal = Terminal(f"1000123400{len(self.all) + 1:05d}", asked["device_id"], self._fresh(), self.today())
        self.all[terminal.sn] = terminal
        return {"terminal_sn": terminal.sn, "terminal_key": terminal.key.decode()}

    def keys_of(self, terminal: Terminal, call: str) -> list[bytes]:
        """Keys that may sign `call` now: a check-in by the newest of any day, or once more by the one before."""
        if call == "checkin":
            return [key for key in (terminal.key, terminal.before) if key]
        good = [terminal.key] if terminal.day == self.today() else []
        return good + ([terminal.before] if good and self.overlap and terminal.before else [])

    def check_in(self, terminal: Terminal, used: bytes, body: bytes) -> dict[str, str] | str:
        """The key of the day.  A second lost answer leaves the terminal without any key: call support."""
        if fields_of(body).get("device_id") != terminal.device_id:
            return "终端错误"
        again = used == terminal.before
        terminal.before, terminal.key, terminal.day = b"" if again else terminal.key, self._fresh(), self.today()
        return {"terminal_sn": terminal.sn, "terminal_key": terminal.key.decode()}

    def today(self) -> str:
        return datetime.datetime.fromtimestamp(self._now_s(), BEIJING).date().isoformat()

    def _fresh(self) -> bytes:
        return f"{self._random.randrange(16 ** 32):032x}".encode()


def fields_of(body: bytes) -> dict[str, str]:
    try:
        asked: Any = json.loads(body)
    except ValueError:
        return {}
    return {name: value for name, value in asked.items() if isinstance(value, str)} if isinstance(asked, dict) else {}
