"""Alipay OpenAPI gateway 1.0: what a proven answer says of an order, a refund or a bill.

Knows codes, sub-codes and trade states, and which of them leads to a further question.  Refuses to know sockets, clocks, keys and
signatures: `said` is always an answer whose signature holds, but for `hint`, which reads one that carries none.

A *trail* is what one effect has asked so far, as (method, answer), oldest first; its last answer is the one to judge.

*A QR nobody scanned does not exist at Alipay.*  So "no such trade" says nothing while the code may still be scanned, and only
a close that meets it may put the order aside: it is watched then until its code is dead.
*A closed trade may have been paid once.*  The refund query under the order's own number tells what a cancel gave back.
Source: Alipay open documentation (face-to-face payment, trade query, cancel, close, refund), codes as its SDKs list them.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from device.drivers.channels import alipay_bytes as wire
from device.drivers.channels.codec_bytes import OrderFields, RefundFields, Reply, Request, Verdict, lie, plain

QR_CHARS_MAX = 512
QR_LIFE_S = 7_200                      # whatever end we asked for
ARRIVAL_S_MAX = 60                     # a charge that is "not known" may still be on its way for so long
NO_BILL_AFTER_S = 36 * 3600            # behind a day's end: from then on "no bill" means that nothing was traded

Said = Mapping[str, Any]
Trail = tuple[tuple[str, Said], ...]

OK, PAYING = "10000", "10003"
OUT_OF_ORDER, TOO_OFTEN, BUSINESS = "20000", "40005", "40004"
SETUP = {"20001": "the shop's authorisation", "40001": "a request with a parameter missing", "40002": "a parameter of the request",
         "40003": "the conditions of the call", "40006": "this app for the call"}
STALE = "isv.invalid-timestamp"
SETUP_HINTS = {
    "isv.invalid-signature": "Alipay does not accept our signature: check private_key_file and the key that the portal holds",
    "isv.invalid-app-id": "Alipay does not know this appid",
    STALE: "Alipay's clock and ours differ: check the clock",
    "isv.insufficient-isv-permissions": "this app has no face-to-face payment: sign it in the portal",
    "aop.invalid-auth-token": "the shop's authorisation (secret) is not valid: have it given anew",
    "aop.invalid-app-auth-token": "the shop's authorisation (secret) is not valid: have it given anew",
}
KEY_REFUSED = frozenset({"isv.invalid-signature", "isv.invalid-app-cert-sn"})

# Tails of sub_code.  What stands in no table is unknown.
CHARGE_REFUSED = {                     # no money moves under this number
    "PAYMENT_AUTH_CODE_INVALID": "the payment code is wrong, too old or used",
    "BUYER_BALANCE_NOT_ENOUGH": "not enough money in the wallet",
    "BUYER_BANKCARD_BALANCE_NOT_ENOUGH": "not enough money on the card",
    **dict.fromkeys(("BUYER_PAYMENT_AMOUNT_DAY_LIMIT_ERROR", "BUYER_PAYMENT_AMOUNT_MONTH_LIMIT_ERROR", "BEYOND_PAY_RESTRICTION",
                     "BEYOND_PER_RECEIPT_RESTRICTION", "TOTAL_FEE_EXCEED"), "the amount is above a limit"),
    **dict.fromkeys(("ERROR_BALANCE_PAYMENT_DISABLE", "NO_PAYMENT_INSTRUMENTS_AVAILABLE", "MOBILE_PAYMENT_SWITCH_OFF",
                     "PULL_MOBILE_CASHIER_FAIL", "USER_FACE_PAYMENT_SWITCH_OFF", "BUYER_ENABLE_STATUS_FORBID", "PAYMENT_FAIL",
                     "BUYER_SELLER_EQUAL", "PAYMENT_REQUEST_HAS_RISK"), "the wallet cannot pay this"),
    **dict.fromkeys(("INVALID_PARAMETER", "EXIST_FORBIDDEN_WORD", "INVALID_STORE_ID"), "Alipay takes no such order"),
    **dict.fromkeys(("ACCESS_FORBIDDEN", "PARTNER_ERROR", "SELLER_BEEN_BLOCKED"), "this shop may not take payments"),
}
ASK = {                                # the number is known and something became of it: the query decides
    "TRADE_HAS_SUCCESS": "the order is paid already, says Alipay: ask",
    "TRADE_HAS_CLOSE": "the order is closed already, says Alipay: ask",
    "CONTEXT_INCONSISTENT": "Alipay holds this number with other content: ask",
    "TRADE_BUYER_NOT_MATCH": "Alipay holds this number for another payer: ask",
}
ABSENT = "TRADE_NOT_EXIST"
NOT_CLOSABLE = frozenset({"TRADE_STATUS_ERROR", "REASON_TRADE_STATUS_INVALID", "REASON_ILLEGAL_STATUS"})
NEVER_CANCELLED = {"TRADE_CANCEL_TIME_OUT": "too late to cancel", "TRADE_HAS_FINISHED": "the trade is finished",
                   "CANCEL_NOT_ALLOWED": "Alipay allows no cancel", "REASON_TRADE_REFUND_FEE_ERR": "a part was refunded before"}
NEVER_REFUNDED = frozenset({"INVALID_PARAMETER", "REFUND_AMT_NOT_EQUAL_TOTAL", ABSENT, "TRADE_HAS_FINISHED", "TRADE_STATUS_ERROR",
                            "REFUND_FEE_ERROR", "TRADE_NOT_ALLOW_REFUND", "REASON_TRADE_STATUS_INVALID"})
SAME_REFUND = "DISCORDANT_REPEAT_REQUEST"
NO_BILL = frozenset({"NO_BILL_DATA", "BILL_NOT_EXIST"})
BILL_HOSTS = (".alipay.com", ".alipaydev.com")


def line_doubt(reply: Reply) -> Verdict | None:
    """The verdict on a reply that is none of Alipay's; None when it may be one."""
    if reply.status >= 500:
        return Verdict("unknown", detail=f"Alipay answered {reply.status}", health="gone")
    if reply.status == 429:
        return Verdict("unknown", detail="Alipay asks us to slow down", health="slow")
    return lie(f"something answered {reply.status} in Alipay's place") if reply.status != 200 else None


def said_of(inner: bytes) -> dict[str, Any]:
    """The answer's members.  ValueError when it is no JSON object with a `code`."""
    try:
        said = msgspec.json.decode(inner, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError):
        raise ValueError("the answer is not what Alipay documents") from None
    if not isinstance(said.get("code"), str):
        raise ValueError("the answer names no code")
    return said


def hint(method: str, said: Said) -> Verdict:
    """What an error without a signature may say.  It proves nothing: at most, that our first request for a QR is not taken."""
    if said["code"] in (OK, PAYING):
        return lie("the reply carries no signature")
    verdict = _unclear(said)
    if method == wire.PLACE and said["code"] in SETUP:
        return msgspec.structs.replace(verdict, word="refused")
    return verdict


# Orders

def order_word(trail: Trail, intent: OrderFields, *, closing: bool, now_s: float) -> Verdict:
    """What the last answer of `trail` proves about `intent`; `closing` when an undo asks."""
    method, said = trail[-1]
    named = said["code"] in (OK, PAYING) and method != wire.REFUND_QUERY      # that one names nothing when it knows nothing
    if said.get("out_trade_no", "" if named else intent.order_no) != intent.order_no:
        return lie("Alipay answered about another order")
    if method == wire.PLACE:
        return place_verdict(said)
    if method == wire.PAY:
        return charge_verdict(said, intent)
    if method == wire.CLOSE:
        return close_verdict(said, intent, now_s)
    if method == wire.CANCEL:
        return cancel_verdict(said, intent, now_s)
    if method == wire.QUERY:
        return query_verdict(said, intent, closing=closing, now_s=now_s)
    assert method == wire.REFUND_QUERY, method
    return closed_verdict(said, trail[-2][1], intent)


def place_verdict(said: Said) -> Verdict:
    """`qr`, `refused` or `unknown`."""
    if said["code"] == OK:
        qr = said.get("qr_code")
        if not (isinstance(qr, str) and re.match(r"https://[0-9a-z.-]+\.alipay(dev)?\.com/.", qr, re.IGNORECASE)
                and qr.isascii() and qr.isprintable() and " " not in qr and len(qr) <= QR_CHARS_MAX):
            return lie("Alipay's code is not one a wallet could scan")
        return Verdict("qr", qr=qr)
    return _first_refused(said)


def charge_verdict(said: Said, intent: OrderFields) -> Verdict:
    """`paid`; `open`: its payer is asked; `refused`; `unknown`."""
    if said["code"] == OK:
        return _paid(said, intent)
    return Verdict("open") if said["code"] == PAYING else _first_refused(said)


def query_verdict(said: Said, intent: OrderFields, *, closing: bool, now_s: float) -> Verdict:
    """`paid` `open` `absent` `unknown`; a closed trade `follow`s with the question whether money was taken and given back."""
    if said["code"] != OK:
        return _not_there(intent, now_s) if _tail(said) == ABSENT else _unclear(said)
    status = said.get("trade_status")
    if status in ("TRADE_SUCCESS", "TRADE_FINISHED"):
        verdict = _paid(said, intent)
        if closing and intent.way == "code" and verdict.word == "paid":
            # A cancel gives money back by itself: it is repeated, and nothing is refunded beside it.
            return Verdict("unknown", detail="Alipay has not cancelled it yet: once more")
        return verdict
    if "total_amount" in said and fen_of(said["total_amount"]) != intent.amount_fen:
        return lie(f"Alipay holds another amount than the {intent.amount_fen} fen we asked")
    if status == "WAIT_BUYER_PAY":
        return Verdict("unknown", detail="Alipay has not closed it yet: once more") if closing else Verdict("open")
    if status == "TRADE_CLOSED":
        return Verdict("unknown", follow=wire.refund_query_request(
            dict(intent.account.fields), intent.order_no, intent.order_no, _at(now_s)))
    return Verdict("unknown", detail="Alipay names a trade state we do not know")


def closed_verdict(said: Said, trade: Said, intent: OrderFields) -> Verdict:
    """Of a closed trade, after the refund query under its own number: `given_back`, `closed` or `unknown`."""
    back = Verdict("given_back", amount_fen=intent.amount_fen, channel_no=_trade_no(trade))
    if said["code"] != OK:
        return _unclear(said)
    if said.get("out_request_no", intent.order_no) != intent.order_no:
        return lie("Alipay answered about another refund")
    status = said.get("refund_status", "")
    if status == "REFUND_SUCCESS":
        return back
    if status:
        return Verdict("unknown", detail="Alipay has not given it back yet")
    if trade.get("send_pay_date"):                     # paid once, and nothing of it is left: not by an undo of ours
        return msgspec.structs.replace(back, detail="paid, and given back under another number")
    return Verdict("closed")


def close_verdict(said: Said, intent: OrderFields, now_s: float) -> Verdict:
    """`closed`; `absent`: never scanned; a trade that cannot be closed any more `follow`s with the question what it is."""
    if said["code"] == OK:
        return Verdict("closed")
    if _tail(said) == ABSENT:
        return Verdict("absent")
    return _ask_again(intent, now_s) if _tail(said) in NOT_CLOSABLE else _unclear(said)


def cancel_verdict(said: Said, intent: OrderFields, now_s: float) -> Verdict:
    """`closed` `given_back` `refused` `unknown`; without an `action` it found nothing or failed, and the query `follow`s."""
    if said["code"] != OK:
        if why := NEVER_CANCELLED.get(_tail(said)):
            return Verdict("refused", detail=f"{why}: refund it ({_tail(said)})")
        return _not_there(intent, now_s) if _tail(said) == ABSENT else _unclear(said)
    action = said.get("action", "")
    if said.get("retry_flag") != "N":
        return Verdict("unknown", detail="Alipay wants the cancel again")
    if action == "close":
        return Verdict("closed")
    if action == "refund":
        return Verdict("given_back", amount_fen=intent.amount_fen, channel_no=_trade_no(said))
    return Verdict("unknown", detail="Alipay names an action we do not know") if action else _ask_again(intent, now_s)


def _ask_again(intent: OrderFields, now_s: float) -> Verdict:
    return Verdict("unknown", follow=wire.order_request(wire.QUERY, intent, _at(now_s)))


def _paid(said: Said, intent: OrderFields) -> Verdict:
    fen = fen_of(said.get("total_amount"))
    if fen is None:
        return lie("Alipay says paid and names no amount")
    if fen != intent.amount_fen:
        return lie(f"Alipay holds {fen} fen where we asked {intent.amount_fen}")
    if not _trade_no(said):
        return lie("Alipay says paid and names no trade")
    return Verdict("paid", amount_fen=fen, channel_no=_trade_no(said),
                   wallet="ecny" if said.get("receipt_currency_type") == "DC" else "")


def _not_there(intent: OrderFields, now_s: float) -> Verdict:
    age_s = now_s - datetime.datetime.fromisoformat(intent.made_at).timestamp()
    if intent.way == "qr" and age_s < QR_LIFE_S:
        return Verdict("unknown", detail="nobody has scanned the code yet")
    if intent.way == "code" and age_s < ARRIVAL_S_MAX:
        return Verdict("unknown", detail="Alipay does not know the charge yet: it may still be on its way")
    return Verdict("absent")


def _first_refused(said: Said) -> Verdict:
    if said["code"] in SETUP:
        return msgspec.structs.replace(_unclear(said), word="refused")
    if said["code"] == BUSINESS and (why := CHARGE_REFUSED.get(_tail(said))):
        return Verdict("refused", detail=f"{why} ({_tail(said)})")
    return _unclear(said)


# Refunds

def refund_word(trail: Trail, intent: RefundFields, *, now_s: float) -> Verdict:
    """What the last answer of `trail` proves about a refund."""
    method, said = trail[-1]
    if said.get("out_trade_no", intent.order_no) != intent.order_no:
        return lie("Alipay answered about another order")
    if method == wire.REFUND:
        return refund_verdict(said, intent, now_s, again=len(trail) == 1)
    assert method == wire.REFUND_QUERY, method
    return refund_query_verdict(said, intent, refused=refusal(trail[-2][1]) if len(trail) > 1 else "")


def refund_verdict(said: Said, intent: RefundFields, now_s: float, *, again: bool) -> Verdict:
    """`done` only when money moved; whatever else was definite, a refusal too, `follow`s with the refund query.

    `again`: a stamp that is too old for Alipay's clock is renewed once, for a refund may wait for days; its number stays.
    """
    if said.get("sub_code") == STALE and again:
        return Verdict("unknown", follow=wire.refund_request(intent, _at(now_s)))
    asks = Verdict("unknown", follow=wire.refund_query_request(
        dict(intent.account.fields), intent.order_no, intent.refund_no, _at(now_s)))
    if said["code"] != OK:
        return asks if refusal(said) or _tail(said) == SAME_REFUND else _unclear(said)
    if said.get("out_trade_no") != intent.order_no:
        return lie("Alipay answered about another order")
    if said.get("fund_change") != "Y":
        return asks
    whole = fen_of(said.get("refund_fee"))             # everything that ever went back
    if whole is None or not intent.amount_fen <= whole <= intent.paid_fen:
        return lie(f"Alipay's sum of refunds does not hold the {intent.amount_fen} fen we asked")
    return Verdict("done", amount_fen=intent.amount_fen, channel_no=_trade_no(said))


def refusal(said: Said) -> str:
    """Why Alipay will never refund this, one sentence; "" when it did not say so."""
    never = said["code"] == BUSINESS and _tail(said) in NEVER_REFUNDED
    return f"Alipay refuses this refund ({_tail(said)})" if never else ""


def refund_query_verdict(said: Said, intent: RefundFields, *, refused: str = "") -> Verdict:
    """`done` `processing` `absent` `unknown`; `refused` when it was and the query knows nothing of it either."""
    nothing = Verdict("refused", detail=refused) if refused else Verdict("absent")
    if said["code"] != OK:
        return nothing if _tail(said) == ABSENT else _unclear(said)
    status = said.get("refund_status", "")
    if not status:
        return nothing
    if (said.get("out_trade_no"), said.get("out_request_no")) != (intent.order_no, intent.refund_no):
        return lie("Alipay answered about another refund")
    if status == "REFUND_PROCESSING":
        return Verdict("processing", amount_fen=intent.amount_fen)
    if status != "REFUND_SUCCESS":
        return Verdict("unknown", detail="Alipay names a refund state we do not know")
    if fen_of(said.get("refund_amount")) != intent.amount_fen:
        return lie(f"Alipay refunds another amount than the {intent.amount_fen} fen we asked")
    return Verdict("done", amount_fen=intent.amount_fen, channel_no=_trade_no(said))


# Bills

def bill_word(said: Said, *, day: str, now_s: float) -> Verdict:
    """Where the bill lies, as a `follow`; `refused` when nothing was traded that day; `unknown` while that is not proven."""
    if said["code"] == OK and said.get("bill_download_url"):
        url = _bill_url(str(said["bill_download_url"]))
        if not url:
            return lie("Alipay's bill lies at an address that is not Alipay's")
        return Verdict("follow", follow=Request("GET", url, headers={"User-Agent": "tillbox"}))
    if said["code"] == OK and said.get("bill_file_code") == "EMPTY_DATA_WITH_BILL_FILE":
        return Verdict("refused", detail="no trade on that day")
    if said["code"] != OK and _tail(said) in NO_BILL:
        end_s = (datetime.datetime.fromisoformat(day).replace(tzinfo=wire.BEIJING) + datetime.timedelta(days=1)).timestamp()
        if now_s >= end_s + NO_BILL_AFTER_S:
            return Verdict("refused", detail="no trade on that day")
        return Verdict("unknown", detail="the bill is not ready, or the day is empty: Alipay says one word for both")
    return _unclear(said) if said["code"] != OK else lie("the reply names no bill")


def _bill_url(url: str) -> str:
    """`url` as we ask for it, "" when it is not Alipay's.  Nothing signs the file, so the line must prove it: https alone."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not url.isascii() or not url.isprintable() or " " in url:
        return ""
    if host.endswith(BILL_HOSTS):
        return parts._replace(scheme="https").geturl()
    return url if host == "127.0.0.1" else ""          # a local server, as the base address may be


# Words shared

def fen_of(text: object) -> int | None:
    """Yuan with at most two decimals as fen; None for anything else."""
    found = re.fullmatch(r"(\d{1,9})(?:\.(\d{1,2}))?", text, re.ASCII) if isinstance(text, str) else None
    return int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found is not None else None


def _unclear(said: Said) -> Verdict:
    """An answer that decides nothing, with a sentence."""
    code, sub = said["code"], plain(str(said.get("sub_code", ""))) or plain(said["code"])
    if code == TOO_OFTEN:
        return Verdict("unknown", detail=f"Alipay asks us to slow down ({sub})", health="slow")
    if code == OUT_OF_ORDER:
        return Verdict("unknown", detail=f"Alipay is out of order for a moment ({sub})", health="slow")
    if code in SETUP:
        return Verdict("unknown", detail=f"{SETUP_HINTS.get(sub, 'Alipay does not accept ' + SETUP[code])} ({sub})",
                       key_refused=sub in KEY_REFUSED)
    return Verdict("unknown", detail=ASK.get(_tail(said)) or f"Alipay did not say what became of it ({sub})")


def _tail(said: Said) -> str:
    """The business code without its prefix, which is ACQ, AQC or none; "" for an answer that is no business failure."""
    sub = said.get("sub_code") if said["code"] == BUSINESS else ""
    return plain(sub.rpartition(".")[2]).upper() if isinstance(sub, str) else ""


def _trade_no(said: Said) -> str:
    no = said.get("trade_no")
    return no if isinstance(no, str) and re.fullmatch(r"[0-9A-Za-z]{1,64}", no) else ""


def _at(now_s: float) -> str:
    return datetime.datetime.fromtimestamp(now_s, wire.BEIJING).isoformat()
