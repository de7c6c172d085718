"""WeChat Pay API v3: requests out, and what proves a reply.

Knows the requests of its calls and the text that is signed on either side.  Refuses to know sockets, clocks and keys: the
time and the checking of a signature are handed in; and what a proven reply says: that is `wechat_word_bytes.py`.

A request body is built from the frozen intent alone, keys in one fixed order, so a retry is the same bytes; only time
stamp, nonce and signature in the header differ.  Source: WeChat Pay merchant documentation, API v3 (Native payment,
signature generation, signature verification, refunds), and the official wechatpay-go client.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import json
from collections.abc import Callable, Mapping
from urllib.parse import quote, urlencode, urlsplit

from device.drivers.channels.codec_bytes import OrderFields, RefundFields, Reply, Request, cut_bytes

SCHEME = "WECHATPAY2-SHA256-RSA2048"
PROBE = "WECHATPAY/SIGNTEST/"        # deliberately wrong signatures, sent now and then to see whether we check
PUBLIC_KEY_PREFIX = "PUB_KEY_ID_"
PROBE_DOUBT = "the reply is a signature probe and proves nothing"
KEY_DOUBT = "the reply is signed with a platform key we do not hold"
DAYS_DOUBT = "the reply is signed with a WeChat certificate that is not valid today: check the clock"
WRONG_DOUBT = "the reply's signature is wrong"
REPLY_AGE_S_MAX = 300                # a reply whose stamp is this far from our clock, or farther, proves nothing
DESCRIPTION_BYTES_MAX = 127          # documented as 127 characters; bytes satisfy either reading
REASON_BYTES_MAX = 80

BILL_PATH = "/v3/bill/tradebill"
CERTIFICATES_PATH = "/v3/certificates"
REFUND_PATH = "/v3/refund/domestic/refunds"






# Requests

def order_call(call: str, intent: OrderFields) -> Request:
    """The request of `place`, `query` or `close`, from the intent alone.

    KeyError for a missing account field, ValueError for a time without offset.
    """
    fields = dict(intent.account.fields)
    if call == "place":
        return place_request(order_no=intent.order_no, amount_fen=intent.amount_fen, description=intent.description,
                             expires_at=intent.expires_at, fields=fields)
    if call == "query":
        return query_request(order_no=intent.order_no, fields=fields)
    assert call == "close", call
    return close_request(order_no=intent.order_no, fields=fields)


def refund_call(call: str, intent: RefundFields) -> Request:
    """The request of `refund` or `refund_query`, from the intent alone."""
    fields = dict(intent.account.fields)
    if call == "refund_query":
        return refund_query_request(refund_no=intent.refund_no, fields=fields)
    assert call == "refund", call
    return refund_request(refund_no=intent.refund_no, order_no=intent.order_no, amount_fen=intent.amount_fen,
                          paid_fen=intent.paid_fen, reason=intent.reason, fields=fields)


def asking(fields: Mapping[str, str]) -> dict[str, str]:
    """Who asks, in the words of a body: the shop by its own numbers, or with a `sub_mchid` its provider for it.

    KeyError for a missing account field, ValueError for numbers that cannot belong together.
    """
    if not fields.get("sub_mchid"):
        return {"appid": fields["appid"], **merchants(fields)}
    sub = {"sub_appid": fields["sub_appid"]} if fields.get("sub_appid") else {}
    return {"sp_appid": fields["appid"], **sub, **merchants(fields)}


def merchants(fields: Mapping[str, str]) -> dict[str, str]:
    """`asking` without the applications: what a query, a close and every reply name a merchant by."""
    if not fields.get("sub_mchid"):
        if fields.get("sub_appid"):
            raise ValueError("the account has a sub_appid and no sub_mchid")
        return {"mchid": fields["mchid"]}
    if fields["sub_mchid"] == fields["mchid"]:
        raise ValueError("the account's sub_mchid is its provider's own number")
    return {"sp_mchid": fields["mchid"], "sub_mchid": fields["sub_mchid"]}


def _pay_path(fields: Mapping[str, str], tail: str) -> str:
    return f"/v3/pay/{'partner/' if fields.get('sub_mchid') else ''}transactions/{tail}"


def _order_path(fields: Mapping[str, str], order_no: str) -> str:
    return _pay_path(fields, f"out-trade-no/{quote(order_no, safe='')}")


def _sub(fields: Mapping[str, str]) -> dict[str, str]:
    """What a refund or a bill says of the shop: nothing where it asks by itself."""
    return {name: value for name, value in merchants(fields).items() if name == "sub_mchid"}


def place_request(*, order_no: str, amount_fen: int, description: str, expires_at: str,
                  fields: Mapping[str, str]) -> Request:
    """Create a native order.  `fields` holds `appid mchid notify_url`; KeyError for a missing one."""
    return Request("POST", _pay_path(fields, "native"), _body({
        **asking(fields),
        "description": cut_bytes(description, DESCRIPTION_BYTES_MAX),
        "out_trade_no": order_no,
        "time_expire": whole_seconds(expires_at),
        "notify_url": fields["notify_url"],
        "amount": {"total": amount_fen, "currency": "CNY"},
    }))


def charge_request(intent: OrderFields, code: str) -> Request:
    """Charge a payer's code.  Account fields as of `place_request`, without notify_url; spbill_create_ip (127.0.0.1) and store_id
    (the merchant's number) are what WeChat wants to know of the place."""
    fields = dict(intent.account.fields)
    return Request("POST", _pay_path(fields, "codepay"), _body({
        **asking(fields),
        "description": cut_bytes(intent.description, DESCRIPTION_BYTES_MAX),
        "out_trade_no": intent.order_no,
        "payer": {"auth_code": code},
        "amount": {"total": intent.amount_fen, "currency": "CNY"},
        "scene_info": {"device_ip": fields.get("spbill_create_ip", "127.0.0.1"),
                       "store_info": {"out_id": fields.get("store_id", fields.get("sub_mchid") or fields["mchid"])}},
    }))


def reverse_request(intent: OrderFields) -> Request:
    """Undo a charge: dead when unpaid, given back when paid.  May be repeated."""
    fields = dict(intent.account.fields)
    return Request("POST", f"{_order_path(fields, intent.order_no)}/reverse", _body({**asking(fields)}))


def query_request(*, order_no: str, fields: Mapping[str, str]) -> Request:
    """Ask for an order by our own number: the only query that works while it is unpaid."""
    return Request("GET", f"{_order_path(fields, order_no)}?{urlencode(merchants(fields), quote_via=quote, safe='')}")


def close_request(*, order_no: str, fields: Mapping[str, str]) -> Request:
    """Close an unpaid order; may be repeated.  Refused for a paid one."""
    return Request("POST", f"{_order_path(fields, order_no)}/close", _body({**merchants(fields)}))


def refund_request(*, refund_no: str, order_no: str, amount_fen: int, paid_fen: int, reason: str,
                   fields: Mapping[str, str]) -> Request:
    """Give back `amount_fen` of an order of `paid_fen`.  The same `refund_no` is the same refund."""
    body: dict[str, object] = {**_sub(fields), "out_trade_no": order_no, "out_refund_no": refund_no}
    if reason:
        body["reason"] = cut_bytes(reason, REASON_BYTES_MAX)
    body["amount"] = {"refund": amount_fen, "total": paid_fen, "currency": "CNY"}
    return Request("POST", REFUND_PATH, _body(body))


def refund_query_request(*, refund_no: str, fields: Mapping[str, str]) -> Request:
    sub = urlencode(_sub(fields), quote_via=quote, safe="")
    return Request("GET", f"{REFUND_PATH}/{quote(refund_no, safe='')}{'?' if sub else ''}{sub}")


def bill_request(*, day: str, fields: Mapping[str, str]) -> Request:
    """Ask where the trade bill of `day` (YYYY-MM-DD, Beijing) lies, and for its hash."""
    asked = {"bill_date": day, "bill_type": "ALL", "tar_type": "GZIP", **_sub(fields)}
    return Request("GET", f"{BILL_PATH}?{urlencode(asked, quote_via=quote, safe='')}")


def certificates_request() -> Request:
    """Ask for the certificates that WeChat signs with now, and those it will sign with soon."""
    return Request("GET", CERTIFICATES_PATH)


def signed_path(path: str) -> str:
    """The part of a request's target that is signed: path and query, without a host."""
    parts = urlsplit(path)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def _body(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def whole_seconds(at: str) -> str:
    """RFC 3339 time as WeChat takes it: no fraction, a numeric offset.  ValueError when `at` is no such time."""
    moment = datetime.datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError(f"time {at!r} carries no offset")
    return moment.replace(microsecond=0).isoformat()


# Signatures

def text_to_sign(request: Request, at_s: int, nonce: str) -> bytes:
    """What the merchant key signs: five lines, each ended by a line feed, the last one too."""
    return f"{request.method}\n{signed_path(request.path)}\n{at_s}\n{nonce}\n".encode() + request.body + b"\n"


def authorization(*, mchid: str, serial_no: str, at_s: int, nonce: str, signature: bytes) -> str:
    """Value of the Authorization header.  `serial_no` is the merchant certificate's, `signature` raw bytes."""
    proof = base64.b64encode(signature).decode("ascii")
    return (f'{SCHEME} mchid="{mchid}",nonce_str="{nonce}",timestamp="{at_s}",'
            f'serial_no="{serial_no}",signature="{proof}"')


def text_to_verify(at: str, nonce: str, body: bytes) -> bytes:
    """What the platform signs: stamp, nonce and body, each ended by a line feed; the body of a 204 is empty."""
    return f"{at}\n{nonce}\n".encode() + body + b"\n"


def is_signed(reply: Reply) -> bool:
    return "wechatpay-signature" in reply.headers


def proof_fault(reply: Reply, *, now_s: float, verify: Callable[[str, bytes, bytes], str]) -> str:
    """Why `reply` is not proven WeChat's, as one sentence; empty when it is.

    `verify(serial, signature, text)` answers likewise: KEY_DOUBT for a serial it has no key for, DAYS_DOUBT, WRONG_DOUBT or "".
    """
    at, nonce, proof, serial = (reply.headers.get("wechatpay-" + name, "")
                                for name in ("timestamp", "nonce", "signature", "serial"))
    if not proof:
        return "the reply carries no signature"
    if reply.headers.get("wechatpay-signature-type", SCHEME) != SCHEME:
        return "the reply is signed by a method we do not know"
    if proof.startswith(PROBE):
        return PROBE_DOUBT
    if not (at.isascii() and at.isdigit() and len(at) <= 12):
        return "the reply carries no time stamp"
    if abs(now_s - int(at)) >= REPLY_AGE_S_MAX:
        return f"the reply's time is {abs(now_s - int(at)):.0f} s from ours: check the clock"
    try:
        signature = base64.b64decode(proof, validate=True)
    except (binascii.Error, ValueError):
        return "the reply's signature is not base64"
    return verify(serial, signature, text_to_verify(at, nonce, reply.body))
