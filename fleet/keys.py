"""The cloud's own signing keys, and the public ones that it is told: P-256, files, one key for one use.

Knows PEM and JWK files; refuses to know what is signed.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

from device.mqtt import wire
from device.store_forward.token import thumbprint
from fleet import files


class SigningKey:
    """A PKCS#8 PEM at `path`, mode 0600, made when it is not there.  `jwk` is its public half, `kid` the thumbprint.

    ValueError when the file holds something else than a P-256 key.
    """

    def __init__(self, path: Path | str) -> None:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        path = Path(path)
        if not path.exists():
            made = ec.generate_private_key(ec.SECP256R1())
            with contextlib.suppress(FileExistsError):        # another program was a moment faster: its key is the key
                files.made(path, made.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                                    serialization.NoEncryption()))
        key = serialization.load_pem_private_key(path.read_bytes(), None)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ValueError(f"{path} holds no P-256 key")
        self._key = key
        point = key.public_key().public_numbers()
        self.jwk = {"crv": "P-256", "kty": "EC", "x": wire.b64(point.x.to_bytes(32, "big")),
                    "y": wire.b64(point.y.to_bytes(32, "big"))}
        self.kid = thumbprint(self.jwk)

    def sign(self, signing_input: bytes) -> bytes:
        """64 raw bytes, r and s."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

        r, s = decode_dss_signature(self._key.sign(signing_input, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def jwks(self) -> str:
        """The public half as a JWKS file's text."""
        return json.dumps({"keys": [{**self.jwk, "kid": self.kid}]}) + "\n"


def public_keys(path: Path) -> list[dict[str, Any]]:
    """The public P-256 keys of a JWKS file.  ValueError for any other file."""
    try:
        keys = json.loads(path.read_text())["keys"]
    except (ValueError, KeyError, TypeError) as why:
        raise ValueError(f"{path} is no JWKS file: {why}") from None
    if not isinstance(keys, list) or not all(isinstance(k, dict) and "x" in k and "y" in k for k in keys):
        raise ValueError(f"{path} holds something else than public P-256 keys")
    return keys
