"""Signed records for tests of the way to the cloud: a key and a journal that grows by hand."""

from __future__ import annotations

import json

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from device.mqtt.wire import Batch
from device.store_forward.token import EMPTY_DIGEST, b64, digest, seal, signing_input, thumbprint


class Key:
    """A fresh P-256 key; `sign` gives 64 raw bytes."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())
        point = self.private.public_key().public_numbers()
        self.jwk = {"crv": "P-256", "kty": "EC", "x": b64(point.x.to_bytes(32, "big")),
                    "y": b64(point.y.to_bytes(32, "big"))}
        self.kid = thumbprint(self.jwk)

    def sign(self, data: bytes) -> bytes:
        r, s = decode_dss_signature(self.private.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")


class Chain:
    """Records 1, 2, 3 ... of one journal; `tokens[0]` is record 1."""

    def __init__(self, key: Key, box: str = "box-1", jid: str = "j" * 21 + "A") -> None:
        self.key, self.box, self.jid = key, box, jid
        self.tokens: list[str] = []
        self.sum = {"sales_fen": 0, "refunds_fen": 0, "count": 0}

    def add(self, kind: str = "sale", body: dict | None = None) -> str:
        seq = len(self.tokens) + 1
        body = body if body is not None else {"order_no": f"N{seq:019d}", "amount_fen": 100}
        if kind in ("sale", "refund"):
            self.sum["sales_fen" if kind == "sale" else "refunds_fen"] += body["amount_fen"]
            self.sum["count"] += 1
        payload = {"v": 1, "box": self.box, "jid": self.jid, "seq": seq,
                   "prev": digest(self.tokens[-1]) if self.tokens else EMPTY_DIGEST,
                   "at": "2026-07-14T09:26:53+08:00", "clk": "ntp", "boot": "b1", "mono_ms": seq, "kind": kind,
                   "sum": dict(self.sum), "body": body}
        signing = signing_input(self.key.kid, json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode())
        self.tokens.append(seal(signing, self.key.sign(signing)))
        return self.tokens[-1]

    def grow(self, count: int) -> Chain:
        for _ in range(count):
            self.add()
        return self

    def after(self, seq: int, limit: int) -> list[tuple[int, str]]:
        """As the journal gives tokens to the forwarder."""
        return [(seq + 1 + at, token) for at, token in enumerate(self.tokens[seq:seq + limit])]

    def batch(self, first: int, last: int) -> Batch:
        tokens = tuple(self.tokens[first - 1:last])
        return Batch(self.jid, first, last, digest(tokens[-1]), tokens)

    def signed_again(self, seq: int) -> str:
        """Record `seq` under another valid signature."""
        signing = self.tokens[seq - 1].rpartition(".")[0]
        return f"{signing}.{b64(self.key.sign(signing.encode()))}"
