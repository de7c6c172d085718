"""Alipay over HTTP on this machine: the rules with the real RSA2 proofs on both sides.

Knows where parameters stand, signatures, certificates and the bill's link.  Refuses to know what a trade is: that is `alipay.py`;
lines and faults are `server.py`'s.  It listens on the loopback only and holds throw-away keys.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import functools
import io
import json
import re
import ssl
import time
import zipfile
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from sim.channels import alipay_bill, server
from sim.channels.alipay import BEIJING, AlipayRules, Biz, failed, fen, ok, yuan
from sim.channels.alipay_keys import Authority, Signer
from sim.channels.keys import KeyPair
from sim.channels.payers import PayersServer
from sim.channels.server import Answer, Ask, Say

CALLS = {"alipay.trade.precreate": "create", "alipay.trade.pay": "pay", "alipay.trade.query": "query",
         "alipay.trade.cancel": "cancel", "alipay.trade.close": "close", "alipay.trade.refund": "refund",
         "alipay.trade.fastpay.refund.query": "refund_query", "alipay.data.dataservice.bill.downloadurl.query": "bill",
         "alipay.open.app.alipaycert.download": "certificate"}
LINK_S = 30                            # a bill's link lives so long
FAULTS = server.FAULTS | {
    "braces": "effect; a good answer with braces, quotes and escaped slashes in its strings",
    "unavailable": "effect; code 20000, as when Alipay's own inside is out of order",
    "paying": "effect; a charge is answered 10003, whatever became of it",
    "retry_flag": "no effect; a cancel is answered retry_flag=Y",
    "no_action": "no effect; a cancel is answered without an action",
    "unmoved": "no effect; a refund is answered 10000 with fund_change=N",
    "beaten": "effect; the payer pays just before a close or a cancel arrives",
    "error_unsigned": "no effect; error_response without a signature: the appid is not known",
    "stamp_old": "no effect; error_response without a signature: the timestamp is not valid",
    "rotated": "effect; signed with a new certificate of Alipay's (with a key nobody holds, where there are no certificates)",
    "foreign_root": "effect; signed with a certificate of Alipay's name under a strange root, which comes along",
    "merchant_signed": "effect; signed with a merchant's certificate, which has the same root",
    "hidden": "effect; signed with a certificate that is not to be had",
    "bill_soon": "the bill is not ready, or there is none: one word for both",
    "bill_missing": "the bill lacks its last row",
    "bill_extra": "the bill has a row of nobody",
    "bill_altered": "the bill has one fen more ordered in its first row",
    "bill_torn": "the bill's file is cut off",
    "bill_other_day": "the bill's file is of the day before",
    "bill_expired": "the bill's link is over when it is followed",
    "bill_elsewhere": "the bill's link leads to a stranger",
}


class AlipayServer(PayersServer):
    """As ChannelServer.  `app_public_pem` is what requests must be signed with.

    `platform` is Alipay's key in public-key mode; with an `authority` certificates count instead.  `app_auth_token`: a partner's
    app, whose every call must carry it.  `window_s`: how far a timestamp may be off, None where nobody looks (none is known).
    """

    faults = FAULTS

    def __init__(self, rules: AlipayRules, *, app_public_pem: bytes, platform: KeyPair, authority: Authority | None = None,
                 app_auth_token: str = "", now_s: Callable[[], float] = time.time, port: int = 0,
                 tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.authority, self.app_auth_token = rules, authority, app_auth_token
        self.window_s: float | None = None
        self.empty_bill = "file"                       # a day without trade: `file`, `word` (EMPTY_DATA...) or `no_data`
        self._app: Any = load_pem_public_key(app_public_pem)
        self._signer = authority.alipay if authority is not None else Signer(
            load_pem_private_key(platform.private_pem, None, unsafe_skip_rsa_key_validation=True), b"", "")
        self._links: dict[str, tuple[bytes, float]] = {}

    # As ChannelServer wants them.  Between rules and proof a body is the inner object; `note` the member that it stands under.

    def call_of(self, method: str, path: str, body: bytes) -> str:
        """`create pay query cancel close refund refund_query bill bill_file certificate other`."""
        at = urlsplit(path).path
        if method == "GET" and at == "/downloadBillFile.resource":
            return "bill_file"
        return CALLS.get(asked_of(path, body).get("method", ""), "other") if at == "/gateway.do" else "other"

    def rules_say(self, ask: Ask) -> Say:
        if ask.call == "bill_file":
            packed, until_s = self._links.get(dict(parse_qsl(urlsplit(ask.path).query)).get("fileId", ""), (b"", 0.0))
            return Say(200, packed, "file") if self.now_s() < until_s else Say(403, server.PAGE, "file")
        asked = asked_of(ask.path, ask.body)
        fault = self._unproven(asked)
        if fault:
            code = "20001" if "token" in fault else "40001" if "missing" in fault else "40002"
            return said(invalid(fault, code), "")
        if ask.call == "other":
            return said(invalid("isv.invalid-method"), "")
        try:
            biz = json.loads(asked.get("biz_content", "{}"))
        except ValueError:
            biz = None
        if not isinstance(biz, dict):
            return said(invalid("isv.invalid-parameter"), asked["method"])
        if ask.call == "certificate":
            return said(self._certificate(biz), asked["method"])
        return said(self._bill(biz) if ask.call == "bill" else self.rules.answer(asked["method"], biz), asked["method"])

    def _unproven(self, asked: dict[str, str]) -> str:
        """The sub_code of a request that proves nothing; "" for a good one."""
        names = ("app_id", "method", "charset", "sign_type", "sign", "timestamp", "version")
        missing = next((name for name in names if not asked.get(name)), "")
        if missing:
            return f"isv.missing-{missing.replace('_', '-')}"
        if asked["app_id"] != self.rules.app_id:
            return "isv.invalid-app-id"
        text = "&".join(f"{k}={v}" for k, v in sorted(asked.items()) if v and k != "sign")
        try:
            self._app.verify(base64.b64decode(asked["sign"], validate=True), text.encode(), PKCS1v15(), SHA256())
        except (InvalidSignature, binascii.Error):
            return "isv.invalid-signature"
        if (asked["sign_type"], asked["version"]) != ("RSA2", "1.0"):
            return "isv.invalid-signature-type"
        ours = self.authority
        if ours is not None and asked.get("app_cert_sn") != ours.app_sn:
            return "isv.invalid-app-cert-sn"
        if ours is not None and asked.get("alipay_root_cert_sn") != ours.root_sn:
            return "isv.invalid-alipay-root-cert-sn"
        try:
            at = datetime.datetime.strptime(asked["timestamp"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=BEIJING)
        except ValueError:
            return "isv.invalid-timestamp"
        if self.window_s is not None and abs(at.timestamp() - self.now_s()) > self.window_s:
            return "isv.invalid-timestamp"
        return "" if asked.get("app_auth_token", "") == self.app_auth_token else "aop.invalid-app-auth-token"

    def _certificate(self, biz: Biz) -> Biz:
        ours = self.authority
        shown = [] if ours is None else [ours.alipay, *(s for kind, s in ours.others.items() if kind != "hidden")]
        found = next((s for s in shown if s.sn == biz.get("alipay_cert_sn")), None)
        if found is None:
            return failed("CERT_NOT_EXIST")
        return ok(alipay_cert_content=base64.b64encode(found.pem).decode())

    def _bill(self, biz: Biz) -> Biz:
        day = str(biz.get("bill_date", ""))
        try:
            is_ready = alipay_bill.ready(day, int(self.now_s() * 1000))
        except ValueError:
            return failed("INVAILID_ARGUMENTS")
        if biz.get("bill_type") != "trade":
            return failed("TYPE_NOT_SUPPORTED")
        if not is_ready:
            return failed("BILL_NOT_EXIST")
        rows = alipay_bill.rows_of(self.rules.trades(), day)
        if not rows and self.empty_bill != "file":
            return failed("NO_BILL_DATA") if self.empty_bill == "no_data" else ok(bill_file_code="EMPTY_DATA_WITH_BILL_FILE")
        token = f"local{len(self._links):08d}"
        self._links[token] = alipay_bill.packed(rows, day, self.rules.pid), self.now_s() + LINK_S
        return ok(bill_download_url=f"{self.url}/downloadBillFile.resource?bizType=trade&fileId={token}")

    def _effect(self, ask: Ask, kind: str) -> Say:
        root = asked_of(ask.path, ask.body).get("method", "")
        no = str(biz_of(ask).get("out_trade_no", ""))
        if kind in ("error_unsigned", "stamp_old"):
            return said(invalid("isv.invalid-app-id" if kind == "error_unsigned" else "isv.invalid-timestamp"), "")
        if kind in ("retry_flag", "no_action") and ask.call == "cancel":
            return said(ok(out_trade_no=no, retry_flag="Y" if kind == "retry_flag" else "N"), root)
        if kind == "unmoved" and ask.call == "refund":
            return said(ok(out_trade_no=no, fund_change="N", refund_fee="0.00"), root)
        if kind == "beaten" and ask.call in ("close", "cancel"):
            self.rules.pay_now(no)
        if kind == "bill_soon" and ask.call == "bill":
            return said(failed("BILL_NOT_EXIST"), root)
        say = super()._effect(ask, kind)
        if kind == "unavailable" and ask.call != "bill_file":
            return said({"code": "20000", "msg": "Service Currently Unavailable", "sub_code": "isp.unknow-error",
                         "sub_msg": "系统繁忙"}, root)
        if kind == "paying" and ask.call == "pay":
            return said({"code": "10003", "msg": "order success pay inprocess", "out_trade_no": no}, root)
        return say

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        if say.note == "file":
            return self._file(say, kind)
        json_type = {"Content-Type": "text/html;charset=utf-8"}
        if say.note is None and kind in ("garbage", "huge") and ask.call != "bill_file":
            say = msgspec.structs.replace(say, note=asked_of(ask.path, ask.body).get("method", ""))
        if say.note is None:
            return Answer(say.status, json_type, say.body)                    # a page
        inner = say.body
        if kind == "bill_elsewhere" and ask.call == "bill":
            inner = inner.replace(self.url.replace("/", "\\/").encode(), b"https:\\/\\/bills.example")
        if kind == "braces" and inner.startswith(b"{"):
            inner = inner[:-1] + rb',"body":"a } b { c \"}{\" https:\/\/x.example\/?a=1","store_name":"\u0022}"}'
        root = f"{say.note.replace('.', '_')}_response" if say.note else "error_response"
        signer = self._signer
        if kind in ("rotated", "foreign_root", "merchant_signed", "hidden"):
            signer = self.authority.others[kind] if self.authority is not None else msgspec.structs.replace(
                signer, key=stranger())
        members = [f'"{root}":'.encode() + inner]
        # Refusals before the call and certificates go unsigned.
        if say.note and ask.call != "certificate" and kind != "unsigned":
            if self.authority is not None:
                members.append(f'"alipay_cert_sn":"{signer.sn}"'.encode())
            text = b"not " + inner if kind == "lying" else inner
            members.append(b'"sign":"' + base64.b64encode(signer.key.sign(text, PKCS1v15(), SHA256())) + b'"')
        return Answer(say.status, json_type, b"{" + b",".join(members) + b"}")

    def _file(self, say: Say, kind: str) -> Answer:
        if kind == "bill_expired":
            return Answer(403, {"Content-Type": "text/html"}, server.PAGE)
        body = spoilt(say.body, kind) if kind.startswith("bill_") and say.status == 200 else say.body
        return Answer(say.status, {"Content-Type": "application/octet-stream"}, body)

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        if ask.call == "bill_file":
            return body
        told = json.loads(body)
        if kind == "lying":
            told["trade_status"] = "WAIT_BUYER_PAY" if told.get("trade_status") == "TRADE_SUCCESS" else "TRADE_SUCCESS"
            told |= {"action": "close", "fund_change": "Y", "code": "10000"}
        if kind == "wrong_order":
            told |= {name: "X" + told[name][1:] for name in ("out_trade_no", "out_request_no") if name in told}
        if kind == "wrong_amount":
            told |= {name: yuan(fen(told[name]) + 1) for name in ("total_amount", "refund_amount", "refund_fee") if name in told}
        return dumped(told)

    def complaint(self, ask: Ask, kind: str) -> Say:
        if ask.call == "bill_file":
            return Say(503, server.PAGE, "file")
        if kind == "busy":
            return said({"code": "40005", "msg": "Call Limited", "sub_code": "isv.app-call-limited", "sub_msg": "调用频次超限"},
                        asked_of(ask.path, ask.body).get("method", ""))
        inner = failed("SYSTEM_ERROR")
        if ask.call == "cancel":
            inner["sub_code"] = "AQC.SYSTEM_ERROR"                            # Alipay's own spelling
        return said(inner, asked_of(ask.path, ask.body).get("method", ""))


def asked_of(path: str, body: bytes) -> dict[str, str]:
    """The parameters of a request, wherever they stand; {} when one stands twice with two values."""
    try:
        pairs = parse_qsl(urlsplit(path).query, keep_blank_values=True) + parse_qsl(body.decode(), keep_blank_values=True)
    except ValueError:
        return {}
    told = dict(pairs)
    return told if all(told[k] == v for k, v in pairs) else {}


def biz_of(ask: Ask) -> Biz:
    try:
        biz = json.loads(asked_of(ask.path, ask.body).get("biz_content", "{}"))
    except ValueError:
        return {}
    return biz if isinstance(biz, dict) else {}


def said(inner: Biz, method: str) -> Say:
    """An inner answer to `method`; "" for a refusal before the call."""
    return Say(200, dumped(inner), method)


def invalid(sub_code: str, code: str = "40002") -> Biz:
    return {"code": code, "msg": "Invalid Arguments", "sub_code": sub_code, "sub_msg": f"无效的参数[{sub_code}]"}


def dumped(inner: Biz) -> bytes:
    """As Alipay writes JSON: no blanks, every slash escaped."""
    return json.dumps(inner, ensure_ascii=False, separators=(",", ":")).replace("/", "\\/").encode()


def spoilt(packed: bytes, kind: str) -> bytes:
    """A bill's file with the fault in it."""
    if kind == "bill_torn":
        return packed[:-60]
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        texts = {info.filename.encode("cp437").decode("gbk"): archive.read(info).decode("gb18030") for info in archive.infolist()}
    name = next(iter(texts))
    lines = texts[name].split("\r\n")
    rows = [n for n, line in enumerate(lines) if line[:1].isdigit()]
    if kind == "bill_other_day":
        lines[2] = lines[2].replace(lines[2][7:18], "2020年01月01日", 1)
    elif kind == "bill_missing" and rows:
        del lines[rows[-1]]
    elif kind == "bill_extra" and rows:
        lines.insert(rows[0], lines[rows[0]].replace(",", ",NOBODY", 1))
    elif kind == "bill_altered" and rows:
        ordered = re.search(r",(\d+\.\d\d),\1,", lines[rows[0]])
        assert ordered is not None
        more = yuan(fen(ordered[1]) + 1)
        lines[rows[0]] = lines[rows[0]].replace(ordered[0], f",{more},{ordered[1]},", 1)
    texts[name] = "\r\n".join(lines)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, text in texts.items():
            archive.writestr(alipay_bill.GbkName(each), text.encode("gb18030"))
    return out.getvalue()


@functools.cache
def stranger() -> Any:
    """A key that nobody holds."""
    return rsa.generate_private_key(65537, 2048)
