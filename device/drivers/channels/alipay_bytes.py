"""Alipay OpenAPI gateway 1.0, the envelope: parameters out, the signed inner bytes of a reply in.

Knows how a call is put together from the frozen intent, what text is signed on either side, and where in a reply the
signed bytes lie.  Refuses to know sockets, clocks and keys, and what a reply proves: that is `alipay_words_bytes.py`.

What makes or moves money (precreate, pay, refund) carries the intent's own time, so a retry is the same bytes; what only
asks or undoes names nothing but its number and carries the time it is sent at.
Source: Alipay open documentation (gateway call, RSA2, face-to-face payment, instalments).
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, urlencode

import msgspec

from device.drivers.channels.codec_bytes import OrderFields, RefundFields, Reply, Request

GATEWAY_PATH = "/gateway.do"
PLACE, PAY, QUERY = "alipay.trade.precreate", "alipay.trade.pay", "alipay.trade.query"
CLOSE, CANCEL = "alipay.trade.close", "alipay.trade.cancel"
REFUND, REFUND_QUERY = "alipay.trade.refund", "alipay.trade.fastpay.refund.query"
BILL, CERTIFICATE = "alipay.data.dataservice.bill.downloadurl.query", "alipay.open.app.alipaycert.download"

SUBJECT_CHARS_MAX = 256
PAY_TIMEOUT = "5m"                     # a payer who never answers: Alipay closes by itself; below 5m is discouraged
FORM = {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8", "User-Agent": "tillbox"}
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
_SUBJECT_BARS = str.maketrans("/=&", "   ")     # documented as unwanted in a subject
_IN_BODY = ("app_auth_token", "biz_content")
_ORDER_NO = re.compile(r"[0-9A-Za-z_]{1,64}")
_CODE = re.compile(r"[0-9]{16,24}")
_SHOP_FIELDS = ("operator_id", "seller_id", "store_id", "terminal_id")     # of an account, as the shop settled them


def yuan(amount_fen: int) -> str:
    """Fen as Alipay writes money: yuan with two decimals.  ValueError below one fen."""
    if amount_fen < 1:
        raise ValueError(f"amount of {amount_fen} fen: an order needs at least 1")
    return f"{amount_fen // 100}.{amount_fen % 100:02d}"


def beijing_time(at: str) -> str:
    """RFC 3339 `at` as `YYYY-MM-DD HH:MM:SS` in Beijing.  ValueError when it carries no offset."""
    moment = datetime.datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError(f"time {at!r} carries no offset")
    return moment.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


# Requests: one form each, not signed yet.  KeyError for an account without appid, ValueError for what Alipay cannot take.

def place_request(intent: OrderFields) -> Request:
    """Ask for a QR.  Its end is absolute, so a repeat never moves it."""
    return _order(PLACE, intent, {"time_expire": beijing_time(intent.expires_at)})


def charge_request(intent: OrderFields, code: str) -> Request:
    """Charge a payer's code."""
    if not _CODE.fullmatch(code):
        raise ValueError("the payer's code is none of Alipay's")
    return _order(PAY, intent, {"timeout_express": PAY_TIMEOUT, "scene": "bar_code", "auth_code": code})


def order_request(method: str, intent: OrderFields, at: str) -> Request:
    """QUERY, CLOSE or CANCEL an order by our own number."""
    return asked(method, dict(intent.account.fields), at, {"out_trade_no": intent.order_no})


def refund_request(intent: RefundFields, at: str) -> Request:
    """Give money back.  The same number is the same refund; `at` is its intent's own time, or now when Alipay wants that."""
    biz = {"out_trade_no": intent.order_no, "refund_amount": yuan(intent.amount_fen), "out_request_no": _number(intent.refund_no)}
    if intent.reason:
        biz["refund_reason"] = intent.reason.translate(_SUBJECT_BARS)[:SUBJECT_CHARS_MAX]
    return asked(REFUND, dict(intent.account.fields), at, biz)


def refund_query_request(fields: Mapping[str, str], order_no: str, refund_no: str, at: str) -> Request:
    """Ask what became of a refund; what a cancel gave back stands under the order's own number."""
    return asked(REFUND_QUERY, fields, at, {"out_trade_no": order_no, "out_request_no": refund_no})


def bill_request(fields: Mapping[str, str], day: str, at: str) -> Request:
    """Ask where the business bill of `day` (YYYY-MM-DD, Beijing) lies."""
    return asked(BILL, fields, at, {"bill_type": "trade", "bill_date": day})


def certificate_request(fields: Mapping[str, str], cert_sn: str, at: str) -> Request:
    """Ask for Alipay's certificate of that serial."""
    return asked(CERTIFICATE, fields, at, {"alipay_cert_sn": cert_sn})


def asked(method: str, fields: Mapping[str, str], at: str, biz: Mapping[str, object]) -> Request:
    """One call as a plain form with every parameter but those that prove us."""
    told = {"app_id": fields["appid"], "method": method, "format": "JSON", "charset": "utf-8", "sign_type": "RSA2",
            "timestamp": beijing_time(at), "version": "1.0", "biz_content": _biz(biz)}
    return Request("POST", GATEWAY_PATH, urlencode(told).encode())


def _order(method: str, intent: OrderFields, more: dict[str, object]) -> Request:
    fields = dict(intent.account.fields)
    biz: dict[str, object] = {
        "out_trade_no": _number(intent.order_no), "total_amount": yuan(intent.amount_fen),
        "subject": intent.description.translate(_SUBJECT_BARS)[:SUBJECT_CHARS_MAX], "product_code": "FACE_TO_FACE_PAYMENT",
        **more, **{name: fields[name] for name in _SHOP_FIELDS if name in fields}}
    if extended := _extended(fields, dict(intent.extras)):
        biz["extend_params"] = extended
    request = asked(method, fields, intent.made_at, biz)
    if "notify_url" in fields:
        return msgspec.structs.replace(request, body=request.body + b"&" + urlencode({"notify_url": fields["notify_url"]}).encode())
    return request


def _extended(fields: Mapping[str, str], extras: Mapping[str, str]) -> dict[str, str]:
    """Instalments (months, and who bears their fee) and the partner who gets the provision."""
    extended = {name: fields[name] for name in ("sys_service_provider_id",) if name in fields}
    if periods := extras.get("instalments", ""):
        if periods not in ("3", "6", "12"):
            raise ValueError(f"Alipay has no plan of {periods} months")
        extended |= {"hb_fq_num": periods, "hb_fq_seller_percent": "100" if extras.get("fee_payer") == "shop" else "0"}
    return extended


def _number(no: str) -> str:
    if not _ORDER_NO.fullmatch(no):
        raise ValueError("Alipay takes order numbers of 1 to 64 letters and digits")
    return no


def _biz(fields: Mapping[str, object]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


# Signatures

def form_fields(body: bytes) -> dict[str, str]:
    """The parameters of a request as `asked` makes it."""
    return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True))


def text_to_sign(fields: Mapping[str, str]) -> bytes:
    """What the app key signs: every non-empty parameter but `sign`, sorted, values as they are before URL encoding."""
    return "&".join(f"{k}={v}" for k, v in sorted(fields.items()) if v and k != "sign").encode()


def gateway_request(fields: Mapping[str, str], signature: str) -> Request:
    """The call on the wire: what no access log may hold, a payer's code or a shop's authorisation, goes in the body."""
    common = {k: v for k, v in fields.items() if k not in _IN_BODY} | {"sign": signature}
    body = urlencode({k: fields[k] for k in _IN_BODY if k in fields})
    return Request("POST", f"{GATEWAY_PATH}?{urlencode(common)}", body.encode(), FORM)


# Replies

class Envelope(msgspec.Struct, frozen=True):
    """A reply cut open, nothing of it proven.  `inner` the answer, byte for byte: what Alipay signed.

    `error` says that it stands under `error_response`: a refusal before the call was looked at.
    """

    inner: bytes
    sign: str = ""
    cert_sn: str = ""
    error: bool = False


def opened(reply: Reply, method: str) -> Envelope:
    """The reply to `method`.  ValueError, one sentence, when it is none.  Braces and quotes inside strings do not count."""
    members = _members(reply.body)
    root = method.replace(".", "_") + "_response"
    if (root in members) == ("error_response" in members):
        raise ValueError("the reply does not hold the answer to this call")
    inner = members.get(root, members.get("error_response", b""))
    if not inner.startswith(b"{"):
        raise ValueError("the reply's answer is no object")
    return Envelope(inner, _string(members, "sign"), _string(members, "alipay_cert_sn"), root not in members)


_MEMBER = re.compile(rb'\s*"([A-Za-z0-9_]{1,100})"\s*:\s*')
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_MARK = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}"]', re.DOTALL)      # a quote that nothing ends, too: no use in looking behind it
_END = re.compile(rb"\s*([,}])")


def _members(body: bytes) -> dict[str, bytes]:
    """The outermost members as they stand, strings and objects alone.  ValueError for anything else."""
    members: dict[str, bytes] = {}
    at = len(body) - len(body.lstrip()) + 1
    if body[at - 1:at] != b"{":
        raise ValueError("the reply is no JSON object")
    while True:
        name = _MEMBER.match(body, at)
        if name is None or name[1].decode() in members:
            raise ValueError("the reply is no JSON object, or names something twice")
        end = _value_end(body, name.end())
        members[name[1].decode()] = body[name.end():end]
        mark = _END.match(body, end)
        if mark is None:
            raise ValueError("the reply ends inside the answer")
        at = mark.end()
        if mark[1] == b"}":
            if body[at:].strip():
                raise ValueError("something stands behind the reply")
            return members


def _value_end(body: bytes, start: int) -> int:
    if (string := _STRING.match(body, start)) is not None:
        return string.end()
    depth = 0
    if body[start:start + 1] == b"{":
        for mark in _MARK.finditer(body, start):
            if mark[0] == b'"':
                break
            depth += {b"{": 1, b"}": -1}.get(mark[0], 0)
            if not depth:
                return mark.end()
    raise ValueError("the reply ends inside the answer")


def _string(members: Mapping[str, bytes], name: str) -> str:
    raw = members.get(name, b'""')
    if not raw.startswith(b'"'):           # an object, as deep as somebody likes
        raise ValueError(f"the reply's {name} is no text")
    return msgspec.json.decode(raw, type=str)                     # MsgspecError is a ValueError
