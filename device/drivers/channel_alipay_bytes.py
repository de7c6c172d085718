"""Alipay OpenAPI gateway 1.0, the envelope: parameters out, the signed inner bytes of a reply in.

Knows how a call is put together from the frozen intent, what text is signed on either side, and where in a reply the
signed bytes lie.  Refuses to know sockets, clocks and keys, and does not yet know what a reply proves.
Source: Alipay open documentation (gateway call, RSA2, face-to-face payment).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from urllib.parse import urlencode

from device.drivers.channel_bytes import Request

GATEWAY_PATH = "/gateway.do"
SUBJECT_CHARS_MAX = 256
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
_SUBJECT_BARS = str.maketrans("/=&", "   ")     # documented as unwanted in a subject


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


def place_biz(*, order_no: str, amount_fen: int, description: str, expires_at: str) -> str:
    """`biz_content` of alipay.trade.precreate.  The end is absolute, so a repeat never moves it."""
    return _biz({"out_trade_no": order_no, "total_amount": yuan(amount_fen),
                 "subject": description.translate(_SUBJECT_BARS)[:SUBJECT_CHARS_MAX],
                 "product_code": "FACE_TO_FACE_PAYMENT", "time_expire": beijing_time(expires_at)})


def order_biz(*, order_no: str) -> str:
    """`biz_content` of alipay.trade.query, close and cancel."""
    return _biz({"out_trade_no": order_no})


def refund_biz(*, order_no: str, refund_no: str, amount_fen: int) -> str:
    """`biz_content` of alipay.trade.refund.  The same `refund_no` is the same refund."""
    return _biz({"out_trade_no": order_no, "refund_amount": yuan(amount_fen), "out_request_no": refund_no})


def refund_query_biz(*, order_no: str, refund_no: str) -> str:
    """`biz_content` of alipay.trade.fastpay.refund.query."""
    return _biz({"out_trade_no": order_no, "out_request_no": refund_no})


def parameters(*, method: str, app_id: str, at: str, biz: str) -> dict[str, str]:
    """All parameters of one call but `sign`.  `at` is RFC 3339: the intent's own time where a retry must be the same."""
    return {"app_id": app_id, "method": method, "format": "JSON", "charset": "utf-8", "sign_type": "RSA2",
            "timestamp": beijing_time(at), "version": "1.0", "biz_content": biz}


def text_to_sign(fields: Mapping[str, str]) -> bytes:
    """What the app key signs: every non-empty parameter but `sign`, sorted, values as they are before URL encoding."""
    return "&".join(f"{k}={v}" for k, v in sorted(fields.items()) if v and k != "sign").encode()


def gateway_request(fields: Mapping[str, str], signature: str) -> Request:
    """The call on the wire; `biz_content` goes in the body, for a payer's code must not reach an access log."""
    common = {k: v for k, v in fields.items() if k != "biz_content"} | {"sign": signature}
    return Request("POST", f"{GATEWAY_PATH}?{urlencode(common)}", urlencode({"biz_content": fields["biz_content"]}).encode(),
                   {"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"})


def signed_bytes(body: bytes, method: str) -> bytes:
    """The inner object of a reply to `method`, byte for byte: what Alipay signed.

    Braces inside strings do not count.  ValueError when the reply does not begin with that object or it does not end.
    """
    head = b'{"' + method.replace(".", "_").encode() + b'_response":{'
    if not body.startswith(head):
        raise ValueError("the reply does not begin with the answer to this call")
    start, depth, quoted, escaped = len(head) - 1, 0, False, False
    for at in range(start, len(body)):
        byte = body[at]
        if quoted:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                quoted = False
        elif byte == 0x22:
            quoted = True
        elif byte == 0x7B:
            depth += 1
        elif byte == 0x7D:
            depth -= 1
            if not depth:
                return body[start:at + 1]
    raise ValueError("the reply ends inside the answer")


def _biz(fields: dict[str, str]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
