"""A shop's accounts at one channel as one driver: today's, and those whose orders and sales are not over yet.

Knows which keys an effect needs: those of the account that its intent was made under, whatever was configured since, or none.
Refuses to know keys, bytes and sockets.  Of two keys of one account the newer speaks first; when the channel does not take its
signature, the next try speaks with the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from device.drivers.channels.codec_bytes import Verdict
from device.drivers.channels.https import Health, HttpsChannel, told
from device.drivers.private_file import KeyFile
from device.errors import Outside
from device.keys.sealed import holder_of
from device.txn.effects import (
    ChargeCode,
    CloseOrder,
    Effect,
    FetchBill,
    PlaceOrder,
    QueryOrder,
    QueryRefund,
    RefundOrder,
)
from device.txn.inputs import Input
from device.types import Account

EVERY: frozenset[type[Effect]] = frozenset({PlaceOrder, ChargeCode, QueryOrder, CloseOrder, RefundOrder, QueryRefund, FetchBill})


class KeySet(msgspec.Struct, frozen=True):
    """What one account's channel is made with; empty where the channel wants none.

    PEM as bytes; `client_cert` and `ca_file` paths, for OpenSSL reads files only; `terminal` where a key that the box itself
    changes is kept; `certificates` where those that the channel sends are.
    """

    private_key: bytes = b""
    secret: str = ""
    api_v3_key: str = ""
    platform_key: bytes = b""
    serial_no: str = ""
    client_cert: str = ""
    ca_file: str = ""
    terminal: KeyFile | None = None
    certificates: KeyFile | None = None

    def __repr__(self) -> str:
        return f"KeySet(serial_no={self.serial_no!r}, ...)"


class ChannelAccounts:
    """`today` the channels of the account now configured, one a key, newest first, None when there is none; `opened` makes those
    of another account, [] when no key of it is here.  Only today's health is told."""

    at_once = HttpsChannel.at_once

    def __init__(self, part: str, today: tuple[Account, list[HttpsChannel]] | None,
                 opened: Callable[[Account], list[HttpsChannel]]) -> None:
        self._opened = opened
        self._made: dict[tuple[str, str], list[HttpsChannel]] = {}
        self._health = Health(part)
        self._first: HttpsChannel | None = None
        self.does = EVERY
        if today is not None:
            account, channels = today
            self._made[_id(account)], self._first, self.does = channels, channels[0], channels[0].does
            for channel in channels:
                channel.health = self._health

    async def inputs(self) -> AsyncIterator[Input]:
        """As HttpsChannel, of today's account; what its driver does besides lives as long as this is read."""
        async for said in self._first.inputs() if self._first is not None else self._health.changes():
            yield said

    async def do(self, effect: Any) -> Input:
        """As HttpsChannel.  UNKNOWN, and not a byte leaves, where no key of the account is here."""
        return told(effect, await self.ask(effect))

    async def ask(self, effect: Any) -> Verdict:
        """As `do`, the word as the codec gave it."""
        return await self._verdict(effect)

    async def close(self) -> None:
        self._health.end()
        await asyncio.gather(*(channel.close() for channels in self._made.values() for channel in channels))

    async def _verdict(self, effect: Any) -> Verdict:
        account = effect.account if isinstance(effect, FetchBill) else effect.intent.account
        try:
            channels = self._channels(account)
        except (Outside, ValueError) as why:           # sealed, and cannot be opened; asked anew by its pace
            return Verdict("unknown", detail=str(why))
        if not channels or type(effect) not in channels[0].does:
            return Verdict("unknown", detail="no key here for the account this was made under")
        used = channels[0]
        verdict = await used.ask(effect)
        if verdict.key_refused and len(channels) > 1:
            if channels[0] is used:                    # not when a call beside this one has seen to it
                channels.append(channels.pop(0))
            return Verdict("unknown", detail=f"{verdict.detail}; the account's other key is next")
        return verdict

    def _channels(self, account: Account) -> list[HttpsChannel]:
        made = self._made.get(_id(account))
        if made is None and (made := self._opened(account)):
            self._made[_id(account)] = made
        return made or []


def _id(account: Account) -> tuple[str, str]:
    """Both names: a box that calls its new merchant `main`, too, has not got the old one's keys thereby."""
    return account.account, holder_of(account)
