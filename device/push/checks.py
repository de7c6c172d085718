"""What a pushed configuration may say, and whether what it makes of this box has sense.  Opens nothing: every reason at once.

Knows the keys that are this box's own and never a cloud's, the files a document may name, secrets, and money's address; what a
key may hold knows `device/config.py`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from typing import Any

import msgspec

from device.config import SECTIONS, ChannelConfig, Config, Key, merged, parse
from device.errors import ConfigError
from device.mqtt.config_wire import REASONS_MAX, Body

# The keys without a section that a cloud may set.  What the box is, where it keeps what it knows, and by whose word it believes,
# says box.toml alone.
TOP = ("shop_zh", "shop_en", "cashier", "lang", "opening_ticket", "cutoff_hour", "cash_round_fen", "approve_refund_fen",
       "approve_drawer", "receipt_url", "instalment_code", "amount_fen_max", "route")
SET = ("scanner", "keypad", "display", "printer", "sound", "cards", "mqtt", "channel", "supervisor", "template")
LINE = ("mqtt.ca_file", "mqtt.cert_file", "mqtt.key_file")     # an enrolment brings them
INSTEAD = {"prices_file": ": send the list as blobs.prices", "rules_file": ": send the table as blobs.rules",
           "pictures": ": send each as blobs.picture/NAME"}
KEYS_MAX = 1_000
BLOB_KEYS = (("prices", "prices_file"), ("rules", "rules_file"))
# Where the money goes, and by what the channel is proven: a change needs the document's own word for it.
PAYEE = ("base_url", "account", "appid", "mchid", "dialect", "terminal_id", "fields", "private_key_file", "platform_key_id",
         "platform_key_file", "ca_file")
PICTURES = ("printer.logo",)
_FILE = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_DEVICE = re.compile(r"/dev/[A-Za-z0-9_.:*/-]+")


class Unreadable(Exception):
    """A secret that this box cannot open; one sentence."""


def effective(base: dict[str, Any], body: Body, opened: Callable[[str], str], blob_path: Callable[[str], str]) -> Config:
    """The configuration that `body` makes of `base`, box.toml as read.  ConfigError with every reason.

    `opened` gives the text of a secret, or raises Unreadable; `blob_path` where a blob lies or will lie.
    """
    reasons: list[str] = []
    plain = _opened(body.set, "", opened, reasons)
    try:
        config = parse(merged(base, plain))
    except ConfigError as why:
        raise ConfigError(reasons + why.reasons, which="the pushed configuration") from None
    if reasons:
        raise ConfigError(reasons, which="the pushed configuration")
    places: dict[str, Any] = {key: blob_path(body.blobs[name].sha256) for name, key in BLOB_KEYS if name in body.blobs}
    if config.printer.logo.startswith("picture/") and config.printer.logo in body.blobs:
        places["printer"] = msgspec.structs.replace(config.printer, logo=blob_path(body.blobs[config.printer.logo].sha256))
    pictures = tuple(blob_path(blob.sha256) for name, blob in sorted(body.blobs.items()) if name.startswith("picture/"))
    return msgspec.structs.replace(config, **places, **({"pictures": pictures} if pictures else {}))


def judged(body: Body, runs: Config, made: Callable[[Body], Config]) -> tuple[str, ...]:
    """Every reason against the document, () for none.  `runs` what the box runs with; `made` as `effective`, of this box."""
    if (count := _keys(body.set)) > KEYS_MAX:
        return (f"it sets {count} keys; no box has more than {KEYS_MAX}",)       # each unknown one is compared with all there are
    reasons = _forbidden(body.set)
    try:
        reasons += _senseless(runs, made(body), body.payee_change)
    except ConfigError as why:
        reasons += why.reasons
    if len(reasons) > REASONS_MAX:
        reasons[REASONS_MAX - 1:] = [f"and {len(reasons) - REASONS_MAX + 1} more"]
    return tuple(reason[:500] for reason in reasons)


def _keys(told: Any) -> int:
    inside = told.values() if isinstance(told, dict) else told if isinstance(told, list) else ()
    return len(inside) + sum(map(_keys, inside))


def _forbidden(told: dict[str, Any]) -> list[str]:
    """Reasons against keys that no cloud sets, and against files, devices and twins that no cloud names."""
    reasons = []
    for name, value in told.items():
        if name not in TOP and any(key.name == name for key in SECTIONS[""]) or name in SECTIONS and name not in SET:
            reasons.append(f"{name} is not the cloud's to say{INSTEAD.get(name, '')}")
        elif isinstance(value, dict) or name in ("scanner", "display"):
            for at, keys, table in _tables(name, value):
                reasons += [fault for key in keys if key.name in table and (fault := _odd(at, key, table[key.name]))]
    return reasons


def _tables(name: str, value: Any) -> list[tuple[str, tuple[Key, ...], dict[str, Any]]]:
    if name == "channel":
        return [(f"channel.{one}", SECTIONS["channel.*"], table) for one, table in value.items() if isinstance(table, dict)]
    if isinstance(value, list):
        return [(f"{name} {n}", SECTIONS[name], table) for n, table in enumerate(value, 1) if isinstance(table, dict)]
    return [(name, SECTIONS[name], value)] if name in SECTIONS and isinstance(value, dict) else []


def _odd(section: str, key: Key, value: Any) -> str:
    at = f"{section}.{key.name}"
    if at in LINE:
        return f"{at} is not the cloud's to say: the box's certificates come by its enrolment"
    if key.name == "kind" and value == "file":
        return f"{at} is file: that is a device of the tests, and no counter has one"
    if key.type == "file" and value:
        fine = isinstance(value, str) and _FILE.fullmatch(value) and ".." not in value.split("/")
        if not fine or posixpath.normpath(value).startswith(("config", "identity", "journal", "record", "keys")):
            return f"{at} names a file that no cloud names: only files below state_dir, by a plain relative name"
    if at in PICTURES and value and not (isinstance(value, str) and value.startswith("picture/")):
        return f"{at} names a file that no cloud names: push it as a blob and say picture/NAME"
    if at == "sound.voice_dir" and value:
        return f"{at} is not the cloud's to say: a voice lies on the box"
    if key.name == "path" and value and not (isinstance(value, str) and _DEVICE.fullmatch(value) and ".." not in value.split("/")):
        return f"{at} names no device: it begins with /dev/"
    if key.type == "url" and isinstance(value, str) and value.lower().startswith("http:"):
        return f"{at} is no https address: a channel on the loopback is for tests"
    return ""


def _opened(told: Any, at: str, opened: Callable[[str], str], reasons: list[str]) -> Any:
    """`told` with every secret in plain text; a reason for each that is not sealed or does not open."""
    if isinstance(told, list):
        return [_opened(one, at, opened, reasons) for one in told]
    if not isinstance(told, dict):
        return told
    whole: dict[str, Any] = {}
    for name, value in told.items():
        path = f"{at}{name}"
        if isinstance(value, dict) and set(value) == {"jwe"}:
            if name not in _SECRET:
                reasons.append(f"{path} is no secret: send it plain")
                continue
            try:
                value = opened(str(value["jwe"]))
            except Unreadable as why:
                reasons.append(f"{path}: {why}")
                continue
        elif name in _SECRET and not isinstance(value, (dict, list)) and value != "":
            reasons.append(f"{path} is a secret: send it sealed to this box, as {{\"jwe\": ...}}")
            continue
        whole[name] = _opened(value, f"{path}.", opened, reasons)
    return whole


_SECRET = frozenset(key.name for keys in SECTIONS.values() for key in keys if key.secret)


def _senseless(old: Config, new: Config, payee_change: bool) -> list[str]:
    reasons = []
    if not new.mqtt.host:
        reasons.append("mqtt.host is empty: a box without a line hears of no better configuration")
    if new.printer.logo.startswith("picture/"):        # what is pushed has a path by now
        reasons.append(f"printer.logo is {new.printer.logo}, which is not among the blobs")
    if old.channels and not new.channels:
        reasons.append("no channel is left: the box could take nothing but cash")
    if not payee_change:
        reasons += [f"{change} changes where money goes: if that is meant, say payee_change" for change in _payee_changes(old, new)]
    return reasons


def _payee_changes(old: Config, new: Config) -> list[str]:
    before, after = ({channel.name: channel for channel in config.channels} for config in (old, new))
    changes = []
    for name in sorted(before.keys() | after.keys()):
        one, other = before.get(name), after.get(name)
        if one is None or other is None:
            changes.append(f"channel.{name} is {'new: it' if one is None else 'gone: it'}")
        else:
            changes += [f"channel.{name}.{key}" for key in _differs(one, other)]
    return changes


def _differs(one: ChannelConfig, other: ChannelConfig) -> list[str]:
    return [key for key in PAYEE if getattr(one, key) != getattr(other, key)]
