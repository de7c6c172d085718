"""UnionPay over HTTP on this machine: the rules with the real proofs on both sides.

Knows forms, signatures and the certificate that stands in each reply.  Refuses to know what an order is: that is `unionpay.py`;
lines and faults are `server.py`'s.  Its authority and its keys are made in memory and worth nothing.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import hashlib
import io
import json
import ssl
import time
import zipfile
import zlib
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_public_key
from cryptography.x509.oid import NameOID

from sim.channels import server
from sim.channels.payers import PayersServer
from sim.channels.server import Answer, Ask, Say
from sim.channels.unionpay import UnionpayRules

NAME = "中国银联股份有限公司"
CALLS = {("01", "07"): "create", ("01", "06"): "pay", ("00", "00"): "query", ("04", "00"): "refund", ("31", "00"): "void",
         ("99", "01"): "reversal", ("76", "01"): "bill"}
PATHS = {"create": "/gateway/api/backTransReq.do", "query": "/gateway/api/queryTrans.do", "bill": "/"}
FAULTS = server.FAULTS | {
    "rotated": "effect; the answer is proven by a new certificate under the same root: as good as before",
    "braces": "effect; a good answer with plus, equals and nested braces in its values",
    "unclear": "effect; the query says that the payment is not clear yet (04)",
    "half_booked": "effect; the query says of a paid order that its booking is not known (74)",
    "foreign_root": "effect; the right name under a root that nobody holds",
    "merchant_signed": "effect; signed by another merchant's certificate, which has the same root",
    "expired": "effect; signed by UnionPay's certificate of ten years ago",
    "bill_missing": "the bill lacks its last row",
    "bill_extra": "the bill has a row of nobody",
    "bill_altered": "the bill has one fen more in its first row",
    "bill_torn": "the bill's file is cut off",
}


class Signer(msgspec.Struct, frozen=True):
    """A private key and the PEM of its certificate."""

    key: Any
    pem: str


class Authority(msgspec.Struct, frozen=True):
    """A root, a middle certificate below it, and who they vouch for.  `trust_pem` is what a client holds."""

    trust_pem: bytes
    unionpay: Signer
    others: dict[str, Signer]          # by the fault that uses them


def authority(since: datetime.datetime | None = None) -> Authority:
    """A fresh one; throw-away keys.  Certificates begin at `since`, or a month ago."""
    root_key, middle_key, leaf_key, foreign_key = (rsa.generate_private_key(65537, 2048) for _ in range(4))
    root = certified(root_key, "Local Root", root_key, "Local Root", since=since)
    middle = certified(middle_key, "Local CA", root_key, "Local Root", since=since)
    cn = f"041@8310000000083040@{NAME}@00016495"

    def leaf(name: str, key: Any = leaf_key, by: Any = middle_key, years: int = 0) -> Signer:
        made = certified(key, name, by, "Local CA", ca=False, years=years, since=since)
        return Signer(key, made.public_bytes(Encoding.PEM).decode())
    return Authority(root.public_bytes(Encoding.PEM) + middle.public_bytes(Encoding.PEM), leaf(cn), {
        "rotated": leaf(cn, foreign_key), "foreign_root": leaf(cn, by=foreign_key),
        "merchant_signed": leaf("041@Z2026@某某商店@00000001"), "expired": leaf(cn, years=-10)})


def certified(key: Any, name: str, by: Any, issuer: str, *, ca: bool = True, years: int = 0,
              since: datetime.datetime | None = None) -> x509.Certificate:
    """A certificate of five years, begun `years` from `since` (a month ago), for `key` under `name`."""
    begun = (since or datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=30)) + datetime.timedelta(days=365 * years)
    subject, above = (x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, n)]) for n in (name, issuer))
    return (x509.CertificateBuilder().subject_name(subject).issuer_name(above).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(begun)
            .not_valid_after(begun + datetime.timedelta(days=5 * 365))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True).sign(by, SHA256()))


class UnionpayServer(PayersServer):
    """As ChannelServer.  `merchant_public_pem` and `cert_id` (decimal) are what requests must be signed with."""

    faults = FAULTS

    def __init__(self, rules: UnionpayRules, *, merchant_public_pem: bytes, cert_id: str, authority: Authority,
                 now_s: Callable[[], float] = time.time, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.authority = rules, authority
        self._merchant: Any = load_pem_public_key(merchant_public_pem)
        self._cert_id = cert_id
        self.refuses_repeats_with = ""           # in place of 12: where the state of the payment is looked at first

    # As ChannelServer wants them.  Between rules and proof a body is JSON, so that faults may touch it.

    def call_of(self, method: str, path: str, body: bytes) -> str:
        """`create pay query refund void reversal bill other`."""
        asked = asked_of(body)
        call = CALLS.get((asked.get("txnType", ""), asked.get("txnSubType", "")), "other")
        return call if method == "POST" and path == PATHS.get(call, PATHS["create"]) else "other"

    def rules_say(self, ask: Ask) -> Say:
        asked = asked_of(ask.body)
        if ask.call == "other" or "application/x-www-form-urlencoded" not in ask.headers.get("content-type", ""):
            return Say(404, server.PAGE)
        if not self._proven(asked):
            return said_of(asked, {"respCode": "11", "respMsg": "验签失败[9100004]"})
        said = self.rules.answer(asked)
        if said["respCode"] == "12" and self.refuses_repeats_with:
            said |= {"respCode": self.refuses_repeats_with, "respMsg": f"失败[{self.refuses_repeats_with}]"}
        return said_of(asked, said)

    def _proven(self, asked: dict[str, str]) -> bool:
        if (asked.get("version"), asked.get("signMethod"), asked.get("certId")) != ("5.1.0", "01", self._cert_id):
            return False
        text = "&".join(f"{k}={asked[k]}" for k in sorted(asked) if k != "signature")
        try:
            self._merchant.verify(base64.b64decode(asked.get("signature", ""), validate=True),
                                  hashlib.sha256(text.encode()).hexdigest().encode(), PKCS1v15(), SHA256())
        except (InvalidSignature, binascii.Error):
            return False
        return True

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        html = {"Content-Type": "text/html;charset=UTF-8"}
        try:
            said = json.loads(say.body)
        except ValueError:                                # a page, or the fault that speaks another language
            return Answer(say.status, html, say.body)
        if kind == "unclear" and "origRespCode" in said:
            said["origRespCode"] = "04"
        if kind == "half_booked" and said.get("origRespCode") == "00":      # of money that was taken, and of no other
            said["origRespCode"] = "74"
        if kind == "braces":
            said |= {"reserved": "{a=1+1&b={c==d&e=[f&g]}&h=/+=}", "exchangeRate": "x=y+z="}
        if kind.startswith("bill_") and "fileContent" in said:
            said["fileContent"] = spoilt(said["fileContent"], kind)
        signer = self.authority.others.get(kind, self.authority.unionpay)
        said["signPubKeyCert"] = signer.pem
        text = "&".join(f"{k}={said[k]}" for k in sorted(said) if said[k])
        if kind == "lying":
            text = "not " + text
        if kind == "unsigned":
            del said["signPubKeyCert"]
        else:
            hashed = hashlib.sha256(text.encode()).hexdigest().encode()
            said["signature"] = base64.b64encode(signer.key.sign(hashed, PKCS1v15(), SHA256())).decode()
        return Answer(say.status, html, "&".join(f"{k}={v}" for k, v in said.items()).encode())

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        try:
            said = json.loads(body)
        except ValueError:
            return body
        if kind == "lying":
            said |= {k: "34" if said[k] == "00" else "00" for k in ("respCode", "origRespCode") if k in said}
        if kind == "wrong_order":
            said |= {k: "X" + said[k][1:] for k in ("orderId", "settleDate") if k in said}
        if kind == "wrong_amount" and "txnAmt" in said:
            said["txnAmt"] = str(int(said["txnAmt"]) + 1)
        return json.dumps(said).encode()

    def complaint(self, ask: Ask, kind: str) -> Say:
        code = "37" if kind == "busy" else "04"
        return said_of(asked_of(ask.body), {"respCode": code, "respMsg": f"失败[{code}]"})


def asked_of(body: bytes) -> dict[str, str]:
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True))
    except ValueError:
        return {}


def said_of(asked: dict[str, str], said: dict[str, str]) -> Say:
    """A reply repeats what it was asked, but for the proof and the payer's code."""
    echo = {k: v for k, v in asked.items() if k not in ("signature", "certId", "qrNo", "backUrl", "termId", "channelType")}
    return Say(200, json.dumps(echo | said).encode())


def spoilt(content: str, kind: str) -> str:
    """A bill's fileContent with the fault in it."""
    packed = zlib.decompress(base64.b64decode(content))
    if kind == "bill_torn":
        return base64.b64encode(zlib.compress(packed)[:-40]).decode()
    files = zipfile.ZipFile(io.BytesIO(packed))
    table = {name: files.read(name) for name in files.namelist()}
    name = next(n for n in table if "ZM_" in n)
    rows = table[name].splitlines(keepends=True)
    if kind == "bill_missing":
        rows = rows[:-1]
    elif kind == "bill_extra":
        rows.append(rows[0][:112] + b"NOBODY0000000001".ljust(32) + rows[0][144:])          # column 12: the order's number
    else:
        rows[0] = rows[0][:66] + f"{int(rows[0][66:78]) + 1:012d}".encode() + rows[0][78:]
    table[name] = b"".join(rows)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for each, text in table.items():
            archive.writestr(each, text)
    return base64.b64encode(zlib.compress(out.getvalue())).decode()
