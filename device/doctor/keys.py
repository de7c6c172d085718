"""The doctor's checks of the payment channels' keys, and what each would be worth to a thief, in plain words.

Opens what is sealed, and shows nothing of it.  No check writes.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator

from device.config import MERCHANT_CHANNELS, ChannelConfig, account_of
from device.doctor.look import Finding, Look
from device.drivers.registry import drivers_of
from device.errors import Outside
from device.keys.sealed import ACCOUNT, HOLDER, Name, whose
from device.keys.store import NO_SEAL, KeyStore

TPM = "/dev/tpmrm0"

# What whoever holds a key can do with it, from anywhere, until it is revoked.  docs/keys.md shows this very table.
THIEF: dict[tuple[str, str], str] = {
    ("wechat", "private_key"):
        "take orders in the shop's name, give its takings of up to a year back to their payers, read its bills, and, where the "
        "merchant may use WeChat's transfers, send its balance to anybody",
    ("wechat", "secret"): "charge payers' codes in the shop's name, and forge WeChat's replies and notices of API v2",
    ("wechat", "api_v3_key"):
        "open WeChat's sealed notices with the payers in them, and, sitting on the box's line, pass for WeChat towards this box; "
        "no order and no refund",
    ("wechat", "client_cert"): "together with the API key reverse payments and give them back to their payers; alone nothing",
    ("alipay", "private_key"):
        "take and cancel orders in the shop's name, give its takings back to their payers, read its bills, and, where the "
        "application may use transfers, send its balance to anybody",
    ("alipay", "secret"): "together with the partner's private key do all that for this shop; alone nothing",
    ("unionpay", "private_key"):
        "take orders in the shop's name, give its takings back to their payers, and read its settlement files",
    ("card", "secret"): "with a hand on its cable pass for the terminal towards this box; nothing from afar, and no money",
    ("gateway", "terminal_key"):
        "sell as this one terminal and give its own sales back to their payers, until the gateway revokes it; no other "
        "terminal's, and no money to a stranger",
}


class Reading:
    """The sealed keys for channels that are made to be looked at: nothing is remembered."""

    def __init__(self, store: KeyStore) -> None:
        self.sets, self.older, self.channels = store.sets, store.older, store.channels

    def remember(self, c: ChannelConfig, platform_key: bytes, ca: bytes) -> None:
        """Nothing: the doctor only reads."""


def sealing(look: Look) -> Iterator[Finding]:
    """Where the sealing key lies decides what the seal is worth."""
    direct = [c.name for c in look.config.channels if c.name in MERCHANT_CHANNELS]
    if look.seal_fault:
        yield Finding("seal_unfit", "keys", look.seal_fault, "put the sealing key right; see docs/keys.md")
    elif direct and not look.store.seals and not _services(look):
        yield Finding("seal_gone", "keys", f"{direct[0]} needs a merchant's key here, and {NO_SEAL[0]}.", NO_SEAL[1])
    if not look.store.seals:
        return
    file, worth = look.config.seal_key_file, "so whoever has the card opens everything."
    if file and os.path.exists(file):
        if os.path.isdir(look.config.state_dir) and os.stat(file).st_dev == os.stat(look.config.state_dir).st_dev:
            yield Finding("seal_same_card", "keys", f"The sealing key {file} lies on the same card as what it seals, {worth}", "")
    elif not os.path.exists(TPM):
        yield Finding("seal_without_tpm", "keys", f"Without a TPM systemd's key lies on the card with what it seals, {worth}", "")


def sealed(look: Look) -> Iterator[Finding]:
    """Each opens, and none lies about that is not needed."""
    if look.store.names() and not look.store.seals and _services(look):
        yield Finding("sealed_unseen", "keys", "Sealed keys were not looked into: the service has the sealing key, and this "
                      "command has not; docs/keys.md says how to give it one.", "")
        return
    mine = {whose(account_of(c)) for c in look.config.channels}
    for account in sorted({name.whose for name in look.store.names() if name.kind != ACCOUNT} - mine):
        yield Finding("keys_left", f"channel.{account.partition('/')[0]}", f"Keys of {account}, which box.toml does not name, are "
                      "kept for its orders and refunds; tillbox keys drop takes them once none can come any more.", "")
    today = datetime.date.today().isoformat()                              # noqa: DTZ011  a shop's day
    before: dict[tuple[str, str], Name] = {}
    for name in look.store.names():                      # in order: the versions of a key rise
        try:
            held = look.store.read(name)
        except Outside as why:
            yield Finding("sealed_closed", f"channel.{name.channel}", why.what, why.hint)
            continue
        older = before.get((name.whose, name.kind))
        if older is not None and held.older_until < today:
            which = f"{older.whose} {older.kind} {older.version}"
            yield Finding("key_before", f"channel.{name.channel}", f"{which} is not tried any more.",
                          f"tillbox keys drop {which}, and revoke it at the channel")
        before[name.whose, name.kind] = name


def plain(look: Look) -> Iterator[Finding]:
    """Keys that anybody with the card, a backup or a bundle can read, and files that other users of this machine can."""
    here = {(name.whose, name.kind) for name in look.store.names()}
    for c, kind, where in _plain(look):
        part, account = f"channel.{c.name}", whose(account_of(c))
        if (account, kind) in here:
            yield Finding("plain_twice", part, f"The {kind} in {where} is sealed already, and lies there for anybody to read.",
                          f"destroy it there; then take it out of {look.path}")
        elif c.name in MERCHANT_CHANNELS:
            yield Finding("plain_merchant_key", part, f"The {kind} of {account} lies plain in {where}: whoever has the card, a "
                          "backup or a bundle has it.", f"tillbox keys import {c.name} {kind} FILE, then destroy it there")
    for path in dict.fromkeys(path for c in look.config.channels for path in (c.private_key_file, c.client_cert_file) if path):
        mode = os.stat(path).st_mode if os.path.exists(path) else 0
        if mode & 0o077:
            yield Finding("key_open", "keys", f"{path} may be read by others (mode {stat.S_IMODE(mode):04o}).", f"chmod 600 {path}")


def channels(look: Look) -> Iterator[Finding]:
    """Each channel is made as a start would make it, and not opened."""
    if look.store.names() and not look.store.seals and _services(look):
        return                                           # the daemon's own word on each is told by its check
    for part, driver in drivers_of(look.config, lambda symbol: None, Reading(look.store)).items():
        if why := getattr(driver, "why", ""):
            yield Finding("channel_unusable", part.replace(":", "."), f"It cannot be used as it is set up: {why.rstrip('.')}.",
                          "put it right and start the box anew; the rest of it sells")


def accounts(look: Look) -> Iterator[Finding]:
    """Something is open under an account whose keys are not here: nobody can end it."""
    if look.books is None:
        return
    mine = {whose(account_of(c)) for c in look.config.channels} | {n.whose for n in look.store.names() if n.kind != ACCOUNT}
    open_ = [o.intent.account for o in look.books.orders.values()] + [r.intent.account for r in look.books.refunds.values()]
    left = [whose(account) for account in open_ if account.channel in HOLDER]
    for account in sorted(set(left) - mine):
        yield Finding("account_without_key", f"channel.{account.partition('/')[0]}",
                      f"Orders or refunds under {account} that are not over: {left.count(account)}; no key of it is here.",
                      "set that account up again, import its key, and only then the new one")


def thief(look: Look) -> Iterator[Finding]:
    """What each merchant's key on this box would be worth to whoever takes the box, or reads the key out of it."""
    held = {(name.channel, name.whose, name.kind) for name in look.store.names()}
    held |= {(c.name, whose(account_of(c)), kind) for c, kind, _ in _plain(look)}
    for channel, account, kind in sorted(held):
        if channel in MERCHANT_CHANNELS and (channel, kind) in THIEF:
            yield Finding("thief", f"channel.{channel}", f"Whoever gets the {kind} of {account} out of this box could "
                          f"{THIEF[channel, kind]}.", "")


def _plain(look: Look) -> Iterator[tuple[ChannelConfig, str, str]]:
    """(channel, kind of key, where it lies plain)."""
    for c in look.config.channels:
        terminal = c.name == "gateway"
        private = "terminal_key" if terminal else "private_key"
        for kind, path in ((private, c.private_key_file), ("client_cert", c.client_cert_file)):
            if (c.name, kind) in THIEF and path and os.path.exists(path):
                yield c, kind, path
        shared = "terminal_key" if terminal else "secret"
        for kind, key, value in ((shared, "secret", c.secret), ("api_v3_key", "api_v3_key", c.api_v3_key)):
            if (c.name, kind) in THIEF and value:
                yield c, kind, f"{look.path} (channel.{c.name}.{key})"


def _services(look: Look) -> bool:
    """True when a running daemon may have the sealing key that this command has not: systemd gives it to the service alone."""
    return look.running and not look.config.seal_key_file
