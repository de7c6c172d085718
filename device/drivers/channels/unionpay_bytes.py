"""UnionPay ACP 5.1.0, QR payments: bytes out, words in.

Knows the requests of six calls (01/07 a QR, 01/06 a payer's code, 00/00 query, 04/00 refund, 76/01 file), the text that is
signed on either side, and what each reply proves.  Refuses to know sockets, clocks and keys.

An order is merchant, number *and* time: the same number under another time is a second order.  So the time is the intent's own,
in Beijing, in every call.  A request is built from the intent alone and RSA's signature is deterministic: a retry is the same
bytes.  Source: UnionPay ACP interface documents and demo code (signing, QR payment, query, refund, file transfer).
"""

from __future__ import annotations

import datetime
import hashlib
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl, quote, urlencode

from device.drivers.channels.codec_bytes import OrderFields, RefundFields, Reply, Request, Verdict, lie

PAY_PATH = "/gateway/api/backTransReq.do"
QUERY_PATH = "/gateway/api/queryTrans.do"
NO_NOTICE = "http://www.specialUrl.com"          # documented: no notice wanted, for the box cannot be reached
BEIJING = datetime.timezone(datetime.timedelta(hours=8))
ARRIVAL_S_MAX = 60                               # a charge that is "not known" may still be on its way for so long
QR_LIFE_S = 86_400                               # how long a QR may be paid, and nobody can close it
QR_CHARS_MAX = 512

ORDER_NO = re.compile(r"[0-9A-Za-z]{8,40}")
_MONEY = {"currencyCode": "156"}

PAID = frozenset({"00", "A6"})                   # A6: success with a defect
WAITING = frozenset({"03", "04", "05", "70"})    # not clear yet; accepted; waiting for the card holder
TAKEN = frozenset({"42", "74", "75"})            # money was taken, its booking is late, unknown or failed: no refusal
FAILED = frozenset({"01", "30", "60", "68", "31", "32", "33", "38", "39", "40", *map(str, range(61, 68)), "69",
                    "71", "72", "73", *map(str, range(76, 81))})
BROKEN = {"10": "the form of our request", "11": "our signature: check key and certificate number", "13": "a missing field",
          "14": "the form of a file"}
# Refusals of a refund.  The first two are of its form; the others may be said because of this very refund, whose answer was lost.
MALFORMED = frozenset({"10", "13"})
NEVER_REFUNDED = frozenset({"31", "32", "33", "35", "36", "38", "40", "45"})
NO_SIGNATURE, DUPLICATE, ABSENT, TOO_OFTEN, NO_FILE = "11", "12", "34", "37", "98"


# Requests, not signed yet

def place_request(intent: OrderFields) -> Request:
    """Ask for a QR.  KeyError for a missing account field, ValueError for a number or a time that UnionPay cannot take."""
    fields = dict(intent.account.fields)
    return _pay(fields, "01", "07", intent.order_no, intent.made_at, {"txnAmt": str(intent.amount_fen), **_MONEY,
                "backUrl": fields.get("notify_url", NO_NOTICE), **_terminal(fields)})


def charge_request(intent: OrderFields, code: str) -> Request:
    """Charge a payer's code; the account needs a `termId`.  An answer of 00 says accepted, not paid."""
    if not re.fullmatch(r"[0-9]{16,24}", code):
        raise ValueError("the payer's code is none of UnionPay's")
    fields = dict(intent.account.fields)
    if not fields.get("termId"):
        raise ValueError("the account names no terminal (fields.termId), and UnionPay charges codes at one")
    return _pay(fields, "01", "06", intent.order_no, intent.made_at, {"txnAmt": str(intent.amount_fen), **_MONEY, "qrNo": code,
                "backUrl": fields.get("notify_url", NO_NOTICE), "termId": fields["termId"]})


def query_request(fields: Mapping[str, str], order_no: str, made_at: str) -> Request:
    """Ask for an order or a refund by its own number and time."""
    return Request("POST", QUERY_PATH, form(_common(fields, "00", "00") | _named(order_no, made_at)))


def refund_request(intent: RefundFields) -> Request:
    """Give money back, the whole or a part, on any day: also on the day of payment, as UnionPay's documents say."""
    if not intent.channel_no:
        raise ValueError("the payment's UnionPay number (queryId) is not known, and UnionPay refunds by nothing else")
    fields = dict(intent.account.fields)
    return _pay(fields, "04", "00", intent.refund_no, intent.made_at, {
        "txnAmt": str(intent.amount_fen), "origQryId": intent.channel_no, "backUrl": fields.get("notify_url", NO_NOTICE)})


def file_request(fields: Mapping[str, str], day: str, txn_time: str) -> Request:
    """Ask for the file of settlement day `day` (YYYY-MM-DD); the account's `file_url` says where."""
    url = fields["file_url"]
    if not re.fullmatch(r"(https://|http://127\.)[^\s?#]+", url):
        raise ValueError("the account's file_url is no https address")
    asked = _common(fields, "76", "01") | {"settleDate": day[5:7] + day[8:10], "fileType": "00", "txnTime": txn_time}
    return Request("POST", url if url.count("/") > 2 else url + "/", form(asked))


def _pay(fields: Mapping[str, str], kind: str, sub: str, no: str, made_at: str, more: dict[str, str]) -> Request:
    return Request("POST", PAY_PATH, form(_common(fields, kind, sub) | _named(no, made_at) | more))


def _common(fields: Mapping[str, str], kind: str, sub: str) -> dict[str, str]:
    return {"version": "5.1.0", "encoding": "UTF-8", "signMethod": "01", "txnType": kind, "txnSubType": sub, "bizType": "000000",
            "channelType": "08", "accessType": "0", "merId": fields["mchid"]}


def _named(order_no: str, made_at: str) -> dict[str, str]:
    if not ORDER_NO.fullmatch(order_no):
        raise ValueError("UnionPay takes order numbers of 8 to 40 letters and digits")
    return {"orderId": order_no, "txnTime": beijing(made_at)}


def _terminal(fields: Mapping[str, str]) -> dict[str, str]:
    return {"termId": fields["termId"]} if "termId" in fields else {}


def beijing(at: str) -> str:
    """RFC 3339 time as UnionPay writes it, YYYYMMDDhhmmss in Beijing.  ValueError for a time without offset."""
    moment = datetime.datetime.fromisoformat(at)
    if moment.tzinfo is None:
        raise ValueError(f"{at} has no offset")
    return moment.astimezone(BEIJING).strftime("%Y%m%d%H%M%S")


# The forms and their signature

def form(fields: Mapping[str, str]) -> bytes:
    """A request's body: keys in order, values percent-encoded."""
    return urlencode(sorted(fields.items()), quote_via=quote, safe="").encode()


def form_fields(body: bytes) -> dict[str, str]:
    """The inverse of `form`."""
    return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True))


def text_to_sign(fields: Mapping[str, str]) -> bytes:
    """What is signed: without `signature` and empty values, by key, not escaped."""
    return "&".join(f"{k}={fields[k]}" for k in sorted(fields) if k != "signature" and fields[k]).encode()


def digest(text: bytes) -> bytes:
    """The hex SHA-256 of the text, which RSA-SHA256 then hashes once more: twice on purpose."""
    return hashlib.sha256(text).hexdigest().encode()


def pairs_of(body: bytes) -> dict[str, str]:
    """A reply's fields: `k=v&k=v`, nothing escaped.

    Values may hold `=`, `+`, line ends, and `&` inside braces or brackets, which nest.  ValueError for anything else: text that
    is not UTF-8, brackets that do not close, a key that is none or comes twice.
    """
    fields: dict[str, str] = {}
    for pair in _parted(body.decode("utf-8")):
        key, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9_]{1,64}", key) or key in fields:
            raise ValueError("the reply is no list of fields")
        fields[key] = value
    return fields


def _parted(text: str) -> list[str]:
    parts, start, closers = [], 0, []
    for match in re.finditer(r"[{}\[\]&]", text):
        mark = match[0]
        if mark in "{[":
            closers.append("}" if mark == "{" else "]")
        elif mark == "&" and not closers:
            parts.append(text[start:match.start()])
            start = match.end()
        elif closers and mark == closers[-1]:
            closers.pop()
    if closers:
        raise ValueError("a bracket in the reply does not close")
    return [*parts, text[start:]]


# What replies prove.  `said` are the fields of a reply whose proof holds.

def line_doubt(reply: Reply) -> Verdict | None:
    """The verdict on a reply that is none of UnionPay's forms; None when it may be one."""
    if reply.status >= 500:
        return Verdict("unknown", detail=f"UnionPay answered {reply.status}", health="gone")
    if reply.status == 429:
        return Verdict("unknown", detail="UnionPay asks us to slow down", health="slow")
    return lie(f"something answered {reply.status} in UnionPay's place") if reply.status != 200 else None


def echo_doubt(said: Mapping[str, str], asked: Mapping[str, str]) -> str:
    """Why a reply does not belong to what was asked, one sentence; "" when it does."""
    for name in ("merId", "orderId", "txnTime", "txnType", "txnSubType", "settleDate"):
        if name in asked and said.get(name) != asked[name]:
            return "UnionPay answered about another order"
    if "txnAmt" in asked and said.get("txnAmt", asked["txnAmt"]) != asked["txnAmt"]:
        return "UnionPay names another amount than we asked"
    return "" if "respCode" in said else "the reply names no result"


def place_verdict(said: Mapping[str, str]) -> Verdict:
    """`qr`, `refused` or `unknown`."""
    code = said["respCode"]
    if code == "00":
        qr = said.get("qrCode", "")
        if not (re.match(r"https://[0-9a-z.-]+\.95516\.com/", qr) and qr.isascii() and qr.isprintable()
                and len(qr) <= QR_CHARS_MAX):
            return lie("UnionPay's code is not one a wallet could scan")
        return Verdict("qr", qr=qr)
    return _first_refused(code) or _unclear(code)


def charge_verdict(said: Mapping[str, str]) -> Verdict:
    """`open`: accepted, the query decides; `refused`; `unknown`."""
    code = said["respCode"]
    return Verdict("open") if code == "00" else _first_refused(code) or _unclear(code)


def query_verdict(said: Mapping[str, str], intent: OrderFields, *, age_s: float) -> Verdict:
    """What became of an order `age_s` seconds after it was made; an undo asks the same.

    Only `origRespCode` is the payment's result.  A payer whose try at our QR failed may try again with another card for as long as
    the QR lives, and an undo cannot prevent it: until then that proves not that the order is dead.
    """
    code = said["respCode"]
    if code == ABSENT:
        if age_s < ARRIVAL_S_MAX:
            return Verdict("unknown", detail="UnionPay does not know the payment yet: it may still be on its way")
        return Verdict("absent")
    if code != "00":
        return _unclear(code)
    result = said.get("origRespCode", "")
    if result in PAID | TAKEN and (said.get("txnAmt") != str(intent.amount_fen) or said.get("currencyCode", "156") != "156"):
        return lie(f"UnionPay holds another amount than the {intent.amount_fen} fen we asked")
    if result in PAID:
        if not re.fullmatch(r"[0-9A-Za-z]{1,32}", said.get("queryId", "")):
            return lie("UnionPay says paid and names no payment")
        return Verdict("paid", amount_fen=intent.amount_fen, channel_no=said["queryId"])
    if result in FAILED:
        if intent.way == "code" or age_s >= QR_LIFE_S + ARRIVAL_S_MAX:
            return Verdict("closed", detail=f"the payment failed ({result})")
        return Verdict("unknown", detail=f"the payer's try failed ({result}): the code may be scanned again")
    if result in TAKEN:
        return Verdict("unknown", amount_fen=intent.amount_fen,
                       detail=f"money was taken and its booking is not clear ({result}): UnionPay's file will tell")
    if result in WAITING:
        return Verdict("unknown")
    return Verdict("unknown", detail="UnionPay names a result we do not know") if result else lie("the reply names no result")


def refund_verdict(said: Mapping[str, str], intent: RefundFields) -> Verdict:
    """`processing`, `refused`, `unknown`.

    A duplicate, or a refusal that an earlier try of ours may have caused, `follow`s with the question what became of this number:
    `refund_query_verdict`, and of a number that nobody knows `refused_verdict`.
    """
    code = said["respCode"]
    if code in PAID:
        return Verdict("processing", amount_fen=intent.amount_fen, channel_no=said.get("queryId", ""))
    if code == DUPLICATE or code in NEVER_REFUNDED:
        return Verdict("unknown", follow=query_request(dict(intent.account.fields), intent.refund_no, intent.made_at))
    if code in MALFORMED:
        return Verdict("refused", detail=f"UnionPay refuses this refund ({code})")
    return _unclear(code)


def refused_verdict(code: str, age_s: float) -> Verdict:
    """A refund that was refused with `code`, and whose number is nobody's, says UnionPay `age_s` seconds after it was made."""
    if code not in NEVER_REFUNDED or age_s < ARRIVAL_S_MAX:
        return Verdict("unknown", detail=f"UnionPay did not take the refund ({code}) and does not know its number: ask")
    return Verdict("refused", detail=f"UnionPay refuses this refund ({code})")


def refund_query_verdict(said: Mapping[str, str], intent: RefundFields) -> Verdict:
    """`done`, `processing`, `absent`, `refused`, `unknown`."""
    code, result = said["respCode"], said.get("origRespCode", "")
    if code == ABSENT:
        return Verdict("absent")
    if code != "00":
        return _unclear(code)
    if result in PAID:
        if said.get("txnAmt") != str(intent.amount_fen):
            return lie(f"UnionPay refunds another amount than the {intent.amount_fen} fen we asked")
        return Verdict("done", amount_fen=intent.amount_fen, channel_no=said.get("queryId", ""))
    if result in WAITING:
        return Verdict("processing", amount_fen=intent.amount_fen)
    if result in FAILED | NEVER_REFUNDED | MALFORMED:
        return Verdict("refused", detail=f"UnionPay did not refund ({result})")
    return Verdict("unknown", detail="UnionPay names a result we do not know")


def file_verdict(said: Mapping[str, str]) -> Verdict | None:
    """None when the file is there; else why not yet.  98 is said of a file not ready and of an empty day: neither is proven."""
    if said["respCode"] == NO_FILE:
        return Verdict("unknown", detail="the file is not ready, or the day is empty: UnionPay says one word for both")
    return None if said["respCode"] == "00" else _unclear(said["respCode"])


def _first_refused(code: str) -> Verdict | None:
    if code in BROKEN:
        return Verdict("refused", detail=f"UnionPay does not accept {BROKEN[code]} ({code})", key_refused=code == NO_SIGNATURE)
    return Verdict("refused", detail=f"UnionPay refuses this payment ({code})") if code in FAILED else None


def _unclear(code: str) -> Verdict:
    word = code if re.fullmatch(r"[0-9A-Z]{2}", code) else "?"
    if code == TOO_OFTEN:
        return Verdict("unknown", detail="UnionPay asks us to slow down (37)", health="slow")
    if code == DUPLICATE:
        return Verdict("unknown", detail="UnionPay has this number already: ask (12)")
    return Verdict("unknown", detail=f"UnionPay did not say what became of it ({word})", key_refused=code == NO_SIGNATURE)
