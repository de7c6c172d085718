"""Certificates that lead to a root we hold.  Knows X.509 chains; no channel, no file, and not whose name it must bear."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

STEPS_MAX = 4


def led(cert: Any, held: Sequence[Any], steps: int = STEPS_MAX) -> tuple[float, float] | None:
    """When the whole chain from `cert` to a root among `held` is valid, as Unix time; None when there is no chain.

    `held` are roots (self-signed) and middle certificates, in any order; only what may sign certificates counts.  Of several
    chains the one that lasts longest: a renewed certificate has the key of the one that is over.
    """
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    days = cert.not_valid_before_utc.timestamp(), cert.not_valid_after_utc.timestamp()
    if cert in held and cert.subject == cert.issuer:
        return days
    chains = []
    for above in held if steps else ():
        if cert.issuer != above.subject or not may_sign(above):
            continue
        try:
            cert.verify_directly_issued_by(above)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        if (more := led(above, held, steps - 1)) is not None:
            chains.append((max(days[0], more[0]), min(days[1], more[1])))
    return max(chains, key=lambda chain: chain[1], default=None)


def may_sign(cert: Any) -> bool:
    """Whether a certificate says that it may sign others."""
    from cryptography import x509

    try:
        return bool(cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    except (x509.ExtensionNotFound, ValueError):
        return False
