"""WeChat Pay over HTTP on this machine: the rules with the real proofs on both sides.

Knows the Authorization header and reply signatures.  Refuses to know what an order is: that is `wechat.py`; lines and
faults are `server.py`'s.  It listens on the loopback only and holds throw-away keys.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import json
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from sim.channels import server
from sim.channels.keys import KeyPair, Platform, seal
from sim.channels.server import Answer, Ask, ChannelServer, Say
from sim.channels.wechat import WechatRules, moment

SCHEME = "WECHATPAY2-SHA256-RSA2048"
WINDOW_S = 300
FAULTS = server.FAULTS | {
    "signtest": "effect; the signature is a probe",
    "unknown_serial": "effect; the answer names a key nobody holds",
    "clock_off": "effect; the answer is stamped and signed six minutes ago",
}


class Proof(msgspec.Struct, frozen=True):
    """Who signed a request; or why nobody did."""

    mchid: str = ""
    fault: str = ""


class WechatServer(ChannelServer):
    """As ChannelServer.

    `merchant_public_pem` and `merchant_serial` are what the merchant's requests must be signed with.  `certificates`
    says whether the merchant still has platform certificates; one in public-key mode has none.
    """

    faults = FAULTS

    def __init__(self, rules: WechatRules, *, merchant_public_pem: bytes, merchant_serial: str, platform: Platform,
                 api_v3_key: bytes = b"0123456789abcdef0123456789abcdef", certificates: bool = False,
                 now_s: Callable[[], float] = time.time, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.certificates = rules, certificates
        self._merchant: Any = load_pem_public_key(merchant_public_pem)
        self._merchant_serial = merchant_serial
        self._platform, self._api_v3_key = platform, api_v3_key
        self._signers: dict[str, Any] = {
            platform.key_id: private_key(platform.public),
            platform.certificate.serial_no: private_key(platform.certificate)}
        self._bill_files: dict[str, tuple[bytes, float]] = {}
        self._count = 0

    def scan(self, code_url: str, outcome: str, *, openid: str = "o-payer-1", slow_s: float = 30) -> dict[str, Any]:
        """A wallet scans, beside calls that are being served; as `WechatRules.scan`."""
        with self._lock:
            return self.rules.scan(code_url, outcome, openid=openid, slow_s=slow_s)

    def orders(self) -> list[dict[str, Any]]:
        """What the channel holds, as `WechatRules.orders`."""
        with self._lock:
            return self.rules.orders()

    def call_of(self, method: str, path: str, body: bytes) -> str:
        """`create query close refund refund_query certificates bill bill_file other`."""
        return call_of(method, path)

    def rules_say(self, ask: Ask) -> Say:
        proof = self._proof(ask.headers.get("authorization", ""), ask.method, ask.path, ask.body)
        if proof.fault:
            return Say(401, dumped({"code": "SIGN_ERROR", "message": proof.fault, "detail": {
                "field": "signature", "issue": proof.fault, "location": "authorization",
                "sign_information": {"method": ask.method, "url": ask.path, "sign_message_length": len(ask.body)}}}), 268443699)
        if not ask.headers.get("user-agent") or "application/json" not in ask.headers.get("accept", ""):
            return Say(400, dumped({"code": "PARAM_ERROR", "message": "User-Agent or Accept is missing"}), 268435461)
        if ask.call == "certificates":
            return self._certificates()
        if ask.call in ("bill", "bill_file"):
            return self._bill(ask.call, ask.path)
        status, tail, body = self.rules.answer(ask.method, ask.path, ask.body, proof.mchid)
        return Say(status, body, tail)

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        file = ask.call == "bill_file" and say.status == 200
        headers = self._signed(say.body, asked_serial=ask.headers.get("wechatpay-serial", ""), tail=say.note or 0,
                               fault="unsigned" if file else kind)
        if say.status != 204:
            headers["Content-Type"] = "application/octet-stream" if file else "application/json"
        return Answer(200 if kind in ("wrong_order", "wrong_amount") else say.status, headers, say.body)

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        try:
            said = json.loads(body)
        except ValueError:
            return body
        if kind == "lying":
            said["trade_state"] = "NOTPAY" if said.get("trade_state") == "SUCCESS" else "SUCCESS"
        if kind == "wrong_order":
            for name in ("out_trade_no", "out_refund_no"):
                if name in said:
                    said[name] = "X" + said[name][1:]
        if kind == "wrong_amount":
            for name in said.get("amount", {}):
                if isinstance(said["amount"][name], int):
                    said["amount"][name] += 1
        return dumped(said)

    def complaint(self, ask: Ask, kind: str) -> Say:
        if kind == "busy":
            return Say(429, dumped({"code": "FREQUENCY_LIMITED", "message": "too many requests"}), 268447840)
        return Say(500, dumped({"code": "SYSTEM_ERROR", "message": "try again"}))

    def _proof(self, header: str, method: str, path: str, body: bytes) -> Proof:
        scheme, _, rest = header.partition(" ")
        pairs = re.findall(r'(\w+)="([^"]*)"', rest)
        fields = dict(pairs)
        names = {"mchid", "nonce_str", "timestamp", "serial_no", "signature"}
        if scheme != SCHEME or set(fields) != names or len(pairs) != len(names):
            return Proof(fault="the Authorization header is malformed")
        if not re.fullmatch(r"\d{1,12}", fields["timestamp"]) or not fields["nonce_str"]:
            return Proof(fault="timestamp or nonce is malformed")
        if abs(self.now_s() - int(fields["timestamp"])) > WINDOW_S:
            return Proof(fault="the timestamp is more than five minutes off")
        if fields["serial_no"] != self._merchant_serial:
            return Proof(fault="the merchant certificate is not known")
        signed = f"{method}\n{path}\n{fields['timestamp']}\n{fields['nonce_str']}\n".encode() + body + b"\n"
        try:
            self._merchant.verify(base64.b64decode(fields["signature"], validate=True), signed, PKCS1v15(), SHA256())
        except (InvalidSignature, binascii.Error):
            return Proof(fault="the signature is wrong")
        return Proof(mchid=fields["mchid"])

    def _bill(self, call: str, path: str) -> Say:
        """The trade bill: first a URL good for five minutes and the SHA-1 of the unpacked file, then it."""
        query = dict(parse_qsl(urlsplit(path).query))
        if call == "bill_file":
            packed, until_s = self._bill_files.get(query.get("token", ""), (b"", 0.0))
            if self.now_s() >= until_s:
                return Say(404, dumped({"code": "RESOURCE_NOT_EXISTS", "message": "the download URL is over"}))
            return Say(200, packed)
        if set(query) - {"bill_date", "bill_type", "tar_type"} or query.get("bill_type", "ALL") != "ALL":
            return Say(400, dumped({"code": "PARAM_ERROR", "message": "only the whole bill is made here"}), 268435461)
        status, said = self.rules.trade_bill(query.get("bill_date", ""))
        if isinstance(said, dict):
            return Say(status, dumped(said))
        token = f"local{len(self._bill_files):08d}"
        packed = gzip.compress(said, mtime=0) if query.get("tar_type") == "GZIP" else said
        self._bill_files[token] = (packed, self.now_s() + 300)
        return Say(200, dumped({"hash_type": "SHA1", "hash_value": hashlib.sha1(said).hexdigest(),
                               "download_url": f"{self.url}/v3/billdownload/file?token={token}"}))

    def _certificates(self) -> Say:
        if not self.certificates:
            return Say(404, dumped({"code": "RESOURCE_NOT_EXISTS", "message": "no platform certificate is available"}))
        pair, now_ms, nonce = self._platform.certificate, int(self.now_s() * 1000), "abcdefghijkl"
        sealed = seal(pair.certificate_pem, api_v3_key=self._api_v3_key, nonce=nonce, associated_data="certificate")
        return Say(200, dumped({"data": [{
            "serial_no": pair.serial_no, "effective_time": moment(now_ms - 86_400_000),
            "expire_time": moment(now_ms + 5 * 365 * 86_400_000),
            "encrypt_certificate": {"algorithm": "AEAD_AES_256_GCM", "nonce": nonce, "associated_data": "certificate",
                                    "ciphertext": sealed}}]}))

    def _signed(self, body: bytes, *, asked_serial: str, tail: int, fault: str) -> dict[str, str]:
        """Reply headers, signed with the key the request named, else with the certificate's where there is one."""
        with self._lock:
            self._count += 1
            count = self._count
        by_key = asked_serial == self._platform.key_id or not self.certificates
        serial = self._platform.key_id if by_key else self._platform.certificate.serial_no
        at_s, nonce = int(self.now_s()) - (360 if fault == "clock_off" else 0), f"local{count:027d}"
        text = f"{at_s}\n{nonce}\n".encode() + body + b"\n"
        signature = base64.b64encode(self._signers[serial].sign(text, PKCS1v15(), SHA256())).decode()
        if fault == "lying":
            signature = base64.b64encode(self._signers[serial].sign(b"not " + text, PKCS1v15(), SHA256())).decode()
        if fault == "signtest":
            signature = "WECHATPAY/SIGNTEST/" + signature[19:]
        if fault == "unknown_serial":
            serial = "PUB_KEY_ID_" + "9" * 34
        headers = {"Request-ID": f"08{count:014X}-{tail}", "Wechatpay-Timestamp": str(at_s), "Wechatpay-Nonce": nonce,
                   "Wechatpay-Signature": signature, "Wechatpay-Signature-Type": SCHEME, "Wechatpay-Serial": serial}
        return {"Request-ID": headers["Request-ID"]} if fault == "unsigned" else headers


def private_key(pair: KeyPair) -> Any:
    """Loaded without the slow check of its primes, for it was made here."""
    return load_pem_private_key(pair.private_pem, None, unsafe_skip_rsa_key_validation=True)


def call_of(method: str, path: str) -> str:
    """Which call a request is: `create query close refund refund_query certificates bill bill_file other`."""
    steps = path.partition("?")[0].strip("/").split("/")
    match method, steps[1:]:
        case "POST", ["pay", "transactions", "native"]:
            return "create"
        case "GET", ["pay", "transactions", _, _]:
            return "query"
        case "POST", ["pay", "transactions", "out-trade-no", _, "close"]:
            return "close"
        case "POST", ["refund", "domestic", "refunds"]:
            return "refund"
        case "GET", ["refund", "domestic", "refunds", _]:
            return "refund_query"
        case "GET", ["certificates"]:
            return "certificates"
        case "GET", ["bill", "tradebill"]:
            return "bill"
        case "GET", ["billdownload", "file"]:
            return "bill_file"
    return "other"


def dumped(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
