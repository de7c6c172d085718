"""Certificate requests as bytes: a P-256 public key and a name, signed by whoever holds the private half.

Pure, so that a key in a chip asks as one in a file does: a signature is handed in.  Knows the few bytes of DER that this takes
(RFC 2986, RFC 5480); refuses to know certificates.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

from device.store_forward.token import unb64

REQUEST_BYTES_MAX = 1024
_EC_P256 = bytes.fromhex("301306072a8648ce3d020106082a8648ce3d030107")           # id-ecPublicKey, prime256v1
_ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
_COMMON_NAME = bytes.fromhex("0603550403")
_INTEGER, _BITS, _UTF8, _SEQUENCE, _SET, _NO_ATTRIBUTES = 0x02, 0x03, 0x0C, 0x30, 0x31, 0xA0


def request(name: str, jwk: Mapping[str, str], sign: Callable[[bytes], bytes]) -> bytes:
    """The DER of a request for `name` (CN, 1 to 64 characters); `sign` gives 64 raw bytes of ES256 over what it is given."""
    assert 0 < len(name) <= 64, name
    subject = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _COMMON_NAME + _der(_UTF8, name.encode()))))
    point = b"\x04" + unb64(jwk["x"]) + unb64(jwk["y"])
    assert len(point) == 65, "no point of P-256"
    key = _der(_SEQUENCE, _EC_P256 + _der(_BITS, b"\0" + point))
    told = _der(_SEQUENCE, _der(_INTEGER, b"\0") + subject + key + _der(_NO_ATTRIBUTES, b""))
    raw = sign(told)
    assert len(raw) == 64, "no ES256 signature"
    signature = _der(_SEQUENCE, _number(raw[:32]) + _number(raw[32:]))
    return _der(_SEQUENCE, told + _ECDSA_SHA256 + _der(_BITS, b"\0" + signature))


def pem(der: bytes) -> bytes:
    """A request as certificate authorities take it."""
    text = base64.b64encode(der).decode()
    lines = "\n".join(text[at:at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{lines}\n-----END CERTIFICATE REQUEST-----\n".encode()


def _der(tag: int, body: bytes) -> bytes:
    size = len(body)
    if size < 0x80:
        return bytes([tag, size]) + body
    length = size.to_bytes(2 if size > 0xFF else 1, "big")
    return bytes([tag, 0x80 | len(length)]) + length + body


def _number(raw: bytes) -> bytes:
    """An unsigned integer as short as DER wants it, with a zero before a leading one bit."""
    short = raw.lstrip(b"\0") or b"\0"
    return _der(_INTEGER, b"\0" + short if short[0] & 0x80 else short)
