"""How each channel is asked what became of one order: by the merchant's own key, over one HTTPS call at a time.

Knows the codecs' pure halves and which files hold which key; refuses to know boxes, tables and what an answer is for.  It asks and
never closes, refunds or pays; a word that its channel does not prove is `unknown`.
"""

from __future__ import annotations

import datetime
import http.client
import secrets
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import msgspec

from device.drivers.channels import (
    alipay_bytes,
    alipay_proof_bytes,
    alipay_words_bytes,
    gateway_bytes,
    gateway_key_bytes,
    rsa_bytes,
    shouqianba_bytes,
    unionpay_bytes,
    unionpay_proof_bytes,
    wechat_bytes,
    wechat_proof_bytes,
    wechat_word_bytes,
)
from device.drivers.channels.codec_bytes import Reply, Request, Verdict
from device.drivers.channels.terminal_bytes import held_of
from device.mqtt.wire import OpenOrder
from device.types import Account

REPLY_BYTES_MAX = 256 * 1024
READ_S = 15
FOLLOWS_MAX = 2


class ChannelAccount(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One `[[account]]` of the file: whose keys ask about orders that boxes name by (channel, account).

    Files hold: `private_key_file` the merchant's PEM, without a password; `platform_key_file` WeChat's public key or certificate,
    Alipay's public key, or in certificate mode the portal's three files one behind the other, or UnionPay's root and middle
    certificates; `terminal_key_file` what a terminal's gateway.key holds; `app_auth_token_file` the shop's authorisation where the
    Alipay app is a partner's.  For UnionPay `serial_no` is decimal, and `platform_key_id` the name that replies are
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
Made = TypeVar("Made")


def asked(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange, made_s: float) -> Verdict:
    """What `account`'s channel says of `order`, made at `made_s` by the cloud's clock.

    OSError, HTTPException or ValueError, one sentence, when it could not be asked.
    """
    if account.channel == "alipay":
        return _alipay(account, order, now_s, exchange, made_s)
    if account.channel == "unionpay":
        return _unionpay(account, order, now_s, exchange, made_s)
    if account.dialect == "shouqianba":
        return _shouqianba(account, order, exchange)
    return {"wechat": _wechat, "gateway": _gateway}[account.channel](account, order, now_s, exchange)


def _wechat(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange) -> Verdict:
    from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
    from cryptography.hazmat.primitives.hashes import SHA256

    ours = _private_key(account)
    theirs = _checked("platform_key_file", account.platform_key_file,
                      lambda pem: wechat_proof_bytes.held_signer(account.platform_key_id, pem))
    fields = {name: value for name, value in (("appid", account.appid), ("mchid", account.mchid),
                                              ("sub_mchid", account.sub_mchid)) if value}
    intent = _Intent(order.order_no, Account("wechat", order.account, tuple(sorted(fields.items()))), order.amount_fen)
    plain = wechat_bytes.order_call("query", intent)
    at_s, nonce = int(now_s()), secrets.token_hex(16)
    signature = ours.sign(wechat_bytes.text_to_sign(plain, at_s, nonce), PKCS1v15(), SHA256())
    named = account.platform_key_id if account.platform_key_id.startswith(wechat_bytes.PUBLIC_KEY_PREFIX) else ""
    request = Request(plain.method, plain.path, plain.body, ({"Wechatpay-Serial": named} if named else {}) | {
        "Accept": "application/json", "User-Agent": "tillbox",
        "Authorization": wechat_bytes.authorization(mchid=account.mchid, serial_no=account.serial_no, at_s=at_s, nonce=nonce,
                                                    signature=signature)})
    reply = exchange(account, request)
    doubt = wechat_proof_bytes.proof_fault({account.platform_key_id.upper(): theirs}, reply, now_s())
    return wechat_word_bytes.order_word("query", intent, reply, doubt, now_s=now_s())


def _gateway(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange) -> Verdict:
    secret, terminal = _terminal_key(account), account.terminal_id
    verdict = Verdict("unknown")
    for way in (order.way,) if order.way else ("qr", "code"):      # an older box does not tell how its customer was asked
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
    keys = _alipay_keys(account)
    token = _held("app_auth_token_file", account.app_auth_token_file).decode().strip() if account.app_auth_token_file else ""

    def stamp(at_s: float) -> str:
        return datetime.datetime.fromtimestamp(at_s, alipay_bytes.BEIJING).isoformat()

    def said_of(plain: Request) -> Reply:
        return exchange(account, alipay_proof_bytes.sealed(plain, keys, token))

    intent = _Intent(order.order_no, Account("alipay", order.account, (("appid", account.appid),)), order.amount_fen,
                     order.way or "qr", made_at=stamp(made_s))
    plain = alipay_bytes.order_request(alipay_bytes.QUERY, intent, stamp(now_s()))
    trail: alipay_words_bytes.Trail = ()
    for _ in range(1 + FOLLOWS_MAX):
        method, reply = alipay_bytes.form_fields(plain.body)["method"], said_of(plain)
        if (odd := alipay_words_bytes.line_doubt(reply)) is not None:
            return odd
        envelope = alipay_bytes.opened(reply, method)
        said = alipay_words_bytes.said_of(envelope.inner)
        if not envelope.sign or envelope.error:
            return _no_proof(alipay_words_bytes.hint(method, said).detail)
        try:
            if (key := keys.key(envelope.cert_sn, now_s())) is None:
                key = _alipay_key(keys, envelope.cert_sn, account, stamp(now_s()), said_of, now_s)
            alipay_proof_bytes.verify(key, envelope)
        except ValueError as why:
            return _no_proof(str(why))
        trail = (*trail, (method, said))
        verdict = alipay_words_bytes.order_word(trail, intent, closing=False, now_s=now_s())
        if verdict.follow is None:
            return verdict
        plain = verdict.follow
    return Verdict("unknown", detail="one question led to ever more questions")


def _alipay_keys(account: ChannelAccount) -> alipay_proof_bytes.AlipayKeys:
    ours = _held("private_key_file", account.private_key_file)
    theirs = _held("platform_key_file", account.platform_key_file)
    try:
        return alipay_proof_bytes.AlipayKeys(ours, theirs)
    except ValueError as why:
        raise ValueError(f"{account.private_key_file}, {account.platform_key_file}: {why}") from None


def _alipay_key(keys: alipay_proof_bytes.AlipayKeys, sn: str, account: ChannelAccount, at: str, said_of: Callable[[Request], Reply],
                now_s: Callable[[], float]) -> Any:
    """The key of a certificate that is new to us: Alipay is asked for it, and the chain proves it.  ValueError, one sentence."""
    if not sn:
        raise ValueError("the reply names no certificate")
    shown = said_of(alipay_bytes.certificate_request({"appid": account.appid}, sn, at))
    if alipay_words_bytes.line_doubt(shown) is not None:
        raise ValueError("Alipay signs with a certificate that it does not show")
    keys.learn(alipay_words_bytes.said_of(alipay_bytes.opened(shown, alipay_bytes.CERTIFICATE).inner), sn)
    return keys.key(sn, now_s())


def _no_proof(why: str) -> Verdict:
    return Verdict("unknown", detail=f"Alipay's answer does not prove itself: {why}")


def _unionpay(account: ChannelAccount, order: OpenOrder, now_s: Callable[[], float], exchange: Exchange, made_s: float) -> Verdict:
    """`made_s` is when the order was made: a QR that nobody paid is no order to UnionPay, and may be paid for a day."""
    if not order.made_at:
        return Verdict("unknown", detail="UnionPay finds an order by its number and the second it was made in, which this box's "
                                         "older software did not tell: see UnionPay's file")
    if not (account.serial_no.isascii() and account.serial_no.isdigit()):
        raise ValueError("serial_no, of the merchant's certificate, is written in decimal digits")
    ours = _private_key(account)
    signers = _checked("platform_key_file", account.platform_key_file,
                       lambda pem: unionpay_proof_bytes.Signers(pem, account.platform_key_id or unionpay_proof_bytes.UNIONPAY))
    intent = _Intent(order.order_no, Account("unionpay", order.account, (("mchid", account.mchid),)), order.amount_fen,
                     order.way or "qr", made_at=order.made_at)
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
    if verdict.word == "absent" and age_s < unionpay_bytes.QR_LIFE_S:
        return Verdict("unknown", detail="nobody has paid it yet, and its code may be paid for a day: ask again then")
    if verdict.word == "paid":                           # a payment's query is silent about refunds
        return msgspec.structs.replace(verdict, detail="UnionPay does not say here whether it was given back: see its file first")
    return verdict


def _shouqianba(account: ChannelAccount, order: OpenOrder, exchange: Exchange) -> Verdict:
    """Its replies carry no signature: the line's certificate is the proof."""
    key, terminal = _terminal_key(account), account.terminal_id
    fields = (("dialect", "shouqianba"), ("terminal_id", terminal))
    intent = _Intent(order.order_no, Account("gateway", order.account, fields), order.amount_fen)
    reply = exchange(account, shouqianba_bytes.sealed(*shouqianba_bytes.order_call("query", intent), terminal, key))
    return shouqianba_bytes.order_word("query", intent, reply)


def _private_key(account: ChannelAccount) -> Any:
    return _checked("private_key_file", account.private_key_file, rsa_bytes.private_key)


def _terminal_key(account: ChannelAccount) -> bytes:
    if key := _checked("terminal_key_file", account.terminal_key_file, held_of).newest:
        return key
    raise ValueError(f"{account.terminal_key_file}: the terminal's key file holds no key")


def _checked(what: str, path: str, made: Callable[[bytes], Made]) -> Made:
    """What `made` makes of a file; its ValueError with the file's name before it."""
    held = _held(what, path)
    try:
        return made(held)
    except ValueError as why:
        raise ValueError(f"{path}: {why}") from None


def _held(what: str, path: str) -> bytes:
    if not path:
        raise ValueError(f"the account has no {what}")
    try:
        return Path(path).read_bytes()
    except OSError as why:
        raise ValueError(f"{path} cannot be read: {why.strerror}") from None


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
