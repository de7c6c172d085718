"""Head office's side of the technician's console: the code that answers a challenge, and bundles opened.

Knows the fleet's console key and the encryption key of each enrolled box; keeps no secret for any box.  Who was let in where, by
whom and when is written down before the code is shown.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import zlib
from pathlib import Path
from typing import Any

from device.console import challenge as challenges
from device.console.bundle_lines import unbundled
from device.mqtt import topics
from device.mqtt.jwe_wire import jwe_decrypted
from device.store_forward.token import unb64
from fleet.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS console_code (at TEXT NOT NULL, box TEXT NOT NULL, who TEXT NOT NULL, level TEXT NOT NULL,
    boot TEXT NOT NULL, nonce TEXT NOT NULL, given_by TEXT NOT NULL, PRIMARY KEY (box, nonce));
"""
TOLD_BYTES_MAX = 32 << 20                # of a bundle, unpacked
_TOKEN = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+){2}")


class ConsoleDesk:
    """`key_file` the fleet's console key, PEM.  ValueError when it is none."""

    def __init__(self, db: Database, tenant: str, key_file: Path) -> None:
        self._db, self._tenant, self._key = db, topics.tenant_checked(tenant), private_key(key_file)

    def code(self, box: str, spoken: str, level: str, who: str, *, by: str, at: str) -> str:
        """The code for the challenge that `who` read from `box`.  ValueError when it was misheard, or nobody enrolled that box."""
        challenge = challenges.heard(topics.box_checked(box), who, level, spoken)
        row = self._db.execute("SELECT jwk FROM box_key WHERE box = ? AND purpose = 'encryption' ORDER BY at DESC LIMIT 1",
                               (box,)).fetchone()
        if row is None:
            raise ValueError(f"no box {box} was enrolled here")
        with self._db.transaction():
            self._db.execute("INSERT INTO console_code VALUES (?,?,?,?,?,?,?) ON CONFLICT (box, nonce) DO NOTHING",
                             (at, box, who, level, challenge.boot, challenge.nonce, by))
            who_then, level_then, boot_then, by_then, at_then = self._db.execute(
                "SELECT who, level, boot, given_by, at FROM console_code WHERE box = ? AND nonce = ?",
                (box, challenge.nonce)).fetchone()
        if (who_then, level_then, boot_then) != (who, level, challenge.boot):    # the list would not say who is let in, and how far
            raise ValueError(f"this challenge was answered at {at_then} by {by_then}, for {who_then} at level {level_then}: "
                             "have the box show another (Ctrl-C, then the name)")
        return code_for(self._key, json.loads(row[0]), self._tenant, challenge)

    def given(self) -> list[tuple[str, str, str, str, str]]:
        """(at, box, who, level, given by) of every code, the newest first."""
        return [tuple(row) for row in self._db.execute(
            "SELECT at, box, who, level, given_by FROM console_code ORDER BY at DESC, box").fetchall()]


def code_for(fleet: Any, box_jwk: dict[str, str], tenant: str, challenge: challenges.Challenge) -> str:
    """The code, by the fleet's private key and the box's public encryption key."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDH, SECP256R1, EllipticCurvePublicNumbers

    x, y = (int.from_bytes(unb64(box_jwk[part]), "big") for part in ("x", "y"))
    shared = fleet.exchange(ECDH(), EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key())
    return challenges.code_of(challenge, challenges.key_of(shared, tenant, challenge.box))


def private_key(path: Path) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise ValueError(f"{path} is not there: `tillfleet enrol` makes it, and boxes enrolled since then have it") from None
    if not isinstance(key, EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
        raise ValueError(f"{path} holds no P-256 key")
    return key


def bundle_opened(raw: bytes, key: Any) -> dict[str, Any]:
    """What a box's `bundle` says: its file, or a copy of a terminal that shows it.  ValueError, one sentence, for a damaged one or
    one for another fleet."""
    digest, parts = unbundled(raw.decode("ascii", "replace"))
    packed = b"".join(jwe_decrypted(part, key) for part in parts)
    if not hmac.compare_digest(hashlib.sha256(packed).hexdigest(), digest):
        raise ValueError("parts of the bundle are missing or in another order")
    return _told(packed)


def records_in(told: dict[str, Any]) -> list[str]:
    """The tokens of a journal export, in chain order.  ValueError when it holds none, or what no token looks like."""
    tokens = told.get("tokens")
    if not isinstance(tokens, list):
        raise ValueError("it is a bundle, and no journal export: it holds no records")
    if not all(isinstance(one, str) and _TOKEN.fullmatch(one) for one in tokens):
        raise ValueError("it holds something that is no record: nothing is taken from it")
    return tokens


def _told(packed: bytes) -> dict[str, Any]:
    """Whoever holds a box knows the key that bundles are encrypted to: what is in one is believed no further than its form."""
    unpacking = zlib.decompressobj()
    try:
        told = json.loads(unpacking.decompress(packed, TOLD_BYTES_MAX))
    except (zlib.error, ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise ValueError(f"what is packed in it is no bundle, or larger than {TOLD_BYTES_MAX >> 20} MiB")
    return told
