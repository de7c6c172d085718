"""Shouqianba's proofs and odd answers around `shouqianba.py`: MD5 headers in, replies without any signature out."""

from __future__ import annotations

import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable
from typing import Any

from sim.channels.payers import PayersServer
from sim.channels.server import FAULTS, Answer, Ask, Say
from sim.channels.shouqianba import FORMS, Invalid, ShouqianbaRules
from sim.channels.shouqianba_terminals import Terminal, Terminals, fields_of

KEY = b"0123456789abcdef0123456789abcdef"
TERMINAL_CALLS = ("activate", "checkin", "uploadLog")
# A second result that proves nothing, for each call's own; the rules have had their effect.
VAGUE = {"pay": "PAY_FAIL_ERROR", "precreate": "PRECREATE_FAIL_ERROR", "cancel": "CANCEL_ERROR", "revoke": "CANCEL_ERROR",
         "refund": "REFUND_ERROR", "query": "FAIL"}


class ShouqianbaServer(PayersServer):
    """As ChannelServer; `key` is the first terminal's, of the day on which the server is made."""

    faults = {kind: said for kind, said in FAULTS.items() if kind != "unsigned"} | {
        "lying": "effect; the answer says the opposite of the truth, and names another terminal: nothing here is signed",
        "in_progress": "effect; the answer says that the step is still under way",
        "error": "effect; the answer says that nobody knows what became of it",
        "maintenance": "no effect; 500 MAINTENANCE_INPROGRESS",
        "old_key": "no effect; 400 ILLEGAL_SIGN",
    }

    def __init__(self, rules: ShouqianbaRules, *, key: bytes = KEY, now_s: Callable[[], float] = time.time, port: int = 0,
                 tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.first = rules, Terminal(rules.terminal_id, "corner-1", key, "")
        self.terminals = Terminals(now_s, self.first)
        self.first.day = self.terminals.today()

    def activation_code(self, uses: int = 1) -> str:
        """A code for a fresh terminal, as Shouqianba's people hand it out."""
        with self._lock:
            return self.terminals.issue(uses)

    def call_of(self, method: str, path: str, body: bytes) -> str:
        name = path.removeprefix("/upay/v2/").removeprefix("/terminal/")
        right = path in (f"/upay/v2/{name}", f"/terminal/{name}") and (name in FORMS) == path.startswith("/upay")
        return name if method == "POST" and right and name in (*FORMS, *TERMINAL_CALLS) else "other"

    def rules_say(self, ask: Ask) -> Say:
        match = re.fullmatch(r"(\S{1,64}) ([0-9a-f]{32})", ask.headers.get("authorization", ""))
        if ask.call == "other" or match is None or not ask.headers.get("content-type", "").startswith("application/json"):
            return refused("ILLEGAL_SIGN" if match is None else "INVALID_PARAMS", "请求错误")
        if ask.call == "activate":
            if (match[1], match[2]) != (self.terminals.vendor_sn, md5(ask.body + self.terminals.vendor_key)):
                return refused("ILLEGAL_SIGN", "签名错误")
            return self._terminal_says(self.terminals.activate(ask.body))
        terminal = self.terminals.all.get(match[1])
        if terminal is None:
            return refused("TERMINAL_NOT_EXISTS", "不存在这个终端")
        used = next((key for key in self.terminals.keys_of(terminal, ask.call) if md5(ask.body + key) == match[2]), None)
        if used is None:
            return refused("ILLEGAL_SIGN", "签名错误")
        if ask.call == "checkin":
            return self._terminal_says(self.terminals.check_in(terminal, used, ask.body))
        if ask.call == "uploadLog":
            return said({"result_code": "200"})
        if fields_of(ask.body).get("terminal_sn", terminal.sn) != terminal.sn:
            return refused("INVALID_TERMINAL", "终端错误")
        try:
            told = self.rules.answer(ask.call, ask.body)
        except Invalid as why:
            return refused("INVALID_PARAMS", str(why))
        if "data" in told:
            told["data"]["terminal_sn"] = terminal.sn
        return said({"result_code": "200", "biz_response": told})

    def _terminal_says(self, told: dict[str, str] | str) -> Say:
        if isinstance(told, str):
            return refused("INVALID_PARAMS", told)                       # guessed: they document the sentence, not the code
        return said({"result_code": "200", "biz_response": told})

    def _effect(self, ask: Ask, kind: str) -> Say:
        if kind == "maintenance":
            return refused("MAINTENANCE_INPROGRESS", "服务端正在升级维护，稍候5分钟", "500")
        if kind == "old_key":
            return refused("ILLEGAL_SIGN", "签名错误")
        say = super()._effect(ask, kind)
        if kind in ("in_progress", "error") and ask.call in FORMS:
            vague = VAGUE[ask.call] if kind == "error" or ask.call == "query" else VAGUE[ask.call].replace("ERROR", "IN_PROGRESS")
            return said({"result_code": "200", "biz_response": {"result_code": vague, "error_code": "TRADE_TIMEOUT"}})
        return say

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        return Answer(say.status, {"Content-Type": "application/json;charset=utf-8"}, say.body)

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        whole = json.loads(body)
        told = whole.get("biz_response", {})
        data = told.get("data", told)
        if kind == "lying":
            told["result_code"] = {"PAY_SUCCESS": "PAY_FAIL"}.get(told.get("result_code"), told.get("result_code"))
            data |= {"terminal_sn": "9" + data.get("terminal_sn", "")[1:],
                     "order_status": "CREATED" if data.get("order_status") == "PAID" else "PAID"}
        if kind == "wrong_order" and "client_sn" in data:
            data["client_sn"] = "X" + data["client_sn"][1:]
        elif kind == "wrong_order":
            data["terminal_sn"] = "9" + data.get("terminal_sn", "")[1:]
        if kind == "wrong_amount" and "total_amount" in data:
            data["total_amount"] = str(int(data["total_amount"]) + 1)
        elif kind == "wrong_amount":
            data["terminal_key"] = "short"
        return dumped(whole)

    def complaint(self, ask: Ask, kind: str) -> Say:
        return Say(429, b"") if kind == "busy" else refused("UNKNOWN_SYSTEM_ERROR", "未知的系统错误", "500")


def md5(text: bytes) -> str:
    return hashlib.md5(text, usedforsecurity=False).hexdigest()


def refused(error: str, message: str, code: str = "400") -> Say:
    return said({"result_code": code, "error_code": error, "error_message": message})


def said(fields: dict[str, Any]) -> Say:
    return Say(200, dumped(fields))


def dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
