"""The public keys by which the cloud is believed: one file, or one part of an identity's, for each purpose."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

log = logging.getLogger("tillbox")

Verifiers = dict[str, Callable[[bytes, bytes], bool]]


def verifiers(path: str, what: str, purpose: str) -> Verifiers:
    """The public keys in `path`, by kid: a JWK, a JWKS, or an identity's `cloud.json` with a JWKS for each `purpose`.

    None, and said so, when there is no such file: then nothing is believed.
    """
    from device.store_forward.es256 import public_verifier
    from device.store_forward.token import thumbprint
    try:
        held = msgspec.json.decode(Path(path).read_bytes(), type=dict[str, Any])
        jwks = held if "kty" in held or "keys" in held else held[purpose]
        return {thumbprint(jwk): public_verifier(jwk) for jwk in jwks.get("keys", [jwks])}
    except (OSError, msgspec.DecodeError, ValueError, KeyError, TypeError, AttributeError) as why:
        log.error("no key to check %s with, so none will be believed: %s", what, why)
        return {}
