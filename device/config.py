"""The configuration as a struct, and how a file becomes one.  Opens nothing: text and tables come in.

A configuration is taken whole or refused whole: `parse` names every fault at once.  The keys stand in `config_keys.py`, and
`python -m device.config > docs/config.md` makes the manual's page of them.
"""

from __future__ import annotations

import posixpath
import re
from typing import Any

import msgspec

from device.config_keys import (
    CARD,
    CARD_KEYS,
    CHANNELS,
    DIALECTS,
    DISPLAYS_MAX,
    MASK,
    MERCHANT_CHANNELS,
    RULE_FIELDS,
    SCANNERS_MAX,
    SECTIONS,
    WALLETS,
    WECHAT_KEYS,
    Key,
    needed,
)
from device.config_values import nearest, read_section, read_table
from device.drivers.input.keypad_keys import layout_codes
from device.errors import ConfigError
from device.goods import Template, template_faults
from device.types import Account, Cards, Rules, Supervisor, Terms


class SignerConfig(msgspec.Struct, frozen=True):
    kind: str
    module: str
    token: str
    key: str
    pin_file: str


class ScannerConfig(msgspec.Struct, frozen=True):
    kind: str
    path: str
    port: str
    lane: str
    suffix: bool
    gap_ms: int
    gs: str
    layout: str
    caps: str
    repeat_ms: int
    baud: int


class KeypadConfig(msgspec.Struct, frozen=True):
    kind: str
    path: str
    port: str
    layout: dict[str, str]


class DisplayConfig(msgspec.Struct, frozen=True):
    kind: str
    path: str
    width: int
    height: int
    rotation: int
    large: bool
    slide_s: int
    dialect: str
    baud: int
    charset: str
    chip: str


class PrinterConfig(msgspec.Struct, frozen=True):
    kind: str
    path: str
    host: str
    port: int
    baud: int
    flow: str
    columns: int
    dialect: str
    qr: str
    cut: str
    logo: str
    model: str
    backend: str
    profile: str
    timeout_s: int
    drawer_pin: int
    drawer_sensor: str


class SoundConfig(msgspec.Struct, frozen=True):
    kind: str
    device: str
    path: str
    volume: int
    speak: bool
    voice_dir: str


_SECRETS = frozenset(key.name for keys in SECTIONS.values() for key in keys if key.secret)


class _Masked(msgspec.Struct, frozen=True):
    """A section that holds secrets, and shows none to whoever prints it."""

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self.__struct_fields__}
        told = (f"{name}={MASK if name in _SECRETS and value else repr(value)}" for name, value in values.items())
        return f"{type(self).__name__}({', '.join(told)})"


class JournalConfig(_Masked, frozen=True):
    keep_days: int
    quota_mb: int


class CardsConfig(_Masked, frozen=True):
    card_key: str
    store: str
    revoked: tuple[str, ...]


class MqttConfig(_Masked, frozen=True):
    host: str
    port: int
    user: str
    password: str
    ca_file: str
    cert_file: str
    key_file: str
    keepalive_s: int
    batch_s: int


class ChannelConfig(_Masked, frozen=True):
    """One `[channel.NAME]`; `name` is one of CHANNELS."""

    name: str
    base_url: str
    account: str
    appid: str
    mchid: str
    dialect: str
    wallets: tuple[str, ...]
    terminal_id: str
    notify_url: str
    fields: dict[str, str]
    serial_no: str
    private_key_file: str
    platform_key_id: str
    platform_key_file: str
    secret: str
    api_v3_key: str
    code_api: str
    ca_file: str
    client_cert_file: str
    kind: str
    path: str
    baud: int
    host: str
    port: int
    give_up_s: int
    pace_s: tuple[tuple[int, int], ...]
    undo_every_s: int
    dead_after_s: int
    refund_query_s: int
    refund_parts_max: int
    refund_days_max: int
    written: tuple[str, ...] = ()        # those of RULE_FIELDS that the file names: of the others the rule table speaks


class ConsoleConfig(msgspec.Struct, frozen=True):
    lang: str
    baud: int
    idle_s: int
    ssh_ca: str
    port: str


class Config(msgspec.Struct, frozen=True):
    """A configuration without fault.  Files are absolute: a relative one counts from `state_dir`."""

    box: str
    box_no: str
    tenant: str
    shop_zh: str
    shop_en: str
    cashier: str
    lang: str
    opening_ticket: bool
    training: bool
    receipt_url: str
    cutoff_hour: int
    cash_round_fen: int
    rules_file: str
    rules_key_file: str
    approve_drawer: bool
    approve_refund_fen: int
    instalment_code: str
    amount_fen_max: int
    route: tuple[str, ...]
    merchant_keys_on_box: bool
    seal_key_file: str
    state_dir: str
    second_copy_dir: str
    run_dir: str
    prices_file: str
    pictures: tuple[str, ...]
    record_key_file: str
    ack_key_file: str
    command_key_file: str
    config_key_file: str
    encryption_key_file: str
    keyboards: str
    console_key_file: str
    identity_dir: str
    signer: SignerConfig
    scanner: ScannerConfig
    keypad: KeypadConfig
    display: DisplayConfig
    printer: PrinterConfig
    sound: SoundConfig
    cards: CardsConfig
    console: ConsoleConfig
    mqtt: MqttConfig
    journal: JournalConfig
    channels: tuple[ChannelConfig, ...]
    supervisors: tuple[Supervisor, ...]
    templates: tuple[Template, ...]
    scanners: tuple[ScannerConfig, ...]      # all of them; `scanner` is the first
    displays: tuple[DisplayConfig, ...]      # likewise


def parse_toml(text: str, *, which: str = "config") -> Config:
    """As `parse`, from TOML text."""
    import tomllib

    try:
        return parse(tomllib.loads(text), which=which)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError([f"not TOML: {fault}"], which=which) from fault
    except RecursionError:
        raise ConfigError(["not TOML that anybody wrote: it is nested without end"], which=which) from None


def parse(data: dict[str, Any], *, which: str = "config") -> Config:
    """The configuration in `data`, defaults filled in.  ConfigError with every reason when anything is wrong."""
    faults: list[str] = []
    tables = tuple(name for name in SECTIONS if name.isalpha())
    top = read_section("", data, "", faults, also=(*tables, "channel", "template", "supervisor"))
    scanners = _scanners(data, faults)
    displays = _displays(data, faults)
    parts = {name: read_section(name, read_table(data, name, faults), f"{name}.", faults) for name in tables
             if name not in ("scanner", "display")}
    channels = _channels(read_table(data, "channel", faults), faults)
    templates = _templates(data.get("template", []), faults)
    supervisors = _supervisors(data.get("supervisor", []), faults)
    _across(top, parts, scanners, displays, channels, faults)
    if faults:
        raise ConfigError(faults, which=which)
    at = top["state_dir"]
    top["route"] = top["route"] or tuple(channel["name"] for channel in channels if channel["name"] != CARD)
    for name, values in (("", top), *parts.items(), *(("channel.*", channel) for channel in channels)):
        for key in SECTIONS[name]:
            if key.type == "file" and values[key.name]:
                values[key.name] = posixpath.join(at, values[key.name])
    top["pictures"] = tuple(posixpath.join(at, path) for path in top["pictures"])
    return Config(
        **top,
        signer=SignerConfig(**parts["signer"]),
        scanner=ScannerConfig(**scanners[0]),
        scanners=tuple(ScannerConfig(**one) for one in scanners),
        keypad=KeypadConfig(**parts["keypad"]),
        display=DisplayConfig(**displays[0]),
        displays=tuple(DisplayConfig(**one) for one in displays),
        printer=PrinterConfig(**parts["printer"]),
        sound=SoundConfig(**parts["sound"]),
        cards=CardsConfig(**parts["cards"]),
        console=ConsoleConfig(**parts["console"]),
        mqtt=MqttConfig(**parts["mqtt"]),
        journal=JournalConfig(**parts["journal"]),
        channels=tuple(ChannelConfig(**channel) for channel in channels),
        templates=tuple(templates),
        supervisors=tuple(supervisors),
    )


def merged(*layers: dict[str, Any]) -> dict[str, Any]:
    """Layers laid over each other, the last one on top: tables merge, everything else, lists too, is replaced."""
    whole: dict[str, Any] = {}
    for layer in layers:
        for name, value in layer.items():
            below = whole.get(name)
            whole[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return whole


def to_terms(config: Config) -> Terms:
    """What the core needs of `config`."""
    gateway = next((channel for channel in config.channels if channel.name == "gateway"), None)
    one_each = gateway is not None and gateway.dialect != "tillbox"
    wallets = () if gateway is None else gateway.wallets or (DIALECTS[gateway.dialect] if one_each else ())
    return Terms(
        box=config.box, box_no=config.box_no, shop_zh=config.shop_zh, shop_en=config.shop_en, cashier=config.cashier,
        lang=config.lang, route=config.route,
        gateway_wallets=wallets, gateway_qr=wallets[0] if one_each else "",
        accounts=tuple(account_of(channel) for channel in config.channels),
        rules=tuple((channel.name, _rules(channel)) for channel in config.channels if channel.name != CARD),
        cutoff_hour=config.cutoff_hour, cash_round_fen=config.cash_round_fen, amount_fen_max=config.amount_fen_max,
        training=config.training, receipt_url=config.receipt_url,
        approve_refund_fen=config.approve_refund_fen, approve_drawer=config.approve_drawer, supervisors=config.supervisors,
        instalment_code=config.instalment_code, cards=Cards(config.cards.card_key, config.cards.store, config.cards.revoked),
    )


def show(config: Config) -> list[tuple[str, Any]]:
    """Every key with its value, in the table's order, secrets masked: safe for a console, a log or a bundle."""
    return [(path, MASK if key.secret and value else value) for path, key, value in _walk(config)]


def restarts(old: Config, new: Config) -> set[str]:
    """What must be restarted to go from `old` to `new`, in the table's words; empty when the terms alone differ."""
    before = {path: (key, value) for path, key, value in _walk(old)}
    after = {path: (key, value) for path, key, value in _walk(new)}
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    parts = {(after.get(path) or before[path])[0].restarts for path in changed}
    return parts - {"nothing"}


# -- sections that repeat, and rules across sections ------------------------------------------------------------------

def _channels(data: dict[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    channels = []
    for name in sorted(data, key=lambda name: CHANNELS.index(name) if name in CHANNELS else len(CHANNELS)):
        at = f"channel.{name}"
        if name not in CHANNELS:
            near = nearest(name.lower(), CHANNELS, 1)
            hint = f"did you mean channel.{near[0]}?" if near else f"they are {', '.join(CHANNELS)}"
            faults.append(f"{at} is no channel; {hint}")
            continue
        table = read_table(data, name, faults)
        values = read_section("channel.*", table, at + ".", faults)
        if name == "gateway" and not values["secret"]:
            values["private_key_file"] = values["private_key_file"] or "gateway.key"      # `tillbox gateway activate` makes it
        if name == CARD:
            faults += _card_faults(table, values)
        else:
            faults += [f"{at}.{given} is read of a card terminal alone" for given in table if given in CARD_KEYS[3:]]
        missing = [need for need in needed(name) if not values[need] and not table.get(need)]
        faults += [f"{at}.{need} is missing: {name} cannot do without it" for need in missing]
        if name != "wechat":
            faults += [f"{at}.{given} is read of wechat alone" for given in table if given in WECHAT_KEYS]
        elif bool(values["platform_key_id"]) != bool(values["platform_key_file"]):
            faults.append(f"{at}: platform_key_id and platform_key_file go together: one of them is missing")
        channels.append({"name": name, **values, "written": tuple(key for key in RULE_FIELDS if key in table)})
    return channels


def _card_faults(table: dict[str, Any], values: dict[str, Any]) -> list[str]:
    faults = [f"channel.card.{given} is read by no card terminal" for given in table
              if given not in CARD_KEYS and any(key.name == given for key in SECTIONS["channel.*"])]
    if values["kind"] == "serial" and not values["path"]:
        faults.append("channel.card.path is missing: a serial card terminal needs one")
    if values["kind"] == "tcp":
        faults += [f"channel.card.{need} is missing: {why}" for need, why in (
            ("host", "a tcp card terminal needs one"),
            ("secret", "on a network anybody could say that a card has paid")) if not values[need]]
    return faults


def _scanners(data: dict[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    """One section, or a list of them; a scanner too many or one named twice is a fault."""
    told = data.get("scanner", {})
    if not isinstance(told, list):
        return [read_section("scanner", read_table(data, "scanner", faults), "scanner.", faults)]
    if not 1 <= len(told) <= SCANNERS_MAX or not all(isinstance(table, dict) for table in told):
        faults.append(f"scanner is written [scanner], or [[scanner]] once for each of at most {SCANNERS_MAX}")
        return [read_section("scanner", {}, "scanner.", faults)]
    scanners = [read_section("scanner", table, f"scanner {n}: ", faults) for n, table in enumerate(told, 1)]
    for what, names in (("lane", [one["lane"] for one in scanners]),
                        ("device", [one["port"] or one["path"] for one in scanners if one["kind"] != "none"])):
        faults += [f"two scanners have the {what} {name!r}: no one could tell them apart" for name in sorted(set(names))
                   if names.count(name) > 1]
    return scanners


def _displays(data: dict[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    """One section, or a list of them, the customer's first; a display too many or a device named twice is a fault."""
    told = data.get("display", {})
    if not isinstance(told, list):
        return [read_section("display", read_table(data, "display", faults), "display.", faults)]
    if not 1 <= len(told) <= DISPLAYS_MAX or not all(isinstance(table, dict) for table in told):
        faults.append(f"display is written [display], or [[display]] once for each of at most {DISPLAYS_MAX}")
        return [read_section("display", {}, "display.", faults)]
    displays = [read_section("display", table, f"display {n}: ", faults) for n, table in enumerate(told, 1)]
    paths = [posixpath.normpath(one["path"]) for one in displays if one["kind"] != "none"]
    faults += [f"two displays are {path}: a device has one owner" for path in sorted(set(paths)) if paths.count(path) > 1]
    return displays


def _templates(data: Any, faults: list[str]) -> list[Template]:
    if not isinstance(data, list) or not all(isinstance(table, dict) for table in data):
        faults.append("template is written [[template]], once for each kind of label")
        return []
    templates: list[Template] = []
    for n, table in enumerate(data, 1):
        before = len(faults)
        values = read_section("template[]", table, f"template {n}: ", faults)
        if len(faults) > before:
            continue
        template = Template(**values)
        faults += [f"template {n}: {fault}" for fault in template_faults(template)]
        twin = next((m for m, other in enumerate(templates, 1) if _overlap(other, template)), 0)
        if twin:
            faults.append(f"template {n} can never be used: template {twin} reads labels of the same length and prefix")
        templates.append(template)
    return templates


def _supervisors(data: Any, faults: list[str]) -> list[Supervisor]:
    if not isinstance(data, list) or not all(isinstance(table, dict) for table in data):
        faults.append("supervisor is written [[supervisor]], once for each of them")
        return []
    supervisors: list[Supervisor] = []
    for n, table in enumerate(data, 1):
        before = len(faults)
        values = read_section("supervisor[]", table, f"supervisor {n}: ", faults)
        if len(faults) == before:
            supervisors.append(Supervisor(**values))
    return supervisors


def _overlap(one: Template, other: Template) -> bool:
    alike = re.sub("[^0-9F]", "x", one.pattern) == re.sub("[^0-9F]", "x", other.pattern)
    return alike and (not one.prefixes or (bool(other.prefixes) and set(other.prefixes) <= set(one.prefixes)))


def _across(top: dict[str, Any], parts: dict[str, dict[str, Any]], scanners: list[dict[str, Any]], displays: list[dict[str, Any]],
            channels: list[dict[str, Any]], faults: list[str]) -> None:
    names = [channel["name"] for channel in channels]
    faults += [f"route names {name}, but there is no [channel.{name}]" for name in top["route"] if name not in names]
    direct = [c["name"] for c in channels if c["name"] in MERCHANT_CHANNELS]
    if direct and not top["merchant_keys_on_box"]:
        faults.append(f"channel.{direct[0]} needs a merchant's own key on this box: use channel.gateway, or say "
                      "merchant_keys_on_box = true")
    state = posixpath.normpath(str(top["state_dir"]))
    if top["seal_key_file"] and posixpath.normpath(posixpath.join(state, top["seal_key_file"])).startswith(state.rstrip("/") + "/"):
        faults.append("seal_key_file lies in state_dir, beside what it seals: name a file elsewhere, best on another medium")
    if parts["signer"]["kind"] == "pkcs11":
        faults += [f"signer.{need} is missing: a token is found by it" for need in ("module", "token") if not parts["signer"][need]]
    if parts["printer"]["kind"] == "tcp" and not parts["printer"]["host"]:
        faults.append("printer.host is missing: a tcp printer needs one")
    devices = [*(("scanner", one) for one in scanners), *(("display", one) for one in displays),
               *((name, parts[name]) for name in ("keypad", "printer"))]
    for name, said in devices:
        if said["kind"] not in ("none", "tcp") and not said["path"] and not said.get("port"):
            faults.append(f"{name}.path is empty: name the device, or say {name}.kind = \"none\"")
    for one in scanners:
        if one["kind"] != "evdev" and (one["layout"] != "us" or one["caps"] != "ignore"):
            faults.append(f"scanner.layout and scanner.caps are of keyboards: a scanner of kind {one['kind']} types no keys")
        if not one["lane"].replace("-", "").replace("_", "").isalnum() and one["lane"]:
            faults.append("scanner.lane holds more than letters, digits and dashes")
    if parts["sound"]["kind"] in ("file", "wire", "board") and not parts["sound"]["path"]:
        faults.append("sound.path is empty: name a file, or say sound.kind = \"none\"")
    cards = parts["cards"]
    if cards["card_key"]:
        from device.drivers.input.keycard_bytes import KEY_LEN_MIN
        if len(cards["card_key"]) < KEY_LEN_MIN or not cards["store"]:
            faults.append(f"cards.card_key has at least {KEY_LEN_MIN} characters, and cards.store names the store whose it is")
    if bool(parts["mqtt"]["cert_file"]) != bool(parts["mqtt"]["key_file"]):
        faults.append("mqtt.cert_file and mqtt.key_file go together: one of them is missing")
    try:
        layout_codes(parts["keypad"]["layout"])
    except ConfigError as refused:
        faults += refused.reasons
    for channel in channels:
        at, known = f"channel.{channel['name']}", DIALECTS.get(channel["dialect"], WALLETS)
        if channel["name"] != "gateway" and (channel["wallets"] or channel["dialect"] != "tillbox"):
            faults.append(f"{at}.{'wallets' if channel['wallets'] else 'dialect'} is a key of the gateway's alone")
        elif odd := [wallet for wallet in channel["wallets"] if wallet not in known]:
            faults.append(f"{at}.wallets names {', '.join(odd)}, which {channel['dialect']} cannot take")
        if channel["dialect"] == "shouqianba" and channel["secret"]:
            faults.append(f"{at}.secret stands still, and {channel['dialect']}'s key changes every day: leave it out")
    for channel in channels:
        if isinstance(channel["dead_after_s"], int) and channel["dead_after_s"] < channel["give_up_s"]:
            faults.append(f"channel.{channel['name']}.dead_after_s is less than its give_up_s: a live order is not dead")


# -- what others need of it -------------------------------------------------------------------------------------------

def account_of(channel: ChannelConfig) -> Account:
    """The public half, as intents keep it."""
    own = {"dialect": "" if channel.dialect == "tillbox" else channel.dialect, "appid": channel.appid, "mchid": channel.mchid,
           "terminal_id": channel.terminal_id, "notify_url": channel.notify_url}
    if channel.name == "wechat" and channel.code_api != "v2":           # an intent keeps it: what it charged is undone likewise
        own["code_api"] = channel.code_api
    fields = {name: value for name, value in own.items() if value} | channel.fields
    return Account(channel.name, channel.account, tuple(sorted(fields.items())))


def written_rules(channel: ChannelConfig) -> dict[str, Any]:
    """The fields of its rules that box.toml itself speaks of."""
    whole = _rules(channel)
    return {RULE_FIELDS[key]: getattr(whole, RULE_FIELDS[key]) for key in channel.written}


def _rules(channel: ChannelConfig) -> Rules:
    return Rules(
        pace_ms=tuple((until * 1000, every * 1000) for until, every in channel.pace_s),
        give_up_ms=channel.give_up_s * 1000, undo_every_ms=channel.undo_every_s * 1000,
        dead_after_ms=channel.dead_after_s * 1000, refund_query_ms=channel.refund_query_s * 1000,
        refund_parts_max=channel.refund_parts_max, refund_days_max=channel.refund_days_max,
        undo_moves_money=channel.dialect == "shouqianba",          # its cancel gives back what was paid, whichever way
    )


def _walk(config: Config) -> list[tuple[str, Key, Any]]:
    rows: list[tuple[str, Key, Any]] = []
    for name, keys in SECTIONS.items():
        if name in ("scanner", "display"):
            several = config.scanners if name == "scanner" else config.displays
            parts: list[tuple[str, Any]] = [(f"{name}.", several[0])] if len(several) == 1 else [
                (f"{name}.{n}.", one) for n, one in enumerate(several, 1)]
        elif name == "channel.*":
            parts = [(f"channel.{channel.name}.", channel) for channel in config.channels]
        elif name == "supervisor[]":
            parts = [(f"supervisor.{n}.", supervisor) for n, supervisor in enumerate(config.supervisors, 1)]
        elif name == "template[]":
            parts = [(f"template.{n}.", template) for n, template in enumerate(config.templates, 1)]
        else:
            parts = [(f"{name}.", getattr(config, name))] if name else [("", config)]
        rows += [(at + key.name, key, getattr(part, key.name)) for at, part in parts for key in keys]
    return rows


if __name__ == "__main__":
    from device.config_page import docs_page

    print(docs_page(), end="")
