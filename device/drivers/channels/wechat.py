"""WeChat Pay with a merchant's keys: seals requests, proves replies.

Knows the merchant's private key, and when a reply waits for WeChat's certificates.  Refuses to know sockets, and what a word means
for a sale.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from typing import Any

import msgspec

from device.drivers.channels import wechat_bytes as wire
from device.drivers.channels import wechat_v2_bytes as v2
from device.drivers.channels import wechat_word_bytes as words
from device.drivers.channels.codec_bytes import Reply, Request, Verdict, lie
from device.drivers.channels.rsa_bytes import private_key
from device.drivers.channels.wechat_bill_bytes import rows_of
from device.drivers.channels.wechat_certificates import PlatformKeys
from device.drivers.private_file import KeyFile
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
WAITING_MAX = 8                # replies that wait for certificates; more only where calls were given up half way

CALLS: dict[type[Effect], str] = {PlaceOrder: "place", QueryOrder: "query", CloseOrder: "close",
                                  RefundOrder: "refund", QueryRefund: "refund_query"}


class WechatCodec:
    """A merchant account at WeChat Pay, API v3.

    `private_key_pem` and `serial_no` the merchant's; `platform_keys`, `api_v3_key` and `certificates_file` as of PlatformKeys;
    `now_s` Unix time; `nonce` a fresh ASCII string of up to 32 characters.  `api_v2_key` is what payers' codes are charged and
    reversed with, and a reversal also wants the merchant's certificate on the line; without it none are, unless `code_api` is "v3".
    Account fields: appid, mchid, notify_url, spbill_create_ip; of a provider's account these are the provider's, and sub_mchid
    and sub_appid the shop's.  code_api "v3": its codes are charged and reversed by API v3.
    """

    channel, name = "wechat", "WeChat"

    def __init__(self, *, account: str, private_key_pem: bytes, serial_no: str, platform_keys: dict[str, bytes],
                 now_s: Callable[[], float], nonce: Callable[[], str], api_v2_key: str = "", api_v3_key: str = "",
                 certificates_file: KeyFile | None = None, code_api: str = "v2") -> None:
        self.account, self._api_v2_key = account, api_v2_key
        codes = (ChargeCode,) if api_v2_key or code_api == "v3" else ()
        self.does: frozenset[type[Effect]] = frozenset({*CALLS, FetchBill, *codes})
        self._hashes: dict[FetchBill, str] = {}       # of bills whose file is being fetched
        self._signer: Any = private_key(private_key_pem)
        self._serial_no = serial_no
        self._platform = PlatformKeys(platform_keys, api_v3_key=api_v3_key, file=certificates_file)
        self._undone: set[Effect] = set()             # reversals that are done, and asked after: did they move money?
        self._waiting: dict[Effect, Reply] = {}       # replies under a serial that WeChat's certificates may name
        self._now_s, self._nonce = now_s, nonce

    def request(self, effect: Any) -> Request:
        """As Codec.request."""
        self._waiting.pop(effect, None)               # of a call that was given up half way
        self._undone.discard(effect)
        if by_v2(effect):
            if not self._api_v2_key:
                raise ValueError("the API v2 key is not here, and this code goes by it")
            if isinstance(effect, ChargeCode):
                return v2.charge_request(effect.intent, effect.code, self._api_v2_key)
            return v2.reverse_request(effect.intent, self._api_v2_key)
        if isinstance(effect, ChargeCode):
            return self.sealed(effect, wire.charge_request(effect.intent, effect.code))
        if undoes_code(effect):
            return self.sealed(effect, wire.reverse_request(effect.intent))
        if isinstance(effect, FetchBill):
            self._hashes.pop(effect, None)
            return self.sealed(effect, wire.bill_request(day=effect.day, fields=dict(effect.account.fields)))
        call, intent = CALLS[type(effect)], effect.intent
        plain = (wire.refund_call if isinstance(effect, (RefundOrder, QueryRefund)) else wire.order_call)(call, intent)
        return self.sealed(effect, plain)

    def read(self, effect: Any, reply: Reply) -> Verdict:
        """As Codec.read."""
        if by_v2(effect) and effect not in self._undone:
            if isinstance(effect, ChargeCode):
                return v2.charge_verdict(effect.intent, reply, self._api_v2_key)
            return self._asked_after(effect, v2.reverse_verdict(effect.intent, reply, self._api_v2_key))
        now_s = self._now_s()
        if effect in self._waiting:                   # what came are the certificates; what they prove came before
            kept, why = self._waiting.pop(effect), self._platform.take(reply, now_s)
            doubt = self._platform.fault(kept, now_s)
            return self._judged(effect, kept, f"{doubt}; {why}" if doubt == wire.KEY_DOUBT and why else doubt, now_s)
        if isinstance(effect, FetchBill) and effect in self._hashes:
            return bill_read(effect, reply, self._hashes.pop(effect))
        doubt = self._platform.fault(reply, now_s)
        serial = reply.headers.get("wechatpay-serial", "")
        if doubt == wire.KEY_DOUBT and self._platform.worth_asking(serial, now_s):
            if len(self._waiting) >= WAITING_MAX:
                self._waiting.pop(next(iter(self._waiting)))
            self._waiting[effect] = reply
            return Verdict("unknown", detail=doubt, follow=wire.certificates_request())
        return self._judged(effect, reply, doubt, now_s)

    def _judged(self, effect: Any, reply: Reply, doubt: str, now_s: float) -> Verdict:
        if isinstance(effect, FetchBill):
            verdict, digest = words.bill_verdict(reply, doubt, now_s=now_s)
            if verdict.follow is not None:
                self._hashes[effect] = digest
            return verdict
        if isinstance(effect, ChargeCode):
            return words.charge_verdict(effect.intent, reply, doubt, now_s=now_s)
        if effect in self._undone:
            self._undone.discard(effect)
            return words.undone_verdict(words.order_word("query", effect.intent, reply, doubt, now_s=now_s))
        if undoes_code(effect):
            return self._asked_after(effect, words.reverse_verdict(effect.intent, reply, doubt, now_s=now_s))
        word = words.refund_word if isinstance(effect, (RefundOrder, QueryRefund)) else words.order_word
        return word(CALLS[type(effect)], effect.intent, reply, doubt, now_s=now_s)

    def _asked_after(self, effect: Any, undone: Verdict) -> Verdict:
        """A reversal's verdict; one that is done is followed by the question whether it gave money back."""
        if undone.word != "closed":
            return undone
        self._undone.add(effect)
        return msgspec.structs.replace(undone, follow=wire.order_call("query", effect.intent))

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
        if self._platform.asked_serial:
            headers["Wechatpay-Serial"] = self._platform.asked_serial
        return Request(follow.method, follow.path, follow.body, headers)


def undoes_code(effect: Effect) -> bool:
    return isinstance(effect, CloseOrder) and effect.intent.way == "code"


def by_v2(effect: Any) -> bool:
    """True for a charge and its undo by API v2.  The account says it, so that what was charged by one is undone by the same."""
    return (isinstance(effect, ChargeCode) or undoes_code(effect)) and dict(effect.intent.account.fields).get("code_api") != "v3"


def bill_read(effect: FetchBill, reply: Reply, digest: str) -> Verdict:
    """The rows of a bill's file, when it is the very file that was named: its hash is over what gzip unpacks to."""
    if reply.status != 200:
        return Verdict("unknown", detail=f"the bill's file was answered with {reply.status}")
    try:
        text = zlib.decompressobj(31).decompress(reply.body, BILL_TEXT_MAX) if reply.body[:2] == b"\x1f\x8b" else reply.body
        if digest not in (hashlib.sha1(text, usedforsecurity=False).hexdigest(),
                          hashlib.sha1(reply.body, usedforsecurity=False).hexdigest()):
            return lie("the bill's file is not the one that was named")
        fields = dict(effect.account.fields)
        rows = rows_of(text.decode("utf-8"), fields["mchid"], fields.get("sub_mchid", ""))
    except (ValueError, zlib.error) as why:
        return lie(f"the bill cannot be read: {why}")
    if any(row.at[:10] != effect.day for row in rows):
        return lie("the bill is of another day")
    return Verdict("bill", rows=rows)
