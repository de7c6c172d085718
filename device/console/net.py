"""`net`: what the box's network is, and whether each place it needs can be reached from here.

Reads the kernel's own tables and opens one line to each needed place; sends no secret, and asks no channel anything.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from device.console.printing import table
from device.console.session import Call, Failed
from device.real_clock import clock_quality

LINE_S_MAX = 5.0
TRY_S_MAX = 20.0                         # of one place: its name, and a line to each of its addresses
_FIRST_S, _BEAT_S = 0.05, 0.2
_WIFI = Path("/proc/self/net/wireless")


def net(c: Call) -> Iterator[str]:
    yield from table([(c.t("网口", "port"), c.t("地址", "address")), *addresses()], (12,))
    yield f"{c.t('网关', 'gateway')}  {gateway() or c.t('没有', 'none')}"
    yield f"{c.t('域名服务器', 'name servers')}  {', '.join(name_servers()) or c.t('没有', 'none')}"
    for line in wifi():
        yield f"Wi-Fi  {line}"
    proxies = [f"{name}={_without_password(os.environ[name])}" for name in ("https_proxy", "HTTPS_PROXY", "no_proxy")
               if name in os.environ]
    yield f"{c.t('代理', 'proxy')}  {' '.join(proxies) or c.t('没有', 'none')}"
    wrong = 0
    targets = list(needed(c))
    if not targets:
        yield c.t("配置里没有需要网络的目标。", "The configuration needs no place on the network.")
    for part, host, port in targets:
        verdict = _waited(c, host, port)
        wrong += bool(verdict)
        c.say(f"{part:<18} {host}:{port}  {verdict or c.t('通', 'reached')}")
    yield _clock(c)
    if wrong:
        raise Failed("UNREACHED", c.t(f"{len(targets)} 个目标中 {wrong} 个不通",
                                      f"{wrong} of {len(targets)} places cannot be reached"))


def needed(c: Call) -> Iterator[tuple[str, str, int]]:
    """(what, host, port) of every place that the configuration names."""
    config = c.place.config
    if config is None:
        return
    if config.mqtt.host:
        yield "broker", config.mqtt.host, config.mqtt.port
    for one in config.channels:
        address = urlsplit(one.base_url)
        if address.hostname:
            yield f"channel {one.name}", address.hostname, address.port or (443 if address.scheme == "https" else 80)
    if config.printer.kind == "tcp":
        yield "printer", config.printer.host, config.printer.port


def _waited(c: Call, host: str, port: int) -> str:
    """`tried` aside, for a name server or a line that hangs must not keep Ctrl-C waiting."""
    verdicts: list[str] = []
    aside = threading.Thread(target=lambda: verdicts.append(tried(host, port)), daemon=True)
    aside.start()
    for _ in range(int(TRY_S_MAX / _BEAT_S)):
        aside.join(_FIRST_S)
        if not aside.is_alive():
            return verdicts[0]
        c.pause(_BEAT_S)
    return c.t("太久没有回答", "no answer in time")


def tried(host: str, port: int) -> str:
    """What stands between here and there, "" when a line opens: the name, then the line."""
    try:
        with socket.create_connection((host, port), LINE_S_MAX):             # each of its addresses in turn
            return ""
    except socket.gaierror as why:
        return f"no such name ({why.strerror})"
    except (OSError, UnicodeError) as why:
        return f"no line ({getattr(why, 'strerror', '') or type(why).__name__})"


def addresses() -> Iterator[tuple[str, str]]:
    """(port, address) of this machine, loopback left out.  By the kernel's tables: a console asks no netlink."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as line:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                raw = fcntl.ioctl(line.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))          # SIOCGIFADDR
                if name != "lo":
                    yield name, str(ipaddress.IPv4Address(raw[20:24]))
    with contextlib.suppress(OSError):
        for row in Path("/proc/self/net/if_inet6").read_text().splitlines():
            raw6, _, _, _, _, name = row.split()
            if name != "lo":
                yield name, str(ipaddress.IPv6Address(int(raw6, 16)))


def gateway() -> str:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for row in Path("/proc/self/net/route").read_text().splitlines()[1:]:
            cells = row.split()
            if cells[1] == "00000000":
                return f"{ipaddress.IPv4Address(int.from_bytes(bytes.fromhex(cells[2]), 'little'))} {cells[0]}"
    return ""


def name_servers() -> list[str]:
    with contextlib.suppress(OSError):
        rows = [row.split() for row in Path("/etc/resolv.conf").read_text(errors="replace").splitlines()]
        return [row[1] for row in rows if len(row) > 1 and row[0] == "nameserver"]
    return []


def wifi() -> list[str]:
    with contextlib.suppress(OSError):
        return [f"{row.split()[0]} link {row.split()[2]} level {row.split()[3]}" for row in _WIFI.read_text().splitlines()[2:]
                if len(row.split()) > 3]
    return []


def _clock(c: Call) -> str:
    synced = clock_quality() == "ntp"
    now = time.strftime("%Y-%m-%d %H:%M:%S %z")
    said = c.t("已对时", "set by a time server") if synced else c.t("未对时", "no time server set it")
    return f"{c.t('时钟', 'clock')}  {now}  {said}"


def _without_password(address: str) -> str:
    head, at, rest = address.rpartition("@")
    scheme = re.match(r"[A-Za-z0-9]+://", head)      # some write none, and then a name and its password stand first
    return f"{scheme[0] if scheme else ''}***@{rest}" if at else address
