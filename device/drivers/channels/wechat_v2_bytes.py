"""WeChat Pay API v2, payment codes: charge a code and reverse it, as bytes.

Everything else about such an order is asked over v3.  Knows the XML envelope, its HMAC-SHA256 `sign` and what each reply
proves.  Refuses to know sockets, clocks and files.  A request is built from the frozen intent alone, its nonce too.
Source: WeChat Pay merchant documentation v2 (micropay, reverse, signature algorithm).
"""

from __future__ import annotations

import datetime
import hashlib
import hmac
import re
from collections.abc import Mapping

from device.drivers.channels.codec_bytes import OrderFields, Reply, Request, Verdict, cut_bytes, lie, plain
from device.drivers.channels.wechat_bytes import asking

MICROPAY_PATH, REVERSE_PATH = "/pay/micropay", "/secapi/pay/reverse"
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
BODY_BYTES_MAX = 128
REPLY_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100
V2_NAMES = {"appid": "appid", "mchid": "mch_id", "sp_appid": "appid", "sp_mchid": "mch_id", "sub_appid": "sub_appid",
            "sub_mchid": "sub_mch_id"}
SIGN_REFUSED = ("SIGNERROR", "签名错误")
HEADERS = {"Content-Type": "text/xml; charset=utf-8", "User-Agent": "tillbox"}

# One flat element after the other; nothing else is XML to us: no entity of its own, no comment, no nesting.
_FIELD = re.compile(r"\s*<([A-Za-z_][A-Za-z0-9_]{0,63})>(?:<!\[CDATA\[(.*?)\]\]>|([^<]*))</\1>\s*", re.DOTALL)

ERROR_WORDS: dict[str, tuple[str, str]] = {        # err_code of a signed reply to a charge
    "SYSTEMERROR": ("unknown", "WeChat is not sure"),
    "BANKERROR": ("unknown", "the bank did not answer"),
    "USERPAYING": ("open", ""),
    "ORDERPAID": ("unknown", "the order is paid already, says WeChat: ask"),
    "ORDERCLOSED": ("unknown", "the order is closed already, says WeChat: ask"),
    "ORDERREVERSED": ("unknown", "the order is reversed already, says WeChat: ask"),
    "OUT_TRADE_NO_USED": ("unknown", "the order number is used already, says WeChat: ask"),
    "INVALID_REQUEST": ("unknown", "WeChat holds this number with other content: ask"),
    "AUTHCODEEXPIRE": ("refused", "the payment code is too old"),
    "AUTH_CODE_ERROR": ("refused", "the payment code is wrong"),
    "AUTH_CODE_INVALID": ("refused", "the payment code was used before or is too old"),
    "NOTENOUGH": ("refused", "not enough money in the wallet"),
    "NOTSUPORTCARD": ("refused", "the wallet's card cannot be used here"),
    "BUYER_MISMATCH": ("refused", "one order, two payers"),
    "TRADE_ERROR": ("refused", "WeChat refused this payment"),
    "PARAM_ERROR": ("refused", "WeChat takes no such order"),
    "NOAUTH": ("refused", "this merchant may not charge payment codes"),
    "APPID_MCHID_NOT_MATCH": ("refused", "appid and merchant do not belong together"),
}
UNDO_WORDS: dict[str, tuple[str, str]] = {         # err_code of a signed reply to a reversal
    "REVERSE_EXPIRE": ("refused", "too late to reverse: refund it"),
    "ORDERNOTEXIST": ("absent", ""),
}


def sign(fields: Mapping[str, str], api_key: str) -> str:
    """The v2 signature of `fields`: HMAC-SHA256, or MD5 when `sign_type` says so, upper-case hex."""
    if fields.get("sign_type") == "HMAC-SHA256":
        return hmac_sign(fields, api_key)
    return hashlib.md5(_text(fields, api_key), usedforsecurity=False).hexdigest().upper()


def hmac_sign(fields: Mapping[str, str], api_key: str) -> str:
    """HMAC-SHA256 over whatever `fields` hold: a reply to a request so signed is signed so, and does not say it."""
    return hmac.new(api_key.encode(), _text(fields, api_key), hashlib.sha256).hexdigest().upper()


def _text(fields: Mapping[str, str], api_key: str) -> bytes:
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields) if fields[name] and name != "sign")
    return f"{text}&key={api_key}".encode()


def encoded(fields: Mapping[str, str]) -> bytes:
    """`fields` as v2's XML.  ValueError for a value that would end its own CDATA."""
    if any("]]>" in value for value in fields.values()):
        raise ValueError("a field holds ]]>")
    return ("<xml>" + "".join(f"<{k}><![CDATA[{v}]]></{k}>" for k, v in fields.items()) + "</xml>").encode()


def decoded(body: bytes) -> dict[str, str]:
    """The fields of v2's XML.  ValueError for anything else: a document type, nesting, a field twice, no UTF-8."""
    if len(body) > REPLY_BYTES_MAX:
        raise ValueError("too long")
    text = body.decode("utf-8").strip()
    if not (text.startswith("<xml>") and text.endswith("</xml>")):
        raise ValueError("no <xml> element")
    fields: dict[str, str] = {}
    at, end = len("<xml>"), len(text) - len("</xml>")
    while text[at:end].strip():
        found = _FIELD.match(text, at, end)
        if found is None or found[1] in fields or len(fields) >= FIELDS_MAX:
            raise ValueError("not one flat field after the other")
        fields[found[1]] = found[2] if found[2] is not None else _plain_text(found[3])
        at = found.end()
    return fields


def _plain_text(text: str) -> str:
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def charge_request(intent: OrderFields, code: str, api_key: str) -> Request:
    """Charge `code`.  Account fields: appid, mchid, sub_appid, sub_mchid, spbill_create_ip (ours, 127.0.0.1 when not given)."""
    account = dict(intent.account.fields)
    fields = {
        **asking_v2(account), "nonce_str": intent.order_no, "sign_type": "HMAC-SHA256",
        "body": cut_bytes(intent.description, BODY_BYTES_MAX).replace("]]>", ""), "out_trade_no": intent.order_no,
        "total_fee": str(intent.amount_fen), "fee_type": "CNY",
        "spbill_create_ip": account.get("spbill_create_ip", "127.0.0.1"), "time_start": beijing(intent.made_at),
        "time_expire": beijing(intent.expires_at), "auth_code": code,
    }
    return Request("POST", MICROPAY_PATH, encoded({**fields, "sign": sign(fields, api_key)}), HEADERS)


def reverse_request(intent: OrderFields, api_key: str) -> Request:
    """Reverse an order by our own number: dead when unpaid, given back when paid.  May be repeated."""
    fields = {**asking_v2(dict(intent.account.fields)), "out_trade_no": intent.order_no,
              "nonce_str": intent.order_no, "sign_type": "HMAC-SHA256"}
    return Request("POST", REVERSE_PATH, encoded({**fields, "sign": sign(fields, api_key)}), HEADERS)


def asking_v2(fields: Mapping[str, str]) -> dict[str, str]:
    """Who asks, in v2's words; as `asking`."""
    return {V2_NAMES[name]: value for name, value in asking(fields).items()}


def beijing(at: str) -> str:
    """RFC 3339 as v2 writes times.  ValueError for a time without offset."""
    moment = datetime.datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError(f"time {at!r} carries no offset")
    return moment.astimezone(BEIJING).strftime("%Y%m%d%H%M%S")


def charge_verdict(intent: OrderFields, reply: Reply, api_key: str) -> Verdict:
    """What the reply to a charge proves: `paid`, `open`, `refused` or `unknown`."""
    fields, odd = _proven(intent, reply, api_key)
    if odd is not None:
        return odd
    if fields.get("result_code") != "SUCCESS":
        word, detail = ERROR_WORDS.get(fields.get("err_code", ""), ("unknown", "WeChat did not say what became of it"))
        return Verdict(word, detail=f"{detail} ({plain(fields.get('err_code', ''))})" if detail else "")
    if fields.get("out_trade_no") != intent.order_no or fields.get("trade_type") != "MICROPAY":
        return lie("WeChat answered about another order")
    if fields.get("total_fee") != str(intent.amount_fen) or fields.get("fee_type", "CNY") != "CNY":
        return lie(f"WeChat charged another amount than the {intent.amount_fen} fen we asked")
    return Verdict("paid", amount_fen=intent.amount_fen, channel_no=fields.get("transaction_id", ""))


def reverse_verdict(intent: OrderFields, reply: Reply, api_key: str) -> Verdict:
    """What the reply to a reversal proves: `closed`, `refused`, `absent` or `unknown`.  It names no order: the sign binds it."""
    fields, odd = _proven(intent, reply, api_key)
    if odd is not None:
        return odd
    if fields.get("recall") == "Y":
        return Verdict("unknown", detail="WeChat wants the reversal again")
    if fields.get("result_code") == "SUCCESS" and fields.get("recall", "N") == "N":
        return Verdict("closed")
    word, detail = UNDO_WORDS.get(fields.get("err_code", ""), ("unknown", "WeChat has not reversed it yet"))
    return Verdict(word, detail=detail)


def _proven(intent: OrderFields, reply: Reply, api_key: str) -> tuple[dict[str, str], Verdict | None]:
    """The reply's fields when our key signed them, else the verdict on it."""
    if reply.status >= 500:
        return {}, Verdict("unknown", detail=f"WeChat answered {reply.status}", health="gone")
    if reply.status == 429:
        return {}, Verdict("unknown", detail="WeChat asks us to slow down", health="slow")
    if reply.status != 200:
        return {}, lie(f"something answered {reply.status} in WeChat's place")
    try:
        fields = decoded(reply.body)
    except ValueError:
        return {}, lie("the reply is not what WeChat documents")
    if fields.get("return_code") != "SUCCESS":                # the transport's own refusal carries no sign: it proves nothing
        said = plain(fields.get("return_msg", ""))
        return {}, Verdict("unknown", detail=f"WeChat did not take the request ({said})", key_refused=said in SIGN_REFUSED)
    if not hmac.compare_digest(hmac_sign(fields, api_key), fields.get("sign", "")):
        return {}, lie("the reply's signature is wrong")
    if any(fields.get(name) != value for name, value in asking_v2(dict(intent.account.fields)).items()):
        return {}, lie("WeChat answered for another merchant")
    return fields, None
