"""WeChat Pay API v3: what each reply says, once its proof was looked at.

Knows the words of every call and what an error may claim.  Refuses to know keys and clocks: `fault` is what `proof_fault` said of a
reply, the time is handed in.  Source: WeChat Pay merchant documentation, API v3 (Native payment, refunds, error codes).
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

import msgspec

from device.drivers.channels.codec_bytes import OrderFields, RefundFields, Reply, Request, Verdict, plain
from device.drivers.channels.wechat_bytes import PROBE_DOUBT, REPLY_AGE_S_MAX, is_signed, merchants

QR_CHARS_MAX = 512
CERTIFICATES_MAX = 16
BILL_HOSTS = (".weixin.qq.com", ".wechatpay.cn")

TRADE_WORDS = {                        # trade_state of a proven query reply
    "SUCCESS": "paid",
    "REFUND": "paid",                  # paid, and at least one refund accepted
    "NOTPAY": "open",
    "USERPAYING": "open",
    "ACCEPT": "open",
    "PAYERROR": "open",                # a bank said no; the order itself still lives
    "CLOSED": "closed",
    "REVOKED": "closed",               # reversed: whatever was taken is back; `given_back` when a payment is named
}

REVERSED = "reversed: should the payer have paid in the last moment, it went back"
REFUND_WORDS = {                       # status of a proven refund reply
    "SUCCESS": "done",
    "PROCESSING": "processing",
    "ABNORMAL": "abnormal",
    "CLOSED": "refused",
}

# What an error may say, call by call, codes without their underscores because both spellings are in use.  Error replies
# may come unsigned, so none says paid or closed: such an error names the query that will.  Whatever stands in no row is
# `unknown`.  INVALID_REQUEST on create is left out on purpose: WeChat says it of paid orders and of repeats too.
ERROR_WORDS: dict[str, dict[str, tuple[str, str]]] = {
    "place": {
        "PARAMERROR": ("refused", "WeChat takes no such order"),
        "SIGNERROR": ("refused", "WeChat does not accept our signature: check merchant key and serial"),
        "NOAUTH": ("refused", "this merchant may not use native orders, or not for this sub-merchant"),
        "MCHNOTEXISTS": ("refused", "WeChat does not know this merchant"),
        "APPIDMCHIDNOTMATCH": ("refused", "appid and merchant do not belong together"),
        "ACCOUNTERROR": ("refused", "the merchant account is restricted"),
    },
    "query": {"ORDERNOTEXIST": ("absent", "")},
    "close": {"ORDERNOTEXIST": ("absent", "")},
    "refund": {
        "PARAMERROR": ("refused", "WeChat takes no such refund"),
        "INVALIDREQUEST": ("refused", "WeChat's rules refuse this refund"),
    },
    "charge": {                        # proven only: a code may be charged whatever somebody else says
        "AUTHCODEEXPIRE": ("refused", "the payment code is too old"),
        "AUTHCODEERROR": ("refused", "the payment code is wrong"),
        "AUTHCODEINVALID": ("refused", "the payment code was used before or is too old"),
        "NOTENOUGH": ("refused", "not enough money in the wallet"),
        "NOTSUPORTCARD": ("refused", "the wallet's card cannot be used here"),
        "BUYERMISMATCH": ("refused", "one order, two payers"),
        "TRADEERROR": ("refused", "WeChat refused this payment"),
        "RULELIMIT": ("refused", "WeChat's limits refuse this payment"),
        "PARAMERROR": ("refused", "WeChat takes no such order"),
        "NOAUTH": ("refused", "this merchant may not charge payment codes by API v3: take code_api out of box.toml"),
        "ACCOUNTERROR": ("refused", "the merchant account is restricted"),
        "MCHNOTEXISTS": ("refused", "WeChat does not know this merchant"),
        "APPIDMCHIDNOTMATCH": ("refused", "appid and merchant do not belong together"),
        "SIGNERROR": ("refused", "WeChat does not accept our signature: check merchant key and serial"),
    },
    "reverse": {"ORDERNOTEXIST": ("absent", ""), "REVERSEEXPIRE": ("refused", "too late to reverse: refund it")},
    "refund_query": {"RESOURCENOTEXISTS": ("absent", "")},
    "bill": {"NOSTATEMENTEXIST": ("refused", "no trade on that day"), "STATEMENTCREATING": ("unknown", "the bill is not made yet")},
}

ASK_CODES = {                          # the order is known and something became of it: the query decides
    "ORDERPAID": "the order is paid already, says WeChat: ask",
    "ORDERCLOSED": "the order is closed already, says WeChat: ask",
    "ORDERREVERSED": "the order is reversed already, says WeChat: ask",
    "OUTTRADENOUSED": "the order number is used already, says WeChat: ask",
}

ASK_TAILS = {                          # numeric reason at the end of Request-ID; it outranks the code
    "268449538": ASK_CODES["ORDERPAID"],
    "268498689": ASK_CODES["ORDERPAID"],
    "268447914": ASK_CODES["ORDERCLOSED"],
    # Our retries are byte-identical within one release.  After an update in between they might not be, and the order
    # under this number would be our own: so a repeat with other content is asked after, not given up.
    "268498688": "WeChat holds this number with other content: ask",
}


class _OrderMade(msgspec.Struct):
    code_url: str


class _TradeAmount(msgspec.Struct):
    total: int
    currency: str = "CNY"


class _Trade(msgspec.Struct):
    trade_state: str
    out_trade_no: str = ""               # a charge whose payer is asked is answered by its state alone
    mchid: str = ""
    sp_mchid: str = ""
    sub_mchid: str = ""
    transaction_id: str | None = None
    amount: _TradeAmount | None = None


class _RefundAmount(msgspec.Struct):
    refund: int
    total: int
    currency: str = "CNY"


class _Refund(msgspec.Struct):
    out_refund_no: str
    out_trade_no: str
    status: str
    amount: _RefundAmount
    refund_id: str | None = None


class _ErrorDetail(msgspec.Struct):
    field: str | None = None


class _Error(msgspec.Struct):
    code: str
    message: str | None = None
    detail: _ErrorDetail | None = None


def order_word(call: str, intent: OrderFields, reply: Reply, doubt: str, *, now_s: float) -> Verdict:
    """What `reply` to `place`, `query` or `close` proves about `intent`; `doubt` is what `proof_fault` said of it."""
    if call == "place":
        return place_verdict(reply, doubt, now_s=now_s)
    if call == "close":
        return close_verdict(reply, doubt, now_s=now_s)
    return query_verdict(reply, doubt, order_no=intent.order_no, whose=merchants(dict(intent.account.fields)),
                         amount_fen=intent.amount_fen, now_s=now_s)


def refund_word(call: str, intent: RefundFields, reply: Reply, doubt: str, *, now_s: float) -> Verdict:
    """What `reply` to `refund` or `refund_query` proves about `intent`."""
    return refund_verdict(call, reply, doubt, refund_no=intent.refund_no, order_no=intent.order_no,
                          amount_fen=intent.amount_fen, now_s=now_s)


_NO_JSON = (msgspec.MsgspecError, ValueError, RecursionError)


def place_verdict(reply: Reply, fault: str, *, now_s: float) -> Verdict:
    """What the reply to a create proves: `qr`, `refused` or `unknown`.  `fault` is what `proof_fault` said of it."""
    if (odd := _unproven("place", reply, fault, now_s)) is not None:
        return odd
    try:
        qr = msgspec.json.decode(reply.body, type=_OrderMade).code_url
    except _NO_JSON:
        return _lie("the reply to the order is not what WeChat documents")
    if not (qr.startswith("weixin://") and qr.isascii() and qr.isprintable() and len(qr) <= QR_CHARS_MAX):
        return _lie("WeChat's code is not one a wallet could scan")
    return Verdict("qr", qr=qr)


def query_verdict(reply: Reply, fault: str, *, order_no: str, whose: Mapping[str, str], amount_fen: int, now_s: float) -> Verdict:
    """What the reply to a query proves; number, merchant (`whose`, as `merchants` has it) and amount must be the intent's."""
    if (odd := _unproven("query", reply, fault, now_s)) is not None:
        return odd
    try:
        trade = msgspec.json.decode(reply.body, type=_Trade)
    except _NO_JSON:
        return _lie("the reply to the query is not what WeChat documents")
    if trade.out_trade_no != order_no or any(getattr(trade, name) != number for name, number in whose.items()):
        return _lie("WeChat answered about another order")
    word = TRADE_WORDS.get(trade.trade_state)
    if word is None:
        return Verdict("unknown", detail="WeChat names a trade state we do not know")
    if trade.amount is None and word == "paid":
        return _lie("WeChat says paid and names no amount")
    if trade.amount is not None and (trade.amount.total, trade.amount.currency) != (amount_fen, "CNY"):
        return _lie(f"WeChat holds {trade.amount.total} fen where we asked {amount_fen}")
    held_fen = trade.amount.total if trade.amount is not None else 0
    if trade.trade_state == "REVOKED":               # only what was paid has a number of WeChat's; without one it may have been
        paid = bool(trade.transaction_id)
        return Verdict("given_back" if paid else word, held_fen, trade.transaction_id or "", "" if paid else REVERSED)
    return Verdict(word, amount_fen=held_fen, channel_no=trade.transaction_id or "")


def undone_verdict(asked: Verdict) -> Verdict:
    """What a proven reversal did, by what the query after it proves: the reversal itself only says that the order is dead."""
    if asked.word in ("paid", "open"):
        return Verdict("unknown", detail="WeChat took the reversal and does not show it yet")
    return asked if asked.word == "given_back" else Verdict("closed", detail=REVERSED, health=asked.health)


CHARGE_WORDS = {"SUCCESS": "paid", "USERPAYING": "open", "NOTPAY": "open", "ACCEPT": "open"}


def charge_verdict(intent: OrderFields, reply: Reply, fault: str, *, now_s: float) -> Verdict:
    """What the reply to a charge proves: `paid`, `open`, `refused` or `unknown`; nothing unless it is proven."""
    if reply.status == 202 and not fault and _code_of(reply) == "USERPAYING":
        return Verdict("open")
    if (odd := _unproven("charge", reply, fault, now_s)) is not None:
        return odd if odd.word != "refused" or not fault else msgspec.structs.replace(odd, word="unknown")
    try:
        trade = msgspec.json.decode(reply.body, type=_Trade)
    except _NO_JSON:
        return _lie("the reply to the charge is not what WeChat documents")
    word = CHARGE_WORDS.get(trade.trade_state)
    whose = merchants(dict(intent.account.fields))
    named = {"out_trade_no": intent.order_no} | whose if word == "paid" else {}
    if any(getattr(trade, name) != value for name, value in named.items()) or trade.out_trade_no not in ("", intent.order_no):
        return _lie("WeChat answered about another order")
    if word is None:
        return Verdict("unknown", detail="WeChat did not say what became of the charge: ask")
    if word != "paid":
        return Verdict(word)
    if trade.amount is None or (trade.amount.total, trade.amount.currency) != (intent.amount_fen, "CNY"):
        return _lie(f"WeChat charged another amount than the {intent.amount_fen} fen we asked")
    return Verdict("paid", amount_fen=intent.amount_fen, channel_no=trade.transaction_id or "")


class _Reversed(msgspec.Struct):
    out_trade_no: str
    mchid: str = ""
    sp_mchid: str = ""
    sub_mchid: str = ""


def reverse_verdict(intent: OrderFields, reply: Reply, fault: str, *, now_s: float) -> Verdict:
    """What the reply to a reversal proves: `closed`, `refused`, `absent` or `unknown`."""
    if (odd := _unproven("reverse", reply, fault, now_s)) is not None:
        return odd if odd.word != "refused" or not fault else msgspec.structs.replace(odd, word="unknown")
    try:
        undone = msgspec.json.decode(reply.body, type=_Reversed)
    except _NO_JSON:
        return _lie("the reply to the reversal is not what WeChat documents")
    named = {"out_trade_no": intent.order_no} | merchants(dict(intent.account.fields))
    if any(getattr(undone, name) != value for name, value in named.items()):
        return _lie("WeChat answered about another order")
    return Verdict("closed")


def close_verdict(reply: Reply, fault: str, *, now_s: float) -> Verdict:
    """What the reply to a close proves: only a signed, empty 204 is `closed`."""
    if (odd := _unproven("close", reply, fault, now_s)) is not None:
        return odd
    if reply.status != 204 or reply.body:
        return _lie("the reply to the close is not what WeChat documents")
    return Verdict("closed")


def refund_verdict(call: str, reply: Reply, fault: str, *, refund_no: str, order_no: str, amount_fen: int,
                   now_s: float) -> Verdict:
    """What the reply to a refund or a refund query proves.  `call` is `refund` or `refund_query`."""
    if (odd := _unproven(call, reply, fault, now_s)) is not None:
        return odd
    try:
        refund = msgspec.json.decode(reply.body, type=_Refund)
    except _NO_JSON:
        return _lie("the reply to the refund is not what WeChat documents")
    if (refund.out_refund_no, refund.out_trade_no) != (refund_no, order_no):
        return _lie("WeChat answered about another refund")
    if (refund.amount.refund, refund.amount.currency) != (amount_fen, "CNY"):
        return _lie(f"WeChat refunds {refund.amount.refund} fen where we asked {amount_fen}")
    word = REFUND_WORDS.get(refund.status)
    if word is None:
        return Verdict("unknown", detail="WeChat names a refund state we do not know")
    detail = {"abnormal": "the payer's account cannot take the refund: use the merchant portal",
              "refused": "WeChat closed this refund without paying it"}.get(word, "")
    return Verdict(word, amount_fen=refund.amount.refund, channel_no=refund.refund_id or "", detail=detail)


class Sealed(msgspec.Struct):
    """What WeChat seals with the merchant's APIv3 key."""

    nonce: str
    associated_data: str
    ciphertext: str


class SentCertificate(msgspec.Struct):
    serial_no: str
    encrypt_certificate: Sealed


class _Certificates(msgspec.Struct):
    data: list[SentCertificate]


def certificates_of(body: bytes) -> list[SentCertificate]:
    """The sealed certificates in a list of WeChat's; none in anything else."""
    try:
        return msgspec.json.decode(body, type=_Certificates).data[:CERTIFICATES_MAX]
    except _NO_JSON:
        return []


def no_certificates(reply: Reply) -> bool:
    """True when a proven reply says that this merchant has none: it uses the public key."""
    if reply.status == 200:
        return reply.body.replace(b" ", b"") == b'{"data":[]}'
    return reply.status == 404 and _code_of(reply) == "RESOURCENOTEXISTS"


def _code_of(reply: Reply) -> str:
    """An error's code without its underscores, "" for what is no error."""
    try:
        return msgspec.json.decode(reply.body, type=_Error).code.replace("_", "")
    except _NO_JSON:
        return ""


class _BillMade(msgspec.Struct):
    hash_type: str
    hash_value: str
    download_url: str


def bill_verdict(reply: Reply, fault: str, *, now_s: float) -> tuple[Verdict, str]:
    """Where the bill lies, as a `follow`, and the SHA-1 its unpacked file must have; only a proven refusal is an empty day."""
    odd = _unproven("bill", reply, fault, now_s)
    if odd is not None:
        return (odd if odd.word != "refused" or not fault else Verdict("unknown", detail=odd.detail)), ""
    try:
        made = msgspec.json.decode(reply.body, type=_BillMade)
        parts = urlsplit(made.download_url)
        host = parts.hostname or ""
    except _NO_JSON:
        return _lie("the reply about the bill is not what WeChat documents"), ""
    ours = host.endswith(BILL_HOSTS) and parts.scheme == "https"
    if made.hash_type != "SHA1" or not (ours or (host == "127.0.0.1" and parts.scheme in ("http", "https"))):
        return _lie("WeChat's bill lies at an address that is not WeChat's"), ""
    return Verdict("follow", follow=Request("GET", made.download_url)), made.hash_value.lower()


def _unproven(call: str, reply: Reply, fault: str, now_s: float) -> Verdict | None:
    """The verdict on a reply that is no proven success; None when it is one and its content decides."""
    if reply.status >= 500:
        return Verdict("unknown", detail=f"WeChat answered {reply.status}", health="gone")
    if reply.status == 429:
        return Verdict("unknown", detail="WeChat asks us to slow down", health="slow")
    if 200 <= reply.status < 300:
        if fault:
            return _lie(fault)
        return None if reply.status in (200, 204) else Verdict("unknown", detail=f"WeChat answered {reply.status}")
    if not 400 <= reply.status < 500:
        return _lie(f"something answered {reply.status} in WeChat's place")
    if fault and is_signed(reply):
        return _lie(fault)
    return _error_verdict(call, reply, proven=not fault, now_s=now_s)


def _error_verdict(call: str, reply: Reply, *, proven: bool, now_s: float) -> Verdict:
    try:
        error = msgspec.json.decode(reply.body, type=_Error)
    except _NO_JSON:
        return _lie(f"something answered {reply.status} without WeChat's error form")
    code = error.code.replace("_", "")
    if code in ("FREQUENCYLIMITED", "RATELIMITEXCEEDED"):
        return Verdict("unknown", detail="WeChat asks us to slow down", health="slow")
    tail = reply.headers.get("request-id", "").rpartition("-")[2]
    asked = ASK_TAILS.get(tail) or ASK_CODES.get(code)
    if asked:
        return Verdict("unknown", detail=asked)
    word, sentence = ERROR_WORDS[call].get(code, ("unknown", "WeChat did not do it"))
    field = (error.detail.field if error.detail is not None else None) or ""
    named = plain(f"{error.code} at {field}" if field else error.code)
    if word == "refused" and field.endswith("time_expire"):
        # A repeat that comes too late looks the same as a bad request, and the first one may have been paid.
        return Verdict("unknown", detail="the order's time is over, says WeChat: ask")
    if word == "refused" and not proven and _clock_off(reply, now_s):
        return Verdict("unknown", detail=f"WeChat's clock and ours differ by minutes: check the clock ({named})")
    return Verdict(word, detail=f"{sentence} ({named})" if sentence else "", key_refused=code == "SIGNERROR")


def _clock_off(reply: Reply, now_s: float) -> bool:
    """True when an unsigned reply's Date says that our own clock, hence our signature, was too far off to count."""
    import email.utils  # 5 ms of a start, for something that hardly ever happens

    try:
        date_s = email.utils.parsedate_to_datetime(reply.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return False
    return abs(now_s - date_s) >= REPLY_AGE_S_MAX


def _lie(detail: str) -> Verdict:
    # A probe is WeChat's own doing: nothing is proven, and nobody lied.
    return Verdict("unknown", detail=detail, health="slow" if detail == PROBE_DOUBT else "lying")
