"""UnionPay's proofs and odd answers around `unionpay.py`: signed forms in, replies out that bring their certificate along.

Signs by its own code, not the box's, so that a slip there does not agree with itself.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlencode

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key

from sim.channels.server import FAULTS, Answer, Ask, ChannelServer, Say
from sim.channels.unionpay import UnionpayRules

CALLS = {("01", "07"): "place", ("01", "06"): "charge", ("00", "00"): "query", ("04", "00"): "refund", ("76", "01"): "file"}
SIGNER = "041@8310000000083040@中国银联股份有限公司@00016493"


class Authority:
    """A throw-away root and the certificates it gave: UnionPay's, its next one, and a merchant's."""

    def __init__(self, now_s: float) -> None:
        self._now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
        self._root_key = rsa.generate_private_key(65537, 2048)
        self.key = rsa.generate_private_key(65537, 2048)
        self.root_pem = self._issued("Local UnionPay root", self._root_key, root=True)
        self.leaf_pem, self.next_pem = self._issued(SIGNER, self.key), self._issued(SIGNER, self.key)
        self.merchant_pem = self._issued("041@8310000000083040@Some shop@00000002", self.key)

    def _issued(self, name: str, key: rsa.RSAPrivateKey, root: bool = False) -> str:
        def named(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
        day = datetime.timedelta(days=1)
        made = (x509.CertificateBuilder().subject_name(named(name)).issuer_name(named("Local UnionPay root"))
                .public_key(key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(self._now - day)
                .not_valid_after(self._now + 900 * day).add_extension(x509.BasicConstraints(ca=root, path_length=None), True))
        return made.sign(self._root_key, SHA256()).public_bytes(Encoding.PEM).decode()


class UnionpayServer(ChannelServer):
    """As ChannelServer; `merchant_public_pem` proves requests, `authority` signs replies, `stranger` is another root."""

    faults = FAULTS | {
        "rotated": "effect; a good answer under UnionPay's next certificate",
        "odd_values": "effect; a good answer with +, = and nested braces in it",
        "other_root": "effect; a certificate of the right name that leads to another root",
        "merchant_cert": "effect; signed by a merchant whose certificate has the same root",
    }

    def __init__(self, rules: UnionpayRules, *, merchant_public_pem: bytes, authority: Authority, stranger: Authority,
                 now_s: Callable[[], float] = time.time, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules = rules
        self._merchant: Any = load_pem_public_key(merchant_public_pem)
        self._authority, self._stranger = authority, stranger

    def scan(self, qr: str, outcome: str, *, wallet: str = "unionpay", slow_s: float = 30) -> dict[str, Any]:
        with self._lock:
            return self.rules.scan(qr, outcome, wallet=wallet, slow_s=slow_s)

    def code(self, wallet: str = "unionpay") -> str:
        with self._lock:
            return self.rules.code(wallet)

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        with self._lock:
            self.rules.code_outcome(code, outcome, slow_s)

    def orders(self) -> list[dict[str, Any]]:
        with self._lock:
            return self.rules.orders()

    def call_of(self, method: str, path: str, body: bytes) -> str:
        asked = _form(body)
        return CALLS.get((asked.get("txnType", ""), asked.get("txnSubType", "")), "other") if method == "POST" else "other"

    def rules_say(self, ask: Ask) -> Say:
        asked = _form(ask.body)
        try:
            signed = base64.b64decode(asked.get("signature", ""))
            self._merchant.verify(signed, _hashed(asked), PKCS1v15(), SHA256())
        except (ValueError, InvalidSignature):
            return self._say(asked, {"respCode": "11"})
        if asked.get("merId") != self.rules.mchid or ask.call == "other":
            return self._say(asked, {"respCode": "31"})
        return self._say(asked, self.rules.answer(ask.call, asked))

    def _say(self, asked: dict[str, str], more: dict[str, str]) -> Say:
        echoed = ("version", "signMethod", "encoding", "txnType", "txnSubType", "merId", "orderId", "txnTime", "txnAmt",
                  "settleDate")
        return Say(200, urlencode({k: asked[k] for k in echoed if k in asked} | more).encode())

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        headers = {"Content-Type": "text/html;charset=UTF-8"}
        if kind in ("garbage", "huge"):
            return Answer(say.status, headers, say.body)
        fields = _form(say.body)
        if kind == "odd_values":
            fields |= {"reserved": "{a=1&b={c+d=&e}}", "respMsg": "a+b=c"}
        if kind != "unsigned":
            by = self._stranger if kind == "other_root" else self._authority
            fields["signPubKeyCert"] = {"rotated": by.next_pem, "merchant_cert": by.merchant_pem}.get(kind, by.leaf_pem)
            text = _hashed(fields) + (b"not" if kind == "lying" else b"")
            fields["signature"] = base64.b64encode(by.key.sign(text, PKCS1v15(), SHA256())).decode()
        return Answer(say.status, headers, "&".join(f"{k}={v}" for k, v in fields.items()).encode())

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        said = _form(body)
        if kind == "lying":
            said |= {k: "64" if said[k] == "00" else "00" for k in ("respCode", "origRespCode") if k in said}
        if kind == "wrong_order":
            said |= {k: "X" + said[k][1:] for k in ("orderId", "settleDate") if k in said}
        if kind == "wrong_amount" and "txnAmt" in said:
            said["txnAmt"] = str(int(said["txnAmt"]) + 1)
        return urlencode(said).encode()

    def complaint(self, ask: Ask, kind: str) -> Say:
        return self._say(_form(ask.body), {"respCode": "37" if kind == "busy" else "99"})


def _form(body: bytes) -> dict[str, str]:
    return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))


def _hashed(fields: dict[str, str]) -> bytes:
    text = "&".join(f"{k}={v}" for k, v in sorted(fields.items()) if v and k != "signature")
    return hashlib.sha256(text.encode()).hexdigest().encode()
