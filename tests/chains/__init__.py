"""Chains of records that are spoilt in one known way each, kept as files for whoever writes a verifier.

`files/ERROR_NAME/what.txt` holds one token a line, `files/WHOLE/` those without a defect, `files/keys.json` the public keys, and
`files/expected.txt` every defect of every file with its line.  `python -m tests.chains` makes them anew, the same to the byte: the
keys are small numbers that everybody knows, and signatures are deterministic (RFC 6979).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from device.store_forward.token import (
    EMPTY_DIGEST,
    Payload,
    Sum,
    b64,
    digest,
    encode_payload,
    seal,
    signing_input,
    thumbprint,
)

FILES = Path(__file__).parent / "files"
JID, JID2 = b64(bytes(16)), b64(bytes(15) + b"\1")
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551      # of P-256's group


class Signer:
    """A P-256 key from a small number.  Shows what a record key does and protects nothing."""

    def __init__(self, number: int) -> None:
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        point = self._key.public_key().public_numbers()
        self.jwk = {"kty": "EC", "crv": "P-256", "x": b64(point.x.to_bytes(32, "big")), "y": b64(point.y.to_bytes(32, "big"))}
        self.kid = thumbprint(self.jwk)

    def numbers(self, signing: bytes) -> tuple[int, int]:
        return decode_dss_signature(self._key.sign(signing, ec.ECDSA(hashes.SHA256(), deterministic_signing=True)))

    def sign(self, payload: bytes) -> str:
        """The token over `payload`."""
        signing = signing_input(self.kid, payload)
        return seal(signing, raw(*self.numbers(signing)))


def raw(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Made:
    """A chain in the making; add() appends a sound record, whose fields `given` may spoil."""

    def __init__(self, signer: Any) -> None:
        self.signer, self.tokens, self.sum, self.seq, self.prev = signer, [], Sum(), 0, EMPTY_DIGEST

    def add(self, kind: str = "boot", body: Any = None, spoil: Callable[[bytes], bytes] | None = None, signer: Any = None,
            **given: Any) -> Made:
        body = body if body is not None else {}
        amount = body.get("amount_fen", 0) if kind in ("sale", "refund") and isinstance(body, dict) else 0
        amount = amount if isinstance(amount, int) else 0
        self.sum = Sum(self.sum.sales_fen + amount * (kind == "sale"), self.sum.refunds_fen + amount * (kind == "refund"),
                       self.sum.count + (kind in ("sale", "refund")))
        self.seq += 1
        fields = {"v": 1, "box": "box-1", "jid": JID, "seq": self.seq, "prev": self.prev, "at": "2026-03-01T08:00:00+08:00",
                  "clk": "ntp", "boot": f"b-{given.get('jid', JID)}", "mono_ms": 1000 * self.seq, "kind": kind, "sum": self.sum,
                  "body": msgspec.Raw(json.dumps(body, ensure_ascii=False).encode()), **given}
        payload = encode_payload(Payload(**fields))
        token = (signer or self.signer).sign(spoil(payload) if spoil else payload)
        self.seq, self.prev = fields["seq"], digest(token)
        self.tokens.append(token)
        return self

    def said(self, payload: bytes) -> Made:
        """A record of any bytes at all, signed."""
        self.tokens.append(self.signer.sign(payload))
        return self


def sale(amount_fen: Any = 500, lines: Any = None, tenders: Any = None) -> dict[str, Any]:
    return {"order_no": "A", "amount_fen": amount_fen, "cashier": "01",
            "lines": [{"amount_fen": amount_fen}] if lines is None else lines,
            "tenders": [{"method": "cash", "amount_fen": amount_fen}] if tenders is None else tenders}


def sound(signer: Any) -> Made:
    """Four records: a boot, a sale, a refund, a drawer."""
    return Made(signer).add().add("sale", sale()).add("refund", {"amount_fen": 200}).add("drawer")
