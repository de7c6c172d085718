"""The doctor's look at what the kernel tells in files: network cards, the wear of the card, mounts, watchdogs.

Reads files below `look.root`; a kernel that does not tell is no fault.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from device.doctor.look import Finding, Look, found

RTF_UP = 0x1                             # linux/route.h
LIFE_OVER = 0x0A                         # JEDEC eMMC: 0x0A is 90 to 100 % used, 0x0B beyond
PRE_EOL_WARNING = 2                      # 0x02: 80 % of the reserved blocks are used; 0x03: 90 %
INSIDE = ("lo", "ifb", "docker", "br-", "veth", "virbr", "tun", "dummy", "sit")


def link(look: Look) -> Iterator[Finding]:
    """Cable or Wi-Fi, then a way out; only where something far is wanted."""
    if not far_hosts(look):
        return
    try:
        cards = sorted(p for p in (look.root / "sys/class/net").iterdir() if not p.name.startswith(INSIDE))
    except OSError:
        return
    if not cards:
        yield found("link_cable", "link", "The box has no network card.", "plug the adapter in; look at `dmesg`")
        return
    joined = [card.name for card in cards if _text(card / "carrier") == "1" or (not _text(card / "carrier")
                                                                             and _text(card / "operstate") == "up")]
    if not joined:
        names = ", ".join(f"{card.name} {_text(card / 'operstate') or 'down'}" for card in cards)
        yield found("link_cable", "link", f"No network cable is plugged in, and no Wi-Fi is joined ({names}).")
    elif _way_out(look.root / "proc/net") is False:
        yield found("link_address", "link", f"The network on {', '.join(joined)} gave the box no way out: no default "
                    "route.")


def far_hosts(look: Look) -> set[str]:
    """Every host that the box needs and that is not this machine itself."""
    c = look.config
    hosts = {urlsplit(ch.base_url).hostname or "" for ch in c.channels if ch.base_url} | {c.mqtt.host}
    return {host for host in hosts if host and not is_here(host)}


def is_here(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


def no_servers(look: Look) -> bool:
    """True when resolv.conf is there and names no server."""
    try:
        lines = (look.root / "etc/resolv.conf").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return not any(line.split()[:1] == ["nameserver"] and len(line.split()) > 1 for line in lines)


def is_readonly(look: Look) -> bool:
    """Whether the state folder lies on a file system that only reads."""
    try:
        if os.statvfs(look.config.state_dir).f_flag & os.ST_RDONLY:
            return True
    except (OSError, AttributeError):
        pass                                             # said by the look at the room
    best, flags = "", ""
    state = os.path.realpath(look.config.state_dir)
    for line in _text(look.root / "proc/mounts").splitlines():
        words = line.split()
        if len(words) > 3 and len(words[1]) >= len(best) and (state + "/").startswith(words[1].rstrip("/") + "/"):
            best, flags = words[1], words[3]
    return "ro" in flags.split(",")


def wear(look: Look) -> Iterator[Finding]:
    """What the card says of its age (eMMC), and what its file system has counted."""
    for device in sorted((look.root / "sys/block").glob("mmcblk*/device")):
        name = device.parent.name
        life = max((_hex(word) for word in _text(device / "life_time").split()), default=0)
        reserve = _hex(_text(device / "pre_eol_info"))
        if life >= LIFE_OVER:
            yield found("card_worn", "card", f"{name} says that {'more than ' if life > LIFE_OVER else ''}"
                        f"{(life - 1) * 10} % of its life is used.")
        elif reserve >= PRE_EOL_WARNING:
            yield found("card_worn", "card", f"{name} says that its reserved blocks are nearly used up ({reserve}).")
    for counted in sorted((look.root / "sys/fs/ext4").glob("*/errors_count")):
        if (count := _hex(_text(counted), 10)) > 0:
            yield found("card_errors", "card", f"The file system on {counted.parent.name} has counted {count} errors.")


def watchdog(look: Look) -> Iterator[Finding]:
    """The hardware's watchdog, where there is one and systemd should feed it."""
    dogs = sorted((look.root / "sys/class/watchdog").glob("watchdog*"))
    if dogs and (look.root / "run/systemd/system").exists() and all(_text(dog / "state") == "inactive" for dog in dogs):
        yield found("watchdog_off", "watchdog", f"The hardware watchdog {dogs[0].name} is off: a hung box stays hung.")
    for dog in dogs:
        if _hex(_text(dog / "bootstatus"), 10):
            yield found("watchdog_bit", "watchdog", f"The last restart of the machine was by {dog.name}.")


def _way_out(net: Path) -> bool | None:
    """Whether there is a default route; None where the kernel does not tell."""
    told = False
    for line in _text(net / "route").splitlines()[1:]:
        words = line.split()
        told = True
        if len(words) > 7 and words[1] == "00000000" == words[7] and int(words[3], 16) & RTF_UP:
            return True
    for line in _text(net / "ipv6_route").splitlines():
        words = line.split()
        if len(words) > 9 and words[0] == "0" * 32 and words[1] == "00" and words[9] != "lo":
            return True
    return False if told or (net / "route").exists() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:                                      # a card that is down answers EINVAL when asked for its carrier
        return ""


def _hex(text: str, base: int = 16) -> int:
    try:
        return int(text, base)
    except ValueError:
        return 0
