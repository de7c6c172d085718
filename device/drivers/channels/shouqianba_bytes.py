"""Shouqianba's bytes (upay v2): calls built from the intent alone, the header that proves us, and what a reply says.

Pure.  Replies are not signed: that they came over the proven line is all their proof, and what they must match is our number,
our terminal and our amount.  Refuses to know where keys are kept.  Source: Shouqianba's open documents (2020) and its demos.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from device.drivers.channels.codec_bytes import (
    OrderFields,
    RefundFields,
    Reply,
    Request,
    Verdict,
    cut_bytes,
    lie,
    plain,
)
from device.drivers.channels.terminal_bytes import KEY, terminal_ok

PAYWAYS = {"alipay": "2", "wechat": "3", "unionpay": "17"}             # what a QR can be asked for
WALLETS = {"1": "alipay", "2": "alipay", "3": "wechat", "4": "baidu", "5": "jd", "6": "qq", "7": "nfc", "8": "lakala",
           "15": "wechat", "16": "cmb", "17": "unionpay", "18": "bestpay"}
QR_HEADS = ("https://", "weixin://")
KEY_REFUSED = "Shouqianba does not accept this box's key: try again, and activate it anew if that stays so"
CODE_CHARS_MAX, REFUND_NO_CHARS_MAX, SUBJECT_BYTES_MAX, QR_CHARS_MAX = 32, 20, 64, 512

# What biz_response.result_code means to the box, call by call; "" where error_code has to say it.
RESULTS: dict[str, dict[str, str]] = {
    "pay": {"PAY_SUCCESS": "paid", "PAY_IN_PROGRESS": "open", "PAY_FAIL": "refused", "FAIL": "",
            "PAY_FAIL_ERROR": "unknown", "PAY_FAIL_IN_PROGRESS": "unknown"},
    "precreate": {"PRECREATE_SUCCESS": "qr", "PRECREATE_FAIL": "refused", "FAIL": "refused",
                  "PRECREATE_FAIL_ERROR": "unknown", "PRECREATE_FAIL_IN_PROGRESS": "unknown"},
    "cancel": {"CANCEL_SUCCESS": "closed", "CANCEL_ABORT_SUCCESS": "closed", "FAIL": "", "CANCEL_ERROR": "",
               "CANCEL_IN_PROGRESS": "unknown", "CANCEL_ABORT_ERROR": "unknown", "CANCEL_ABORT_IN_PROGRESS": "unknown"},
    "refund": {"REFUND_SUCCESS": "done", "REFUND_IN_PROGRESS": "processing", "REFUND_FAIL": "refused", "FAIL": "",
               "REFUND_ERROR": "unknown"},
    "query": {"SUCCESS": "", "FAIL": ""},
}
# What data.order_status means.  A reversal says that the order is dead, not whether money had moved before.  Whoever asks after an
# order has booked and refunded nothing of it: one wholly refunded was given back by other hands, and is no sale.
STATES = {"CREATED": "open", "PAID": "paid", "PAY_CANCELED": "closed", "PAY_ERROR": "unknown", "REFUNDED": "given_back",
          "PARTIAL_REFUNDED": "paid", "REFUND_ERROR": "paid", "CANCELED": "closed", "CANCEL_ERROR": "unknown",
          "CANCEL_INPROGRESS": "unknown", "INVALID_STATUS_CODE": "unknown"}
# Which states go with which word; anything else contradicts itself.
AGREE: dict[tuple[str, str], tuple[str, ...]] = {
    ("pay", "paid"): ("PAID",), ("pay", "open"): ("CREATED",), ("pay", "refused"): ("PAY_CANCELED", "CANCELED"),
    ("precreate", "qr"): ("CREATED",), ("precreate", "refused"): ("PAY_CANCELED", "CANCELED"),
    ("cancel", "closed"): ("CANCELED", "PAY_CANCELED"), ("refund", "done"): ("REFUNDED", "PARTIAL_REFUNDED")}
NO_ORDER = ("UPAY_ORDER_NOT_EXISTS", "UPAY_ORDER_NOT_EXIST")           # their own documents spell it both ways
TAKEN = ("CLIENT_SN_CONFLICT", "TRADE_HAS_SUCCESS")                    # an earlier request of this number may be paid
# PAY_FAIL says by itself that it failed and was undone; FAIL only with one of these.
CHARGE_ERRORS = dict.fromkeys(("INVALID_BARCODE", "EXPIRED_BARCODE", "INSUFFICIENT_FUND", "BUYER_OVER_DAILY_LIMIT",
                               "BUYER_OVER_TRANSACTION_LIMIT", "SELLER_OVER_DAILY_LIMIT", "UPAY_STORE_OVER_DAILY_LIMIT",
                               "UPAY_TERMINAL_NOT_EXISTS", "UPAY_TERMINAL_STATUS_ABNORMAL"), "refused")
CANCEL_ERRORS = {**dict.fromkeys(NO_ORDER, "absent"), "UPAY_CANCEL_ORDER_NOOP": "closed",
                 "UPAY_CANCEL_INVALID_ORDER_STATE": "look", "UPAY_TCP_ORDER_NOT_REFUNDABLE": "refused"}
REFUND_ERRORS = {**dict.fromkeys(NO_ORDER, "refused"), "UPAY_REFUND_ORDER_NOOP": "done",
                 "UPAY_REFUND_INVALID_ORDER_STATE": "look", "REFUNDABLE_AMOUNT_NOT_ENOUGH": "look",
                 **dict.fromkeys(("SELLER_BALANCE_NOT_ENOUGH", "ACCOUNT_BALANCE_NOT_ENOUGH", "REFUND_AMT_NOT_EQUAL_TOTAL",
                                  "UPAY_TCP_ORDER_NOT_REFUNDABLE"), "refused")}


class Data(msgspec.Struct):
    """What a reply says of the order; every value a string, amounts in fen."""

    sn: str = ""
    client_sn: str = ""
    terminal_sn: str = ""
    order_status: str = ""
    total_amount: str | int = ""
    net_amount: str | int = ""
    payway: str | int = ""
    qr_code: str = ""


class Said(msgspec.Struct):
    """biz_response.  `terminal_key` of activation and check-in."""

    result_code: str = ""
    error_code: str = ""
    error_message: str = ""
    terminal_sn: str = ""
    terminal_key: str = ""
    data: Data | None = None

    def __repr__(self) -> str:
        return f"Said({plain(self.result_code)!r}, {plain(self.error_code)!r}, ...)"


class _Whole(msgspec.Struct):
    result_code: str | int
    error_code: str = ""
    error_message: str = ""
    biz_response: Said | None = None


# Calls

def sealed(path: str, body: dict[str, Any], sn: str, key: bytes) -> Request:
    """`body` as JSON, proven by the serial number and key of a terminal, or of the vendor."""
    raw = msgspec.json.encode(body)
    return Request("POST", path, raw, {"Content-Type": "application/json", "Authorization": f"{sn} {signature(raw, key)}"})


def signature(body: bytes, key: bytes) -> str:
    """MD5 over body and key, lower-case hex."""
    return hashlib.md5(body + key, usedforsecurity=False).hexdigest()


def order_call(call: str, intent: OrderFields, code: str = "") -> tuple[str, dict[str, str]]:
    """Path and body of `pay precreate query cancel revoke`; the same intent gives the same.  ValueError where none can be made.

    Account fields: terminal_id, operator, notify_url.  A QR is for one wallet, which the intent's extras name.
    """
    fields = dict(intent.account.fields)
    body = {"terminal_sn": fields["terminal_id"], "client_sn": intent.order_no}
    if call in ("pay", "precreate"):
        body |= {"total_amount": str(intent.amount_fen), "subject": cut_bytes(intent.description, SUBJECT_BYTES_MAX),
                 "operator": fields.get("operator", "tillbox")}
        if fields.get("notify_url"):
            body["notify_url"] = fields["notify_url"]
    if call == "pay":
        if len(code) > CODE_CHARS_MAX:
            raise ValueError("the payer's code is longer than Shouqianba takes")
        body["dynamic_id"] = code
    if call == "precreate":
        wallet = dict(intent.extras).get("wallet", "")
        if wallet not in PAYWAYS:
            raise ValueError("a QR of Shouqianba is for one wallet, and the order names none it takes")
        body |= {"payway": PAYWAYS[wallet], "sub_payway": "2"}
    return f"/upay/v2/{call}", body


def refund_call(intent: RefundFields) -> tuple[str, dict[str, str]]:
    """Refund, and what became of it: the same number asks about the same refund.  ValueError for a number too long."""
    if len(intent.refund_no) > REFUND_NO_CHARS_MAX:
        raise ValueError("the refund's number is longer than Shouqianba takes")
    fields = dict(intent.account.fields)
    return "/upay/v2/refund", {"terminal_sn": fields["terminal_id"], "client_sn": intent.order_no,
                               "refund_request_no": intent.refund_no, "refund_amount": str(intent.amount_fen),
                               "operator": fields.get("operator", "tillbox")}


# Replies

def said_in(reply: Reply) -> tuple[Said, str, Verdict | None]:
    """(biz_response, the transport's refusal, verdict): one of the three speaks."""
    if reply.status >= 500:
        return Said(), "", Verdict("unknown", detail=f"Shouqianba answered {reply.status}", health="gone")
    if reply.status == 429:
        return Said(), "", Verdict("unknown", detail="Shouqianba asks us to slow down", health="slow")
    if reply.status != 200:
        return Said(), "", lie(f"something answered {reply.status} in Shouqianba's place")
    try:
        whole = msgspec.json.decode(reply.body, type=_Whole)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return Said(), "", lie("the reply is not what Shouqianba documents")
    code = str(whole.result_code)
    if code == "200" and whole.biz_response is not None:
        return whole.biz_response, "", None
    if code == "400":
        return Said(error_message=whole.error_message), whole.error_code or "400", None
    if code == "500":
        return Said(), "", Verdict("unknown", detail=f"Shouqianba is in trouble ({plain(whole.error_code)})", health="gone")
    return Said(), "", lie("the reply is not what Shouqianba documents")


def order_word(call: str, intent: OrderFields, reply: Reply) -> Verdict:
    """What the reply to `pay precreate query cancel` says of `intent`; word `look`: only a query can tell."""
    said, refusal, odd = said_in(reply)
    if odd is not None:
        return odd
    if refusal:
        return _refused(call, refusal, said.error_message)
    if said.result_code not in RESULTS[call]:
        return Verdict("unknown", detail=f"Shouqianba says a word we do not know here ({plain(said.result_code)})")
    if said.data is not None and (fault := _foreign(said.data, intent.order_no, intent.account, intent.amount_fen)):
        return lie(fault)
    word, detail = RESULTS[call][said.result_code], _sentence(said)
    if call in ("pay", "precreate") and said.error_code in TAKEN:
        return _taken(call, said.error_code)
    if not word:
        word = _by_error(call, said)
    if call == "query" and said.result_code == "SUCCESS":
        if said.data is None or not said.data.total_amount:
            return lie("Shouqianba answered about another order")
        word = STATES.get(said.data.order_status, "unknown")
        detail = f"Shouqianba says {plain(said.data.order_status)}" if word == "unknown" else ""
    elif (odd := _contradicts(call, word, said)) is not None:
        return odd
    unnamed = said.data is None or not said.data.total_amount
    if unnamed and (word in ("paid", "open", "qr") or said.result_code in ("CANCEL_SUCCESS", "CANCEL_ABORT_SUCCESS")):
        return lie("Shouqianba names no order and no amount")
    if word == "qr":
        return _qr(said.data.qr_code if said.data else "")
    data = said.data or Data()
    if word in ("paid", "given_back"):
        return Verdict(word, amount_fen=intent.amount_fen, channel_no=plain(data.sn), wallet=WALLETS.get(str(data.payway), ""))
    return Verdict(word, channel_no=plain(data.sn), detail=_why(word, detail))


def refund_word(intent: RefundFields, reply: Reply) -> Verdict:
    """What the reply to a refund says of `intent`; word `look`: only a query of its order can tell."""
    said, refusal, odd = said_in(reply)
    if odd is not None:
        return odd
    if refusal:
        return _refused("refund", refusal, said.error_message)
    if said.result_code not in RESULTS["refund"]:
        return Verdict("unknown", detail=f"Shouqianba says a word we do not know here ({plain(said.result_code)})")
    if said.data is not None and (fault := _foreign(said.data, intent.order_no, intent.account, intent.paid_fen)):
        return lie(fault)
    word = RESULTS["refund"][said.result_code] or _by_error("refund", said)
    if (odd := _contradicts("refund", word, said)) is not None:
        return odd
    if word == "done" and said.result_code == "REFUND_SUCCESS":
        if said.data is None:
            return lie("Shouqianba names no order and no amount")
        if (left := str(said.data.net_amount)) and not (left.isdecimal() and int(left) <= intent.paid_fen - intent.amount_fen):
            return lie(f"Shouqianba has more left of the order than a refund of {intent.amount_fen} fen leaves")
    return Verdict(word, amount_fen=intent.amount_fen, channel_no=plain((said.data or Data()).sn),
                   detail=_why(word, _sentence(said)))


def looked(intent: RefundFields, reply: Reply) -> Verdict:
    """Whether a refund that cannot be made any more was made before, by what the query of its order says.

    A number's own refund is not named there: the whole order being back proves a whole refund, nothing being back proves
    that none was made, and anything between is for a person.
    """
    said, refusal, odd = said_in(reply)
    if odd is not None:
        return odd
    data = said.data
    if refusal or data is None or said.result_code != "SUCCESS":
        return Verdict("unknown", detail="Shouqianba does not say what became of the order")
    if fault := _foreign(data, intent.order_no, intent.account, intent.paid_fen):
        return lie(fault)
    if data.order_status in ("REFUNDED", "CANCELED") and intent.amount_fen == intent.paid_fen:
        return Verdict("done", amount_fen=intent.amount_fen, channel_no=plain(data.sn))
    if data.order_status == "PAID" and str(data.net_amount) == str(intent.paid_fen):
        return Verdict("refused", detail="Shouqianba does not refund this order")
    return Verdict("unknown", detail="part of this order was given back: see on Shouqianba's own page whether this refund is in it")


def undone(intent: OrderFields, reply: Reply) -> Verdict:
    """What an order is that cannot be cancelled in its state, by the query: `refused` leaves its money where it is, for good."""
    verdict = order_word("query", intent, reply)
    if verdict.word == "paid":             # a cancel is for the day of the payment, and never after a refund
        return Verdict("refused", detail="Shouqianba cancels no order after its day or after a refund")
    if verdict.word in ("closed", "given_back"):
        return verdict
    return Verdict("unknown", detail=verdict.detail or "Shouqianba has not cancelled it yet")


def key_in(reply: Reply, terminal_sn: str) -> tuple[str, bytes] | str:
    """(terminal_sn, terminal_key) in the reply to an activation or a check-in, or why there is none.  `terminal_sn` "": any."""
    said, refusal, odd = said_in(reply)
    if odd is not None:
        return odd.detail
    if refusal:
        return f"Shouqianba refuses it: {plain(refusal)}" + (f" ({plain(said.error_message)})" if said.error_message else "")
    key = said.terminal_key.encode()
    if not terminal_ok(said.terminal_sn) or terminal_sn not in ("", said.terminal_sn) or not KEY.fullmatch(key):
        return "the reply is not what Shouqianba documents"
    return said.terminal_sn, key


def _refused(call: str, refusal: str, message: str) -> Verdict:
    """The transport's 400: this request was not looked at."""
    if refusal == "ILLEGAL_SIGN":
        word = "refused" if call == "pay" else "unknown"       # a charge is never sent again; everything else is, with a fresh key
        return Verdict(word, detail=KEY_REFUSED, health="key")
    word = "refused" if call in ("pay", "precreate") else "unknown"
    return Verdict(word, detail=f"Shouqianba refuses the request: {plain(message) or plain(refusal)}")


def _taken(call: str, error: str) -> Verdict:
    if call == "precreate" and error == "CLIENT_SN_CONFLICT":  # it made the order and its answer was lost: no way to that QR
        return Verdict("refused", detail="the QR was lost on the way: press PAY again")
    return Verdict("unknown", detail=f"Shouqianba holds this number already: ask ({error})")


def _by_error(call: str, said: Said) -> str:
    if call == "query":
        return "absent" if said.error_code in NO_ORDER else "unknown"
    return {"pay": CHARGE_ERRORS, "cancel": CANCEL_ERRORS, "refund": REFUND_ERRORS}[call].get(said.error_code, "unknown")


def _foreign(data: Data, order_no: str, account: Any, amount_fen: int) -> str:
    """Why `data` is not about our order, "" when it is."""
    if data.client_sn != order_no:
        return "Shouqianba answered about another order"
    if data.terminal_sn and data.terminal_sn != dict(account.fields)["terminal_id"]:
        return "Shouqianba answered another terminal"
    if data.total_amount and str(data.total_amount) != str(amount_fen):
        return f"Shouqianba holds another amount than the {amount_fen} fen we asked"
    return ""


def _contradicts(call: str, word: str, said: Said) -> Verdict | None:
    right = AGREE.get((call, word))
    if said.data is None or right is None or said.data.order_status in right:
        return None
    return Verdict("unknown", detail=f"Shouqianba says {said.result_code} and {plain(said.data.order_status)} at once")


def _qr(text: str) -> Verdict:
    if not (text.startswith(QR_HEADS) and text.isascii() and text.isprintable() and len(text) <= QR_CHARS_MAX):
        return lie("Shouqianba's code is not one a wallet could scan")
    return Verdict("qr", qr=text)


def _why(word: str, sentence: str) -> str:
    """`sentence` where something is wrong, and some sentence in any case where nothing is known."""
    if word in ("unknown", "processing"):
        return sentence or "Shouqianba cannot tell yet"
    return sentence if word == "refused" else ""


def _sentence(said: Said) -> str:
    return plain(said.error_message) or plain(said.error_code)
