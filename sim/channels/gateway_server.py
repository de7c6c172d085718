"""The gateway's proofs and odd answers around `gateway.py`: terminals' signatures in, signed replies out.

Written from docs/channels.md with its own key derivation, so that a slip in the box's codec does not agree with itself.
"""

from __future__ import annotations

import json
import re
import secrets
import ssl
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.constant_time import bytes_eq
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from sim.channels.gateway import GatewayRules, dumped
from sim.channels.server import FAULTS, Answer, Ask, ChannelServer, Say

WINDOW_S = 300
CALLS = ("place", "charge", "query", "undo", "refund", "refund_query", "bill", "bill_file", "rotate")


class GatewayServer(ChannelServer):
    """As ChannelServer; `secret` is the terminal's key."""

    faults = FAULTS | {
        "other_nonce": "effect; the answer is signed over another request's nonce",
        "request_key": "effect; the answer is signed with the key of requests",
        "clock_off": "no effect; 401, as when the clocks are ten minutes apart",
    }

    def __init__(self, rules: GatewayRules, *, secret: bytes, now_s: Callable[[], float] = time.time, port: int = 0,
                 tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.secret, self.next_secret = rules, secret, b""

    def scan(self, qr: str, outcome: str, *, wallet: str = "wechat", slow_s: float = 30) -> dict[str, Any]:
        with self._lock:
            return self.rules.scan(qr, outcome, wallet=wallet, slow_s=slow_s)

    def code(self, wallet: str = "wechat") -> str:
        with self._lock:
            return self.rules.code(wallet)

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        with self._lock:
            self.rules.code_outcome(code, outcome, slow_s)

    def orders(self) -> list[dict[str, Any]]:
        with self._lock:
            return self.rules.orders()

    def call_of(self, method: str, path: str, body: bytes) -> str:
        name = path.removeprefix("/v1/")
        return name if method == "POST" and name in CALLS else "other"

    def rules_say(self, ask: Ask) -> Say:
        h = ask.headers
        at, nonce = h.get("tillbox-time", ""), h.get("tillbox-nonce", "")
        if (h.get("tillbox-terminal") != self.rules.terminal_id or not re.fullmatch(r"\d{1,12}", at)
                or not re.fullmatch(r"[!-~]{1,64}", nonce) or abs(self.now_s() - int(at)) > WINDOW_S):
            return Say(401, dumped({"result": "unknown_terminal"}))
        text = "\n".join([ask.method, ask.path, at, nonce, ""]).encode() + ask.body
        given = h.get("tillbox-signature", "").encode()
        if self.next_secret and bytes_eq(self._mac("request", text, self.next_secret).encode(), given):
            self.secret, self.next_secret = self.next_secret, b""      # used once: the one before is dead
        if not bytes_eq(self._mac("request", text).encode(), given):
            return Say(401, dumped({"result": "unknown_terminal"}))
        if ask.call == "rotate":
            self.next_secret = self.next_secret or secrets.token_hex(32).encode()
            return Say(200, dumped({"key": self.next_secret.decode()}))
        if ask.call == "other":
            return Say(404, dumped({"result": "no_such_call"}))
        return Say(*self.rules.answer(ask.call, ask.body))

    def _effect(self, ask: Ask, kind: str) -> Say:
        return Say(401, dumped({"result": "unknown_terminal"})) if kind == "clock_off" else super()._effect(ask, kind)

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        headers, nonce = {"Content-Type": "application/json"}, ask.headers.get("tillbox-nonce", "")
        if say.status == 401:
            headers["Tillbox-Nonce"] = nonce
        if say.status != 401 and kind != "unsigned":
            over = "another" if kind == "other_nonce" else nonce
            text = f"{say.status}\n{over}\n".encode() + (b"not " if kind == "lying" else b"") + say.body
            headers |= {"Tillbox-Nonce": nonce,
                        "Tillbox-Signature": self._mac("request" if kind == "request_key" else "reply", text)}
        return Answer(say.status, headers, say.body)

    def _mac(self, direction: str, text: bytes, secret: bytes = b"") -> str:
        key = HKDF(SHA256(), 32, self.rules.terminal_id.encode(), b"tillbox gateway 1 " + direction.encode()).derive(
            secret or self.secret)
        mac = HMAC(key, SHA256())
        mac.update(text)
        return mac.finalize().hex()

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        head, newline, rest = body.partition(b"\n")
        try:
            said = json.loads(head)
        except ValueError:
            return body
        if kind == "lying":
            said["result"] = "open" if said.get("result") == "paid" else "paid"
        if kind == "wrong_order":
            said |= {name: "X" + said[name][1:] for name in ("order_no", "refund_no", "day") if said.get(name)}
        if kind == "wrong_amount":
            said |= {name: said[name] + 1 for name in ("amount_fen", "paid_fen") if name in said}
        return dumped(said) + newline + rest

    def complaint(self, ask: Ask, kind: str) -> Say:
        return Say(429 if kind == "busy" else 500, dumped({"result": "later"}))
