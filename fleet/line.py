"""How a part of the cloud proves itself to the broker: by what `tillfleet ca issue DIR _collector/ID --out DIR` makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.mqtt import topics

Dress = Callable[[Any], None]            # what is done to a client of paho before it connects


def plain(_client: Any) -> None:
    """No proof and no secrecy: loopback only."""


def dressed(folder: Path | None) -> Dress:
    """TLS 1.3 with `tls.key`, `tls.pem` and `ca.pem` of `folder`; `plain` for None.  OSError when one of them cannot be read.

    The certificate is read once: a part that outlives it is started anew.
    """
    if folder is None:
        return plain
    import ssl
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(folder / "tls.pem", folder / "tls.key")

    def dress(client: Any) -> None:
        client.tls_set_context(context)
    return dress


def share_of(folder: Path | None) -> str:
    """The name of the shared subscriptions, from the `share` that lies beside a certificate: a secret among the cloud's parts, for
    Mosquitto lets anybody join a group whose name he knows, and drops what falls to him.  The common name for None.
    """
    return topics.SHARE if folder is None else (folder / "share").read_text().strip()


def place(text: str, of: str = "--broker") -> tuple[str, int]:
    """HOST:PORT in two parts.  ValueError for anything else."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{of} {text[:80]!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
