"""What a box runs with, of box.toml and the documents on its card.  Loaded where there is a document, and by the pusher."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from device.config import Config
from device.errors import ConfigError
from device.mqtt import config_wire as wire
from device.push.checks import Unreadable, effective
from device.push.store import PushStore

log = logging.getLogger("tillbox")

WHICH = "a pushed configuration"


def maker(base: dict[str, Any], store: PushStore, opened: Callable[[str], str],
          finished: Callable[[Config], Config]) -> Callable[[wire.Body], Config]:
    """What a document makes of this box.  `base` is box.toml as read; `opened` gives the text of a secret, or raises Unreadable;
    `finished` adds what this box alone knows."""
    folder = store.blobs
    return lambda body: finished(effective(base, body, opened, lambda sha256: str(folder / sha256)))


def chosen(store: PushStore, alone: Config, made: Callable[[wire.Body], Config], *, starts: bool) -> Config:
    """What the box runs with: the document on trial, the active one, the one before, or box.toml `alone`: the first that fits.

    One that once ran and fits no more, after an update of the box or a change of box.toml, is said so and left out.  At a start a
    trial of one ends there, and a blob that has rotted is thrown away, so that it is asked for again.
    """
    state = store.state
    for digest in dict.fromkeys((state.runs, state.active, state.previous)):
        desired = store.document(digest)
        if desired is not None:
            rotten = _rotten(store, desired)
            try:
                if rotten:
                    raise ConfigError([f"blobs.{name} is gone from the card, or has rotted" for name in rotten], which=WHICH)
                return made(desired.body)
            except ConfigError as why:
                log.error("pushed configuration %d.%d does not fit this box: %s", *desired.place, why)
            if starts and rotten and digest == state.active and not state.phase:
                for name in rotten:
                    (store.blobs / desired.body.blobs[name].sha256).unlink(missing_ok=True)
                store.demote("a part of it has rotted on the card, and is asked for again")
        if starts and digest == state.trial and state.phase == "trial":
            store.roll_back("it does not fit this box any more")
        if not digest:
            break
    return alone


def _rotten(store: PushStore, desired: wire.Desired) -> list[str]:
    """Blobs that are not what they were when they were taken: a price that rotted is still a price."""
    def whole(blob: wire.Blob) -> bool:
        try:
            return hashlib.sha256((store.blobs / blob.sha256).read_bytes()).hexdigest() == blob.sha256
        except OSError:
            return False
    return [name for name, blob in desired.body.blobs.items() if not whole(blob)]


def opener(key_file: Path) -> Callable[[str], str]:
    """Opens secrets with the encryption key in `key_file`; each time anew, so that no key lies in memory for it."""
    def opened(token: str) -> str:
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        from device.mqtt.jwe_wire import jwe_decrypted
        try:
            key = load_pem_private_key(key_file.read_bytes(), None)
            return jwe_decrypted(token, key).decode("utf-8")         # type: ignore[arg-type]
        except OSError:
            raise Unreadable("this box has no encryption key: it is not enrolled") from None
        except (ValueError, UnicodeDecodeError) as why:
            raise Unreadable(f"it does not open: {why}" if str(why).startswith("it") else "it does not open") from None
    return opened
