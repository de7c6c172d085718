"""What became of the payments that a box left open: each is asked of its channel, by the merchant's own key.

Knows the open orders that a box told, the codecs' pure halves and one HTTPS call; refuses to move money, to close an order or to
book one: what it learns is written beside the records, for a person.  A word counts only with the channel's proof; anything else
is `unknown`.  WeChat, Alipay, UnionPay, Shouqianba and our own gateway protocol are asked; of a card terminal it says why not.
"""

from __future__ import annotations

import base64
import datetime
import http.client
import secrets
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from device.drivers.channels import (
    alipay_bytes,
    alipay_words_bytes,
    gateway_bytes,
    gateway_key_bytes,
    shouqianba_bytes,
    unionpay_bytes,
    unionpay_proof_bytes,
    wechat_bytes,
    wechat_word_bytes,
)
from device.drivers.channels.codec_bytes import Reply, Request, Verdict
from device.drivers.channels.terminal_bytes import held_of
from device.mqtt.wire import OpenOrder, open_decoded
from device.types import Account

SCHEMA = """
CREATE TABLE IF NOT EXISTS settled (box TEXT NOT NULL, order_no TEXT NOT NULL, channel TEXT NOT NULL, account TEXT NOT NULL,
    amount_fen INTEGER NOT NULL, word TEXT NOT NULL, channel_no TEXT NOT NULL, why TEXT NOT NULL, at TEXT NOT NULL,
    PRIMARY KEY (box, order_no))
"""
REPLY_BYTES_MAX = 256 * 1024
READ_S = 15
DECIDED = ("paid", "not_paid", "booked")
FOLLOWS_MAX = 2
UNIONPAY_QR_S = 86_400         # how long UnionPay's QR may be paid, and nobody can close it: as the box's rules have it
NOT_ASKED = {
    "card": "the card terminal stands at the shop: look at its journal there, or see the acquirer's bill"}
NOT_PAID = {"absent": "the channel never held it", "closed": "it is closed, and nothing was taken",
            "given_back": "it was paid and given back", "refused": "the channel refused it"}


class ChannelAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[account]]` of the file: whose keys ask about orders that boxes name by (channel, account).

    Files hold: `private_key_file` the merchant's PEM, `platform_key_file` WeChat's or Alipay's public key, or UnionPay's root and
    middle certificates, `terminal_key_file` what a terminal's gateway.key holds, `app_auth_token_file` the shop's authorisation
    where the Alipay app is a partner's.  For UnionPay `serial_no` is decimal, and `platform_key_id` the name that replies are
    signed under, where it is not its own.  `dialect` "shouqianba": the gateway is Shouqianba, and the key its terminal's of today.
    """

    channel: Literal["wechat", "alipay", "unionpay", "gateway"]
    account: str
    base_url: str
    ca_file: str = ""
    appid: str = ""
    mchid: str = ""
    sub_mchid: str = ""
    serial_no: str = ""
    private_key_file: str = ""
    platform_key_id: str = ""
    platform_key_file: str = ""
    app_auth_token_file: str = ""
    dialect: Literal["", "shouqianba"] = ""
    terminal_id: str = ""
    terminal_key_file: str = ""


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    account: list[ChannelAccount]


class Settled(msgspec.Struct, frozen=True):
    """One order: `paid`, `not_paid`, `unknown`, or `booked` when a committed sale has it already; `why` one sentence."""

    order_no: str
    channel: str
    account: str
    amount_fen: int
    word: Literal["paid", "not_paid", "unknown", "booked"]
    channel_no: str = ""
    why: str = ""


class _Intent(msgspec.Struct, frozen=True):
    """An order as far as a query needs it."""

    order_no: str
    account: Account
    amount_fen: int
    way: str = "qr"
    description: str = ""
    made_at: str = ""
    expires_at: str = ""
    extras: tuple[tuple[str, str], ...] = ()


Exchange = Callable[[ChannelAccount, Request], Reply]


def accounts_in(text: str) -> dict[tuple[str, str], ChannelAccount]:
    """The accounts of a settle.toml by (channel, account).  ValueError with a sentence."""
    import tomllib
    try:
        found = msgspec.convert(tomllib.loads(text), _File).account
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as why:
        raise ValueError(f"the file of accounts cannot be used: {why}") from None
    by_name: dict[tuple[str, str], ChannelAccount] = {(one.channel, one.account): one for one in found}
    if len(by_name) != len(found):
        raise ValueError("the file of accounts names one account twice")
    for one in found:
        parts = urlsplit(one.base_url)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost")):
            raise ValueError(f"account {one.account}: base_url is neither https nor on this machine")
    return by_name


def settled(db: Any, box: str, accounts: Mapping[tuple[str, str], ChannelAccount], *, now_s: Callable[[], float], at: str,
            exchange: Exchange | None = None) -> list[Settled]:
    """Ask about each order that `box` told last as open, and keep the answers in table `settled`.

    LookupError when the box never told any list.  Nothing is moved, closed or booked.
    """
    row = db.execute("SELECT body, at FROM open_now WHERE box = ?", (box,)).fetchone()
    if row is None:
        raise LookupError(f"box {box} never said which orders are open")
    told_s = datetime.datetime.fromisoformat(row[1]).timestamp()
    told = [_settled(db, order, accounts, now_s, exchange or exchanged, told_s) for order in open_decoded(row[0].encode())]
    with db.transaction():
        db.made(SCHEMA)
        for one in told:
            db.execute("INSERT INTO settled (box, order_no, channel, account, amount_fen, word, channel_no, why, at) "
                       "VALUES (?,?,?,?,?,?,?,?,?) ON CONFLICT (box, order_no) DO UPDATE SET word = excluded.word, "
                       "channel_no = excluded.channel_no, why = excluded.why, at = excluded.at",
                       (box, one.order_no, one.channel, one.account, one.amount_fen, one.word, one.channel_no, one.why, at))
    return told


def _settled(db: Any, order: OpenOrder, accounts: Mapping[tuple[str, str], ChannelAccount], now_s: Callable[[], float],
             exchange: Exchange, told_s: float) -> Settled:
    def said(word: Any, channel_no: str = "", why: str = "") -> Settled:
        return Settled(order.order_no, order.channel, order.account, order.amount_fen, word, channel_no, why)

    if db.execute("SELECT 1 FROM sale s JOIN guard g USING (box, jid) WHERE s.number = ? AND s.seq <= g.upto",
                  (order.order_no,)).fetchone():
        return said("booked", why="a committed sale has it")
    account = accounts.get((order.channel, order.account))
    if account is None:
        return said("unknown", why=NOT_ASKED.get(order.channel, f"the file names no account {order.account!r} of {order.channel}"))
    try:
        if account.channel == "alipay":
            verdict = _alipay(account, order, now_s, exchange, told_s - order.age_s)
        elif account.channel == "unionpay":
            verdict = _unionpay(account, order, now_s, exchange, told_s - order.age_s)
        elif account.dialect == "shouqianba":
            verdict = _shouqianba(account, order, exchange)
        else:
            verdict = {"wechat": _wechat, "gateway": _gateway}[account.channel](account, order, now_s, exchange)
    except (OSError, ValueError, http.client.HTTPException) as why:
        return said("unknown", why=f"it could not be asked: {why}")
    if verdict.word == "paid":
        return said("paid", verdict.channel_no, verdict.detail)
    if verdict.word in NOT_PAID:
        return said("not_paid", verdict.channel_no, NOT_PAID[verdict.word])
    return said("unknown", why=verdict.detail or "it can still be paid: ask again when its time is over")


# The channels ------------------------------------------------------------------------------------------------------

def _wechat(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange) -> Verdict:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    ours: Any = load_pem_private_key(Path(account.private_key_file).read_bytes(), None)
    theirs: Any = load_pem_public_key(Path(account.platform_key_file).read_bytes())
    fields = {name: value for name, value in (("appid", account.appid), ("mchid", account.mchid),
                                              ("sub_mchid", account.sub_mchid)) if value}
    intent = _Intent(order.order_no, Account("wechat", order.account, tuple(sorted(fields.items()))), order.amount_fen)
    plain = wechat_bytes.order_call("query", intent)
    at_s, nonce = int(now_s()), secrets.token_hex(16)
    signature = ours.sign(wechat_bytes.text_to_sign(plain, at_s, nonce), PKCS1v15(), SHA256())
    request = Request(plain.method, plain.path, plain.body, {
        "Accept": "application/json", "User-Agent": "tillbox", "Wechatpay-Serial": account.platform_key_id,
        "Authorization": wechat_bytes.authorization(mchid=account.mchid, serial_no=account.serial_no, at_s=at_s, nonce=nonce,
                                                    signature=signature)})

    def verify(serial: str, proof: bytes, text: bytes) -> str:
        if serial != account.platform_key_id:
            return f"the reply is signed by {serial[:64]!r}, whose key is not here"
        try:
            theirs.verify(proof, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return "the reply's signature is wrong"
        return ""

    reply = exchange(account, request)
    doubt = wechat_bytes.proof_fault(reply, now_s=now_s(), verify=verify)
    return wechat_word_bytes.order_word("query", intent, reply, doubt, now_s=now_s())


def _gateway(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange) -> Verdict:
    secret, terminal = held_of(Path(account.terminal_key_file).read_bytes()).newest, account.terminal_id
    if not secret:
        raise ValueError("the terminal's key file holds no key")
    verdict = Verdict("unknown")
    for way in ("qr", "code"):               # the list of open orders does not say how the customer was asked
        intent = _Intent(order.order_no, Account("gateway", order.account, (("terminal_id", terminal),)), order.amount_fen, way)
        nonce = secrets.token_hex(16)
        request = gateway_key_bytes.sealed(gateway_bytes.order_call("query", intent), {"Tillbox-Terminal": terminal},
                                           gateway_key_bytes.derived(secret, terminal, "request"), int(now_s()), nonce)
        reply = exchange(account, request)
        mine = secret if reply.headers.get("tillbox-nonce", "") == nonce else b""
        odd = gateway_bytes.unproven(reply, gateway_key_bytes.proof_fault(reply, nonce, mine, terminal, "reply"))
        verdict = odd or gateway_bytes.order_word("query", intent, reply.body)
        if verdict.word != "unknown" or odd is not None:
            break
    return verdict


def _alipay(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange, made_s: float) -> Verdict:
    """`made_s` is when the order was made: a code that nobody scanned is not known to Alipay, and may be scanned for two hours."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

    ours: Any = load_pem_private_key(Path(account.private_key_file).read_bytes(), None)
    theirs: Any = load_pem_public_key(Path(account.platform_key_file).read_bytes())
    token = Path(account.app_auth_token_file).read_text().strip() if account.app_auth_token_file else ""

    def stamp(at_s: float) -> str:
        return datetime.datetime.fromtimestamp(at_s, alipay_bytes.BEIJING).isoformat()

    intent = _Intent(order.order_no, Account("alipay", order.account, (("appid", account.appid),)), order.amount_fen,
                     made_at=stamp(made_s))
    plain = alipay_bytes.order_request(alipay_bytes.QUERY, intent, stamp(now_s()))
    trail: alipay_words_bytes.Trail = ()
    for _ in range(1 + FOLLOWS_MAX):
        fields = alipay_bytes.form_fields(plain.body) | ({"app_auth_token": token} if token else {})
        signature = ours.sign(alipay_bytes.text_to_sign(fields), PKCS1v15(), SHA256())
        reply = exchange(account, alipay_bytes.gateway_request(fields, base64.b64encode(signature).decode()))
        if (odd := alipay_words_bytes.line_doubt(reply)) is not None:
            return odd
        envelope = alipay_bytes.opened(reply, fields["method"])
        said = alipay_words_bytes.said_of(envelope.inner)
        if not envelope.sign or envelope.error:
            return Verdict("unknown", detail="Alipay's answer does not prove itself")
        if envelope.cert_sn:
            return Verdict("unknown", detail="this app is in certificate mode, which is not asked from here: see its bill")
        try:
            theirs.verify(base64.b64decode(envelope.sign, validate=True), envelope.inner, PKCS1v15(), SHA256())
        except InvalidSignature:
            return Verdict("unknown", detail="the reply's signature is wrong")
        trail = (*trail, (fields["method"], said))
        verdict = alipay_words_bytes.order_word(trail, intent, closing=False, now_s=now_s())
        if verdict.follow is None:
            return verdict
        plain = verdict.follow
    return Verdict("unknown", detail="one question led to ever more questions")


def _unionpay(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange, made_s: float) -> Verdict:
    """`made_s` is when the order was made: a QR that nobody paid is no order to UnionPay, and may be paid for a day."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not order.made_at:
        return Verdict("unknown", detail="UnionPay finds an order by its number and the second it was made in, which this box's "
                                         "older software did not tell: see UnionPay's file")
    if not (account.serial_no.isascii() and account.serial_no.isdigit()):
        raise ValueError("serial_no, of the merchant's certificate, is written in decimal digits")
    ours: Any = load_pem_private_key(Path(account.private_key_file).read_bytes(), None)
    signers = unionpay_proof_bytes.Signers(Path(account.platform_key_file).read_bytes(),
                                           account.platform_key_id or unionpay_proof_bytes.UNIONPAY)
    intent = _Intent(order.order_no, Account("unionpay", order.account, (("mchid", account.mchid),)), order.amount_fen,
                     made_at=order.made_at)
    plain = unionpay_bytes.query_request(dict(intent.account.fields), intent.order_no, intent.made_at)
    reply = exchange(account, unionpay_proof_bytes.sealed(plain, account.serial_no, ours))
    if (odd := unionpay_bytes.line_doubt(reply)) is not None:
        return odd
    said = unionpay_bytes.pairs_of(reply.body)
    doubt = (unionpay_proof_bytes.proof_fault(said, signers, now_s())
             or unionpay_bytes.echo_doubt(said, unionpay_bytes.form_fields(plain.body)))
    if doubt:
        return Verdict("unknown", detail=doubt)
    told_made_s = datetime.datetime.fromisoformat(order.made_at).timestamp()
    age_s = now_s() - max(made_s, told_made_s)           # the box's clock may have been wrong: the younger age proves less
    verdict = unionpay_bytes.query_verdict(said, intent, age_s=age_s)
    if verdict.word == "absent" and age_s < UNIONPAY_QR_S:
        return Verdict("unknown", detail="nobody has paid it yet, and its code may be paid for a day: ask again then")
    if verdict.word == "paid":                           # a payment's query is silent about refunds
        return msgspec.structs.replace(verdict, detail="UnionPay does not say here whether it was given back: see its file first")
    return verdict


def _shouqianba(account: ChannelAccount, order: OpenOrder, exchange: Exchange) -> Verdict:
    """Its replies carry no signature: the line's certificate is the proof."""
    key, terminal = held_of(Path(account.terminal_key_file).read_bytes()).newest, account.terminal_id
    if not key:
        raise ValueError("the terminal's key file holds no key")
    fields = (("dialect", "shouqianba"), ("terminal_id", terminal))
    intent = _Intent(order.order_no, Account("gateway", order.account, fields), order.amount_fen)
    reply = exchange(account, shouqianba_bytes.sealed(*shouqianba_bytes.order_call("query", intent), terminal, key))
    return shouqianba_bytes.order_word("query", intent, reply)


def exchanged(account: ChannelAccount, request: Request) -> Reply:
    """One call over HTTPS.  OSError or HTTPException when no whole answer came."""
    parts = urlsplit(account.base_url)
    host, port = parts.hostname or "", parts.port
    line: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=account.ca_file or None)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        line = http.client.HTTPSConnection(host, port, timeout=READ_S, context=context)
    else:
        line = http.client.HTTPConnection(host, port, timeout=READ_S)
    try:
        line.request(request.method, parts.path.rstrip("/") + request.path, request.body or None, request.headers)
        answer = line.getresponse()
        body = answer.read(REPLY_BYTES_MAX + 1)
        if len(body) > REPLY_BYTES_MAX:
            raise ValueError("the answer is longer than any the channel gives")
        return Reply(answer.status, {name.lower(): value for name, value in answer.getheaders()}, body)
    finally:
        line.close()
