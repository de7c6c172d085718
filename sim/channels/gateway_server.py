"""The gateway's proofs and odd answers around `gateway.py`: terminals' signatures in, signed replies out.

Keys are the business of `gateway_terminals.py`.  Source: our own protocol, docs/channels.md.
"""

from __future__ import annotations

import json
import re
import ssl
import time
from collections.abc import Callable

from sim.channels.gateway import GatewayRules, dumped
from sim.channels.gateway_terminals import Terminal, Terminals, mac
from sim.channels.payers import PayersServer
from sim.channels.server import FAULTS, Answer, Ask, Say

WINDOW_S = 300
CALLS = ("place", "charge", "query", "undo", "refund", "refund_query", "bill", "bill_file", "rotate", "activate")


class GatewayServer(PayersServer):
    """As ChannelServer; `secret` is the key of the first terminal, `rules.terminal_id`.  All terminals share the orders."""

    faults = FAULTS | {
        "other_nonce": "effect; the answer is signed over another request's nonce",
        "request_key": "effect; the answer is signed with the key of requests",
        "clock_off": "no effect; 401, as when the clocks are ten minutes apart",
    }

    def __init__(self, rules: GatewayRules, *, secret: bytes, now_s: Callable[[], float] = time.time, port: int = 0,
                 tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.first = rules, Terminal(rules.terminal_id, secret)
        self.terminals = Terminals(now_s, self.first)
        self._signs = secret, rules.terminal_id      # with what the answer under way is signed, and for whom

    def call_of(self, method: str, path: str, body: bytes) -> str:
        name = path.removeprefix("/v1/")
        return name if method == "POST" and name in CALLS else "other"

    def activation_code(self) -> str:
        """A one-use code for a fresh terminal, as the gateway's people hand it out."""
        with self._lock:
            return self.terminals.issue()

    def rules_say(self, ask: Ask) -> Say:
        h = ask.headers
        at, nonce = h.get("tillbox-time", ""), h.get("tillbox-nonce", "")
        given, text = h.get("tillbox-signature", ""), "\n".join([ask.method, ask.path, at, nonce, ""]).encode() + ask.body
        if not re.fullmatch(r"\d{1,12}", at) or not re.fullmatch(r"[!-~]{1,64}", nonce):
            return Say(401, dumped({"result": "unknown_terminal"}))
        if ask.call == "activate":
            return self._activate(h.get("tillbox-code", ""), text, given, ask.body)
        if abs(self.now_s() - int(at)) > WINDOW_S:
            return Say(401, dumped({"result": "unknown_terminal"}))
        terminal = self.terminals.proven(h.get("tillbox-terminal", ""), text, given)
        if terminal is None:
            return Say(401, dumped({"result": "unknown_terminal"}))
        self._signs = terminal.secret, terminal.id
        if ask.call == "rotate":
            try:
                return Say(200, dumped({"key": self.terminals.rotate(terminal, json.loads(ask.body)["key"])}))
            except (KeyError, TypeError, ValueError):
                return Say(400, dumped({"result": "malformed"}))
        if ask.call == "other":
            return Say(404, dumped({"result": "no_such_call"}))
        return Say(*self.rules.answer(ask.call, ask.body))

    def _activate(self, code_id: str, text: bytes, given: str, body: bytes) -> Say:
        code = self.terminals.taken(code_id, text, given)
        if code is None:
            return Say(401, dumped({"result": "unknown_code"}))
        self._signs = code.secret, code_id
        try:
            return Say(200, dumped(self.terminals.activate(code_id, code, json.loads(body)["device"])))
        except (KeyError, TypeError, ValueError):
            return Say(400, dumped({"result": "malformed"}))

    def _effect(self, ask: Ask, kind: str) -> Say:
        self._signs = self.first.secret, self.first.id
        return Say(401, dumped({"result": "unknown_terminal"})) if kind == "clock_off" else super()._effect(ask, kind)

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        headers, nonce = {"Content-Type": "application/json"}, ask.headers.get("tillbox-nonce", "")
        if say.status == 401:
            headers["Tillbox-Nonce"] = nonce
        if say.status != 401 and kind != "unsigned":
            purpose = ("activate " if ask.call == "activate" else "") + ("request" if kind == "request_key" else "reply")
            over = "another" if kind == "other_nonce" else nonce
            text = f"{say.status}\n{over}\n".encode() + (b"not " if kind == "lying" else b"") + say.body
            headers |= {"Tillbox-Nonce": nonce, "Tillbox-Signature": mac(*self._signs, purpose, text)}
        return Answer(say.status, headers, say.body)

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
