"""The doctor's checks over the line, step by step: name, line, certificate, clock, and one signed question to each channel.

The question is after an order that was never made: it moves nothing, and its answer proves that both sides take each other's
signature.  The broker is greeted and left before a word of MQTT, for a second client of the same name would end the box's own line.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from device.config import CARD, ChannelConfig, account_of
from device.doctor.keys import Reading
from device.doctor.look import Finding, Look
from device.drivers.channels.codec_bytes import Request
from device.drivers.registry import drivers_of
from device.txn.effects import Intent, QueryOrder
from device.txn.inputs import ChannelSaid, Said
from device.txn.numbers import order_number
from device.uplink import broker_tls

LINE_S_MAX = 5.0
CLOCK_S_MAX = 60             # channels refuse five minutes; half a minute may be the line's


def broker(look: Look) -> Iterator[Finding]:
    c = look.config.mqtt
    if not c.host:
        return
    if (fault := _name_fault(c.host, c.port)):
        yield Finding("broker_name", "link", fault, "look at the box's network and its name server")
        return
    try:
        with socket.create_connection((c.host, c.port), LINE_S_MAX) as line:
            context = broker_tls(look.config)
            if context is not None:
                with context.wrap_socket(line, server_hostname=c.host):
                    pass
    except OSError as why:                               # ssl's own errors among them
        yield Finding("broker_line", "link", f"No line to {c.host}:{c.port} ({type(why).__name__}: {why}).",
                      "look at mqtt.host, mqtt.port, mqtt.ca_file and the firewall")


def channels(look: Look) -> Iterator[Finding]:
    if look.config.training:
        return
    drivers = drivers_of(look.config, lambda symbol: None, Reading(look.store))
    for c in look.config.channels:
        if c.name != CARD:                               # that one hangs on a cable, and has no line to test
            yield from asyncio.run(_channel(c, drivers[f"channel:{c.name}"], look.config.box_no))


async def _channel(c: ChannelConfig, driver: Any, box_no: str) -> list[Finding]:
    from device.drivers.channels.https import Lines, NoAnswer

    part, parts = f"channel.{c.name}", urlsplit(c.base_url)
    if (fault := _name_fault(parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80))):
        return [Finding("channel_name", part, fault, "look at base_url, and at the box's network and its name server")]
    lines = Lines(c.base_url, c.name, connect_s=LINE_S_MAX, read_s=LINE_S_MAX, at_once=1, ca_file=c.ca_file)
    try:
        reply = await lines.ask(Request("GET", "/"))
    except NoAnswer as silence:
        return [Finding("channel_line", part, f"{c.base_url}: {silence.why}.",
                        "look at base_url, ca_file, the firewall, and whether a hotel's page answers in its place")]
    finally:
        await lines.close()
    off_s = _off_s(reply.headers.get("date", ""))
    if off_s is not None and abs(off_s) > CLOCK_S_MAX:
        return [Finding("clock_off", part, f"Our clock is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} {c.name}'s.",
                        "set the clock: timedatectl")]
    return await _asked(part, c, driver, box_no)


async def _asked(part: str, c: ChannelConfig, driver: Any, box_no: str) -> list[Finding]:
    if getattr(driver, "why", ""):
        await driver.close()
        return []                                        # said by the check of each channel
    # So old that no channel takes it for one still on its way, or for a QR that nobody has scanned yet.
    then = (datetime.datetime.now().astimezone() - datetime.timedelta(days=2)).isoformat(timespec="seconds")
    never = Intent(order_number(box_no, "0000", 0), c.name, account_of(c), 1, "", then, then)     # a box begins with the first
    try:
        said = await driver.do(QueryOrder(never))
    finally:
        await driver.close()
    if isinstance(said, ChannelSaid) and said.said is Said.ABSENT:
        return []
    why = getattr(said, "detail", "") or f"it said {said.said if isinstance(said, ChannelSaid) else 'something else'}"
    return [Finding("channel_proof", part, f"{c.name} did not prove that it knows us: {why}.",
                    "look at the account's numbers and keys here, and at its state on the channel's page")]


def _name_fault(host: str, port: int) -> str:
    try:
        socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as why:
        return f"The name {host} leads nowhere ({why.strerror or why})."
    return ""


def _off_s(date: str) -> float | None:
    """How far we are ahead of a Date header, None for one that cannot be read."""
    try:
        theirs = email.utils.parsedate_to_datetime(date)
    except (TypeError, ValueError):
        return None
    return (datetime.datetime.now(datetime.UTC) - theirs.astimezone(datetime.UTC)).total_seconds()
