"""WeChat Pay with a merchant's keys: seals requests, proves replies.

Knows the merchant's private key and the platform's public ones.  Refuses to know sockets, and what a word means for a sale.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Callable
from typing import Any

from device.drivers import channel_wechat_bytes as wire
from device.drivers import channel_wechat_v2_bytes as v2
from device.drivers.channel_bytes import Reply, Request, Verdict, lie
from device.drivers.channel_rsa import private_key, public_key
from device.drivers.channel_wechat_bill_bytes import rows_of
from device.txn.effects import (
    ChargeCode,
    CloseOrder,
    Effect,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundOrder,
)

BILL_TEXT_MAX = 256 * 1024 * 1024

CALLS: dict[type[Effect], str] = {PlaceOrder: "place", QueryOrder: "query", CloseOrder: "close",
                                  RefundOrder: "refund", QueryRefund: "refund_query"}


class WechatCodec:
    """A merchant account at WeChat Pay, API v3.

    `private_key_pem` and `serial_no` the merchant's; `platform_keys` from serial or PUB_KEY_ID to public key PEM, several
    while WeChat rotates; `now_s` Unix time; `nonce` a fresh ASCII string of up to 32 characters.  `api_v2_key` is what payers'
    codes are charged and reversed with; empty: none are, and a reversal also wants the merchant's certificate on the line.
    Account fields: appid, mchid, notify_url, spbill_create_ip.
    """

    channel, name = "wechat", "WeChat"

    def __init__(self, *, account: str, private_key_pem: bytes, serial_no: str, platform_keys: dict[str, bytes],
                 now_s: Callable[[], float], nonce: Callable[[], str], api_v2_key: str = "") -> None:
        self.account, self._api_v2_key = account, api_v2_key
        self.does: frozenset[type[Effect]] = frozenset({*CALLS, FetchBill, *((ChargeCode,) if api_v2_key else ())})
        self._hashes: dict[FetchBill, str] = {}       # of bills whose file is being fetched
        self._signer: Any = private_key(private_key_pem)
        self._serial_no = serial_no
        self._platform: dict[str, Any] = {serial: public_key(pem) for serial, pem in platform_keys.items()}
        self._asked_serial = next((s for s in platform_keys if s.startswith(wire.PUBLIC_KEY_PREFIX)), "")
        self._now_s, self._nonce = now_s, nonce

    def request(self, effect: Any) -> Request:
        """As Codec.request."""
        if isinstance(effect, ChargeCode):
            return v2.charge_request(effect.intent, effect.code, self._api_v2_key)
        if isinstance(effect, CloseOrder) and effect.intent.way == "code":
            return v2.reverse_request(effect.intent, self._api_v2_key)
        if isinstance(effect, FetchBill):
            self._hashes.pop(effect, None)
            return self.sealed(effect, wire.bill_request(day=effect.day))
        call, intent = CALLS[type(effect)], effect.intent
        plain = (wire.refund_call if isinstance(effect, (RefundOrder, QueryRefund)) else wire.order_call)(call, intent)
        return self.sealed(effect, plain)

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        if isinstance(effect, ChargeCode):
            return v2.charge_verdict(effect.intent, reply, self._api_v2_key)
        if isinstance(effect, CloseOrder) and effect.intent.way == "code":
            return v2.reverse_verdict(effect.intent, reply, self._api_v2_key)
        now_s = self._now_s()
        if isinstance(effect, FetchBill) and effect in self._hashes:
            return bill_read(effect, reply, self._hashes.pop(effect))
        doubt = wire.proof_fault(reply, now_s=now_s, verify=self._verify)
        if isinstance(effect, FetchBill):
            verdict, digest = wire.bill_verdict(reply, doubt, now_s=now_s)
            if verdict.follow is not None:
                self._hashes[effect] = digest
            return verdict
        word = wire.refund_word if isinstance(effect, (RefundOrder, QueryRefund)) else wire.order_word
        return word(CALLS[type(effect)], effect.intent, reply, doubt, now_s=now_s)

    def sealed(self, effect: Any, follow: Request) -> Request:
        """`follow` with the headers that prove us."""
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        account = effect.account if isinstance(effect, FetchBill) else effect.intent.account
        mchid = dict(account.fields)["mchid"]
        if not (mchid.isascii() and mchid.isalnum()):
            raise ValueError("the account's mchid is no merchant number")
        at_s, nonce = int(self._now_s()), self._nonce()
        signature = self._signer.sign(wire.text_to_sign(follow, at_s, nonce), PKCS1v15(), SHA256())
        headers = {
            "Accept": "application/json",
            "User-Agent": "tillbox",
            "Authorization": wire.authorization(mchid=mchid, serial_no=self._serial_no, at_s=at_s, nonce=nonce,
                                                signature=signature),
        }
        if follow.body:
            headers["Content-Type"] = "application/json"
        if self._asked_serial:
            headers["Wechatpay-Serial"] = self._asked_serial
        return Request(follow.method, follow.path, follow.body, headers)

    def _verify(self, serial: str, signature: bytes, text: bytes) -> bool | None:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        key = self._platform.get(serial)
        if key is None:
            return None
        try:
            key.verify(signature, text, PKCS1v15(), SHA256())
        except InvalidSignature:
            return False
        return True


def bill_read(effect: FetchBill, reply: Reply, digest: str) -> Verdict:
    """The rows of a bill's file, when it is the very file that was named: its hash is over what gzip unpacks to."""
    if reply.status != 200:
        return Verdict("unknown", detail=f"the bill's file was answered with {reply.status}")
    try:
        text = zlib.decompressobj(31).decompress(reply.body, BILL_TEXT_MAX) if reply.body[:2] == b"\x1f\x8b" else reply.body
        if digest not in (hashlib.sha1(text, usedforsecurity=False).hexdigest(),
                          hashlib.sha1(reply.body, usedforsecurity=False).hexdigest()):
            return lie("the bill's file is not the one that was named")
        rows = rows_of(text.decode("utf-8"))
    except (ValueError, zlib.error) as why:
        return lie(f"the bill cannot be read: {why}")
    if any(row.at[:10] != effect.day for row in rows):
        return lie("the bill is of another day")
    return Verdict("bill", rows=rows)


def open_sealed(*, api_v3_key: bytes, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """What WeChat sealed: a platform certificate or a notice.  `api_v3_key` 32 bytes, `ciphertext` base64, tag last.

    ValueError when it does not open.  Source: WeChat Pay API v3, AEAD_AES_256_GCM.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(api_v3_key).decrypt(nonce.encode(), base64.b64decode(ciphertext), associated_data.encode())
    except InvalidTag:
        raise ValueError("the sealed text does not open with this key") from None
