"""Which bodies WeChat takes, field by field, and every way it says no.

Knows forms alone: what an order does is `wechat.py`'s.  Source: WeChat Pay merchant documentation, API v3 (parameters, error
codes).
"""

from __future__ import annotations

import datetime
import json
import re
from typing import NamedTuple

from sim.channels.wechat_orders import SECOND_MS, Body

CREATE_FIELDS = {"description", "out_trade_no", "notify_url", "amount", "time_expire", "attach", "goods_tag",
                 "support_fapiao", "detail", "settle_info", "scene_info"}
CODEPAY_FIELDS = {"description", "out_trade_no", "attach", "goods_tag", "support_fapiao", "settle_info", "detail", "payer",
                  "amount", "scene_info"}
REFUND_FIELDS = {"transaction_id", "out_trade_no", "out_refund_no", "reason", "notify_url", "funds_account", "amount",
                 "goods_detail"}
ORDER_NO = re.compile(r"[0-9A-Za-z_\-|*]{6,32}")
REFUND_NO = re.compile(r"[0-9A-Za-z_\-|*@]{1,64}")


class Reason(NamedTuple):
    """One way to say no: HTTP status, code, message, numeric tail of Request-ID.

    Tails are the published ones and 0 where none is known.  Guesses: the status that
    goes with ORDERPAID, the code of a refund that breaks a rule, and the wording of every message.
    """

    status: int
    code: str
    message: str
    tail: int


REASONS = {
    "extra": Reason(400, "PARAM_ERROR", "a field is unknown or null", 270924358),
    "invalid": Reason(400, "PARAM_ERROR", "a parameter is invalid", 268435461),
    "range": Reason(400, "PARAM_ERROR", "a parameter is out of range", 268435464),
    "appid": Reason(400, "APPID_MCHID_NOT_MATCH", "appid and mchid do not match", 268445527),
    "mchid": Reason(400, "MCH_NOT_EXISTS", "no such merchant", 0),
    "relation": Reason(403, "NO_AUTH", "provider and sub-merchant are not related", 268443701),
    "sub_missing": Reason(400, "PARAM_ERROR", "sub_mchid is missing", 268443704),
    "sub_own": Reason(400, "INVALID_REQUEST", "sub_mchid is the provider's own number", 268443705),
    "other_sub": Reason(403, "NO_AUTH", "the order belongs to another sub-merchant", 268447845),
    "other_merchant": Reason(403, "NO_AUTH", "the order belongs to another merchant", 268447843),
    "paid": Reason(400, "ORDERPAID", "the order is paid", 268498689),
    "paid_close": Reason(400, "ORDERPAID", "the order is paid and cannot be closed", 268449538),
    "code_close": Reason(400, "INVALID_REQUEST", "an order of this kind is reversed, not closed", 268449641),
    "closed": Reason(400, "ORDER_CLOSED", "the order is closed", 268447914),
    "expired": Reason(400, "INVALID_REQUEST", "the order is no longer valid", 268447914),
    "repeated": Reason(400, "INVALID_REQUEST", "repeated with other parameters", 268498688),
    "absent": Reason(404, "ORDER_NOT_EXIST", "the order does not exist", 268512771),
    "no_refund": Reason(404, "RESOURCE_NOT_EXISTS", "the refund does not exist", 0),
    "no_refund_order": Reason(404, "RESOURCE_NOT_EXISTS", "the order to refund does not exist", 268512771),
    "unpaid": Reason(400, "INVALID_REQUEST", "the order is not paid", 0),
    "too_much": Reason(400, "INVALID_REQUEST", "refunds would exceed the amount paid", 0),
    "too_many": Reason(400, "INVALID_REQUEST", "50 partial refunds at most", 0),
    "too_late": Reason(400, "INVALID_REQUEST", "paid more than a year ago", 0),
    "too_soon": Reason(429, "FREQUENCY_LIMITED", "one minute between refunds of one order", 268447840),
    "no_money": Reason(403, "NOT_ENOUGH", "the merchant's balance is not enough", 0),
    "no_bill": Reason(400, "NO_STATEMENT_EXIST", "no trade on that day", 0),
    "bill_soon": Reason(400, "STATEMENT_CREATING", "the bill is made at 9 o'clock of the next day", 0),
    "bill_old": Reason(400, "INVALID_REQUEST", "bills go back three months", 0),
    "code_AUTH_CODE_ERROR": Reason(400, "AUTH_CODE_ERROR", "the payment code is none", 0),
    "code_AUTH_CODE_INVALID": Reason(400, "AUTH_CODE_INVALID", "101 the payment code was used before", 0),
    "code_AUTHCODEEXPIRE": Reason(400, "AUTH_CODE_EXPIRE", "the payment code is too old", 0),
    "code_NOTENOUGH": Reason(403, "NOT_ENOUGH", "the payer has not enough money", 0),
    "code_ORDERPAID": Reason(400, "ORDER_PAID", "the charged order is paid", 268498689),
    "code_ORDERCLOSED": Reason(400, "ORDER_CLOSED", "the charged order is closed", 268447914),
    "code_ORDERREVERSED": Reason(400, "ORDER_REVERSED", "the charged order is reversed", 268447914),
    "code_OUT_TRADE_NO_USED": Reason(403, "OUT_TRADE_NO_USED", "the number was charged with another code", 0),
    "code_NOAUTH": Reason(403, "NO_AUTH", "the charged order is another shop's", 268447845),
    "code_TRADE_STATE_ERROR": Reason(400, "INVALID_REQUEST", "the order's state cannot be reversed", 0),
    "code_REVERSE_EXPIRE": Reason(400, "REVERSE_EXPIRE", "seven days are over", 0),
    "no_path": Reason(404, "RESOURCE_NOT_EXISTS", "no such resource", 0),
}
TAILS = {                              # messages are all different: a test says so
    reason.message: reason.tail for reason in REASONS.values()
}


class Refused(Exception):
    """A rule said no; carries the answer."""

    def __init__(self, name: str, field: str = "") -> None:
        super().__init__(name)
        reason = REASONS[name]
        self.status = reason.status
        self.body: Body = {"code": reason.code, "message": reason.message}
        if field:
            self.body["detail"] = {"field": field, "issue": reason.message, "location": "body"}


def parsed(body: bytes) -> Body:
    try:
        fields = json.loads(body)
    except ValueError:
        raise Refused("invalid") from None
    if not isinstance(fields, dict):
        raise Refused("invalid")
    return fields


def checked_create(body: Body, now_ms: int) -> int | None:
    """When the order ends in Unix ms, None without time_expire.  Raises Refused for the first field that is wrong."""
    refuse_extra(body, CREATE_FIELDS)
    for name, most in (("description", 127), ("out_trade_no", 32), ("notify_url", 255)):
        text(body, name, most)
    if not ORDER_NO.fullmatch(body["out_trade_no"]):
        raise Refused("invalid", "/out_trade_no")
    if not body["notify_url"].startswith("https://") or "?" in body["notify_url"]:
        raise Refused("invalid", "/notify_url")
    if "attach" in body:
        text(body, "attach", 128)
    amount = part(body, "amount")
    refuse_extra(amount, {"total", "currency"}, "/amount")
    fen(amount, "total")
    currency(amount)
    if "time_expire" not in body:
        return None
    text(body, "time_expire", 64)
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", body["time_expire"]):
        raise Refused("invalid", "/time_expire")
    try:
        return int(datetime.datetime.fromisoformat(body["time_expire"]).timestamp() * SECOND_MS)
    except ValueError:
        raise Refused("invalid", "/time_expire") from None


def checked_codepay(body: Body) -> None:
    """Raises Refused for the first field of a charge that is wrong."""
    refuse_extra(body, CODEPAY_FIELDS)
    text(body, "description", 127)
    text(body, "out_trade_no", 32)
    if not ORDER_NO.fullmatch(body["out_trade_no"]):
        raise Refused("invalid", "/out_trade_no")
    payer, amount, scene = (part(body, name) for name in ("payer", "amount", "scene_info"))
    refuse_extra(payer, {"auth_code"}, "/payer")
    text(payer, "auth_code", 32)
    refuse_extra(amount, {"total", "currency"}, "/amount")
    fen(amount, "total")
    currency(amount)
    refuse_extra(scene, {"device_id", "device_ip", "store_info"}, "/scene_info")
    if not set(part(scene, "store_info")) & {"id", "out_id"}:
        raise Refused("invalid", "/scene_info/store_info")


def part(body: Body, name: str) -> Body:
    """An object within a body.  Refused when it is none."""
    value = body.get(name)
    if not isinstance(value, dict):
        raise Refused("invalid", f"/{name}")
    return value


def checked_refund(body: Body) -> None:
    refuse_extra(body, REFUND_FIELDS)
    if ("transaction_id" in body) == ("out_trade_no" in body):
        raise Refused("invalid", "/out_trade_no")
    text(body, "transaction_id" if "transaction_id" in body else "out_trade_no", 32)
    text(body, "out_refund_no", 64)
    if not REFUND_NO.fullmatch(body["out_refund_no"]):
        raise Refused("invalid", "/out_refund_no")
    if "reason" in body:
        text(body, "reason", 80)
    amount = part(body, "amount")
    refuse_extra(amount, {"refund", "total", "currency", "from"}, "/amount")
    fen(amount, "refund")
    fen(amount, "total")
    if amount.get("currency") != "CNY":
        raise Refused("invalid", "/amount/currency")


def refuse_extra(body: Body, known: set[str], at: str = "") -> None:
    for name, value in body.items():
        if name not in known or value is None:
            raise Refused("extra", f"{at}/{name}")


def text(body: Body, name: str, most: int) -> None:
    value = body.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= most:
        raise Refused("invalid", f"/{name}")


def fen(amount: Body, name: str) -> None:
    value = amount.get(name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Refused("invalid", f"/amount/{name}")
    if value < 1:
        raise Refused("range", f"/amount/{name}")


def currency(amount: Body) -> None:
    if amount.get("currency", "CNY") != "CNY":
        raise Refused("invalid", "/amount/currency")
