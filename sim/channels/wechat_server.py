"""WeChat Pay over HTTP on this machine: the rules with the real proofs on both sides.

Knows the Authorization header and reply signatures.  Refuses to know what an order is: that is `wechat.py`; lines and
faults are `server.py`'s.  It listens on the loopback only and holds throw-away keys.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import hashlib
import hmac
import json
import re
import ssl
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from device.drivers.channels import wechat_v2_bytes as v2
from sim.channels import server
from sim.channels.keys import KeyPair, Platform, seal
from sim.channels.server import Answer, Ask, ChannelServer, Say
from sim.channels.wechat import WechatRules
from sim.channels.wechat_orders import moment

SCHEME = "WECHATPAY2-SHA256-RSA2048"
WINDOW_S = 300
V2_CALLS = {"/pay/micropay": "micropay", "/secapi/pay/reverse": "reverse"}
OWN_FAULTS = {
    "signtest": "effect; the signature is a probe",
    "unknown_serial": "effect; the answer names a public key nobody holds",
    "unknown_certificate": "effect; the answer names a certificate nobody lists",
    "clock_off": "effect; the answer is stamped and signed six minutes ago",
}
FAULTS = server.FAULTS | OWN_FAULTS


class Proof(msgspec.Struct, frozen=True):
    """Who signed a request; or why nobody did."""

    mchid: str = ""
    fault: str = ""


class WechatServer(ChannelServer):
    """As ChannelServer.

    `merchant_public_pem` and `merchant_serial` are what the merchant's requests must be signed with.  `certificates`
    says whether the merchant still has platform certificates; one in public-key mode has none.  `listed` are those that
    GET /v3/certificates names, and the last of them signs; `by_certificate` every other reply is signed so, whatever was
    asked for: a merchant that moves from certificates to the public key.
    """

    faults = FAULTS

    def __init__(self, rules: WechatRules, *, merchant_public_pem: bytes, merchant_serial: str, platform: Platform,
                 api_v3_key: bytes = b"0123456789abcdef0123456789abcdef", certificates: bool = False,
                 now_s: Callable[[], float] = time.time, port: int = 0, tls: ssl.SSLContext | None = None,
                 api_v2_key: str = "192006250b4c09247ec02edce69f6a2d") -> None:
        super().__init__(now_s=now_s, port=port, tls=tls)
        self.rules, self.certificates, self.api_v2_key = rules, certificates, api_v2_key
        self._merchant: Any = load_pem_public_key(merchant_public_pem)
        self._merchant_serial = merchant_serial
        self._platform, self._api_v3_key = platform, api_v3_key
        self.listed, self.by_certificate = [platform.certificate], False
        self._signers: dict[str, Any] = {}
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

    def code(self, wallet: str = "wechat") -> str:
        """A payer's fresh code."""
        with self._lock:
            return self.rules.codes.fresh()

    def code_outcome(self, code: str, outcome: str, slow_s: float = 30) -> None:
        """As `CodeDesk.outcome`."""
        with self._lock:
            self.rules.codes.outcome(code, outcome, slow_s)

    def call_of(self, method: str, path: str, body: bytes) -> str:
        """`create query close codepay codepay_reverse refund refund_query certificates bill bill_file other`."""
        return V2_CALLS.get(path) or call_of(method, path)

    def rules_say(self, ask: Ask) -> Say:
        if ask.call in V2_CALLS.values():
            return Say(200, v2.encoded(self._v2(ask)))
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

    def _v2(self, ask: Ask) -> dict[str, str]:
        """The fields of a v2 reply, not signed yet; without result_code where the transport refuses."""
        try:
            fields = v2.decoded(ask.body)
        except ValueError:
            return {"return_code": "FAIL", "return_msg": "XML_FORMAT_ERROR"}
        if not hmac.compare_digest(v2.sign(fields, self.api_v2_key), fields.get("sign", "")):
            return {"return_code": "FAIL", "return_msg": "SIGNERROR"}
        if (fields.get("appid"), fields.get("mch_id")) != (self.rules.appid, self.rules.mchid):
            return {"return_code": "FAIL", "return_msg": "APPID_MCHID_NOT_MATCH"}
        subs, sub = self.rules.merchants.subs, {n: fields[n] for n in ("sub_mch_id", "sub_appid") if n in fields}
        if sub.get("sub_mch_id", "") not in (subs or [""]) or sub.get("sub_appid", "") not in ("", *subs.values()):
            return {"return_code": "FAIL", "return_msg": "the sub-merchant is not this provider's"}
        if ask.call == "reverse" and self.tls is not None and ask.client != self.rules.mchid:
            return {"return_code": "FAIL", "return_msg": "the merchant's certificate is missing"}
        said = (self.rules.codes.micropay if ask.call == "micropay" else self.rules.codes.reverse)(fields)
        return {"return_code": "SUCCESS", "return_msg": "OK", "appid": self.rules.appid, "mch_id": self.rules.mchid, **sub,
                "nonce_str": "local", **said}

    def _v2_proved(self, say: Say, kind: str) -> Answer:
        body = say.body
        if say.status == 200 and kind not in ("garbage", "huge"):
            fields = v2.decoded(body)
            if "result_code" in fields and kind != "unsigned":
                key = self.api_v2_key if kind not in ("lying", *OWN_FAULTS) else "another"
                body = v2.encoded({**fields, "sign": v2.hmac_sign(fields, key)})
        return Answer(say.status, {"Content-Type": "text/xml"}, body)

    def proved(self, ask: Ask, say: Say, kind: str) -> Answer:
        if ask.call in V2_CALLS.values():
            return self._v2_proved(say, kind)
        file = ask.call == "bill_file" and say.status == 200
        headers = self._signed(say.body, asked_serial=ask.headers.get("wechatpay-serial", ""), tail=say.note or 0,
                               fault="unsigned" if file else kind)
        if say.status != 204:
            headers["Content-Type"] = "application/octet-stream" if file else "application/json"
        return Answer(200 if kind in ("wrong_order", "wrong_amount") else say.status, headers, say.body)

    def lied(self, ask: Ask, body: bytes, kind: str) -> bytes:
        if ask.call in V2_CALLS.values():
            return v2_lied(body, kind)
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
        if ask.call in V2_CALLS.values():
            return Say(200, v2.encoded({"return_code": "SUCCESS", "appid": self.rules.appid, "mch_id": self.rules.mchid,
                                        "result_code": "FAIL", "err_code": "SYSTEMERROR", "recall": "Y"}))
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
        known = {"bill_date", "bill_type", "tar_type", *(["sub_mchid"] if self.rules.merchants.subs else [])}
        if set(query) - known or query.get("bill_type", "ALL") != "ALL":
            return Say(400, dumped({"code": "PARAM_ERROR", "message": "only the whole bill is made here"}), 268435461)
        status, said = self.rules.trade_bill(query.get("bill_date", ""), query.get("sub_mchid", ""))
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
        return Say(200, dumped({"data": [self._listed(n, pair) for n, pair in enumerate(self.listed)]}))

    def _listed(self, n: int, pair: KeyPair) -> dict[str, Any]:
        """One certificate as the list has it: sealed with the merchant's APIv3 key, each under a nonce of its own."""
        nonce, held = f"abcdefghijk{n}", x509.load_pem_x509_certificate(pair.certificate_pem)
        sealed = seal(pair.certificate_pem, api_v3_key=self._api_v3_key, nonce=nonce, associated_data="certificate")
        return {"serial_no": pair.serial_no, "effective_time": moment(int(held.not_valid_before_utc.timestamp()) * 1000),
                "expire_time": moment(int(held.not_valid_after_utc.timestamp()) * 1000),
                "encrypt_certificate": {"algorithm": "AEAD_AES_256_GCM", "nonce": nonce, "associated_data": "certificate",
                                        "ciphertext": sealed}}

    def _signed(self, body: bytes, *, asked_serial: str, tail: int, fault: str) -> dict[str, str]:
        """Reply headers, signed with the key the request named, else with the certificate's where there is one."""
        with self._lock:
            self._count += 1
            count = self._count
        by_key = not self.certificates or (asked_serial == self._platform.key_id and not (self.by_certificate and count % 2))
        pair = self._platform.public if by_key or not self.listed else self.listed[-1]
        serial = self._platform.key_id if pair is self._platform.public else pair.serial_no
        if serial not in self._signers:
            self._signers[serial] = private_key(pair)
        at_s, nonce = int(self.now_s()) - (360 if fault == "clock_off" else 0), f"local{count:027d}"
        text = f"{at_s}\n{nonce}\n".encode() + body + b"\n"
        signature = base64.b64encode(self._signers[serial].sign(text, PKCS1v15(), SHA256())).decode()
        if fault == "lying":
            signature = base64.b64encode(self._signers[serial].sign(b"not " + text, PKCS1v15(), SHA256())).decode()
        if fault == "signtest":
            signature = "WECHATPAY/SIGNTEST/" + signature[19:]
        if fault == "unknown_serial":
            serial = "PUB_KEY_ID_" + "9" * 34
        if fault == "unknown_certificate":
            serial = "F" * 40
        headers = {"Request-ID": f"08{count:014X}-{tail}", "Wechatpay-Timestamp": str(at_s), "Wechatpay-Nonce": nonce,
                   "Wechatpay-Signature": signature, "Wechatpay-Signature-Type": SCHEME, "Wechatpay-Serial": serial}
        return {"Request-ID": headers["Request-ID"]} if fault == "unsigned" else headers


def v2_lied(body: bytes, kind: str) -> bytes:
    """A v2 reply as a liar would have it."""
    fields = v2.decoded(body)
    if kind == "lying":
        fields |= {"result_code": "SUCCESS", "recall": "N"}
    if kind == "wrong_order" and "out_trade_no" in fields:
        fields["out_trade_no"] = "X" + fields["out_trade_no"][1:]
    if kind == "wrong_amount" and "total_fee" in fields:
        fields["total_fee"] = str(int(fields["total_fee"]) + 1)
    return v2.encoded(fields)


def private_key(pair: KeyPair) -> Any:
    """Loaded without the slow check of its primes, for it was made here."""
    return load_pem_private_key(pair.private_pem, None, unsafe_skip_rsa_key_validation=True)


def call_of(method: str, path: str) -> str:
    """Which call a request is, as `WechatServer.call_of`, of API v3."""
    steps = [step for step in path.partition("?")[0].strip("/").split("/") if step != "partner"]
    match method, steps[1:]:
        case "POST", ["pay", "transactions", "native"]:
            return "create"
        case "GET", ["pay", "transactions", _, _]:
            return "query"
        case "POST", ["pay", "transactions", "out-trade-no", _, "close"]:
            return "close"
        case "POST", ["pay", "transactions", "codepay"]:
            return "codepay"
        case "POST", ["pay", "transactions", "out-trade-no", _, "reverse"]:
            return "codepay_reverse"
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
