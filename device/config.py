"""Every key of the configuration in one table, and the configuration as a struct.  Opens nothing: text and tables come in.

A configuration is taken whole or refused whole: `parse` names every fault at once.  The table also makes `docs/config.md`
(`python -m device.config > docs/config.md`).
"""

from __future__ import annotations

import posixpath
import re
from decimal import Decimal
from typing import Any

import msgspec

from device.drivers.keycard_bytes import KEY_LEN_MIN
from device.drivers.keypad_keys import layout_codes
from device.drivers.layout_keys import LAYOUTS
from device.drivers.scanner_keys import CAPS
from device.errors import ConfigError
from device.goods import TEMPLATE_KINDS, Template, template_faults
from device.types import Account, Cards, Rules, Supervisor, Terms

MASK = "********"
SCANNERS_MAX = 4
CARD = "card"                             # the one channel that is a device on the counter
CHANNELS = ("wechat", "alipay", "unionpay", "gateway", CARD)
WALLETS = ("wechat", "alipay", "unionpay", "ecny")
# What a gateway speaks, and the wallets it can take at most; one whose QR is for a single wallet shows that of the first.
DIALECTS = {"tillbox": WALLETS, "shouqianba": ("wechat", "alipay", "unionpay")}
_MUST: Any = object()                     # no default: the key must be given


class Key(msgspec.Struct, frozen=True):
    """One key.  `type`: `text word int flag words pairs table file url`; bounds are values of an int, lengths of a text.

    `restarts` is what a change restarts; `nothing` when it is taken over between two customers.
    """

    name: str
    type: str
    default: Any
    says: str
    restarts: str = "nothing"
    unit: str = ""
    low: int = 0
    high: int = 200
    choices: tuple[str, ...] = ()
    pattern: str = ""
    secret: bool = False


_NAME = r"[a-z0-9-]{1,32}"
_PORT = r"([0-9]+-[0-9]+(\.[0-9]+)*)?"           # a device's place on the USB, as sysfs names it
SECTIONS: dict[str, tuple[Key, ...]] = {
    "": (
        Key("box", "word", _MUST, "name of this box; an enrolled one knows it", "daemon", pattern=_NAME),
        Key("box_no", "word", _MUST, "the head of every order number; an enrolled box knows it", "daemon",
            pattern=r"[0-9A-HJKMNP-TV-Z]{6}"),
        Key("tenant", "word", _MUST, "name of the merchant in topics; an enrolled box knows it", "daemon", pattern=_NAME),
        Key("shop_zh", "text", "便利店", "name of the shop on paper and screen, Chinese", low=1, high=40),
        Key("shop_en", "text", "Corner Shop", "the same in English", low=1, high=40),
        Key("cashier", "word", "01", "who sells, as it stands in records", pattern=r"[0-9A-Za-z-]{1,16}"),
        Key("lang", "word", "zh", "language of screen and paper", choices=("zh", "en")),
        Key("training", "flag", False, "true: nothing is sold, paper and screen say so"),
        Key("cutoff_hour", "int", 4, "hour at which the business day ends", unit="h", high=23),
        Key("cash_round_fen", "int", 1, "cash totals are rounded down to a multiple of this", unit="fen", low=1, high=100),
        Key("rules_file", "file", "", "signed rule table of the channels; empty: the one that ships", "daemon"),
        Key("rules_key_file", "file", "rules.jwk", "key that the rule table is checked with", "daemon"),
        Key("approve_refund_fen", "int", 0, "refunds of one sale that come above this want a supervisor; 0: none does",
            unit="fen", high=100_000_000),
        Key("instalment_code", "text", "", "what the shop's own instalment cards end in; empty: no card makes the shop bear a fee",
            secret=True, high=16),
        Key("amount_fen_max", "int", 5_000_000, "no sale above this", unit="fen", low=1, high=100_000_000),
        Key("route", "words", (), "channels that PAY tries, first first; empty: every channel set up below but the card terminal",
            choices=tuple(name for name in CHANNELS if name != CARD)),
        Key("merchant_keys_on_box", "flag", False, "true: this box may hold a merchant's own channel keys", "daemon"),
        Key("seal_key_file", "file", "", "key that channel keys are sealed with, outside of state_dir; empty: systemd's credential "
            "tillbox-seal", "daemon"),
        Key("state_dir", "text", "/var/lib/tillbox", "where the journal lives", "daemon", low=1),
        Key("second_copy_dir", "file", "second", "folder of the journal's second copy, best on another partition or card",
            "daemon"),
        Key("run_dir", "text", "/run/tillbox", "where sockets live", "daemon", low=1),
        Key("prices_file", "file", "prices.csv", "price list", "prices"),
        Key("record_key_file", "file", "record.key", "key that signs records", "daemon"),
        Key("ack_key_file", "file", "ack.pub", "key that acknowledgements are checked with; an enrolled box has its own", "daemon"),
        Key("command_key_file", "file", "", "key that commands of the cloud are checked with; empty: none is obeyed", "daemon"),
        Key("config_key_file", "file", "config.pub", "key that pushed configurations are checked with; no such file: none is taken",
            "daemon"),
        Key("encryption_key_file", "file", "encryption.key", "key that secrets in pushed configurations are opened with", "daemon"),
        Key("keyboards", "word", "auto", "those that are no scanner or keypad of this box: refuse takes each and lets it type into "
            "nothing, leave does not look, auto refuses where a scanner or keypad is an input device", "daemon",
            choices=("auto", "refuse", "leave")),
        Key("identity_dir", "file", "identity", "where `tillbox enrol` keeps keys, certificates and names", "daemon"),
    ),
    "signer": (
        Key("kind", "word", "file", "where the key that signs records lies: record_key_file, or a token behind PKCS#11", "daemon",
            choices=("file", "pkcs11")),
        Key("module", "file", "", "PKCS#11 module of the chip, a shared library", "daemon"),
        Key("token", "text", "", "label of the token", "daemon", high=32),
        Key("key", "text", "tillbox-record", "label of the key in it; a new journal makes one", "daemon", low=1, high=64),
        Key("pin_file", "file", "", "file of mode 0600 with the token's PIN; empty: systemd's credential tillbox-pin", "daemon"),
    ),
    "scanner": (
        Key("kind", "word", "evdev", "how it is attached", "scanner", choices=("evdev", "serial", "hidraw", "none")),
        Key("path", "text", "/dev/input/tillbox-scanner", "event node, serial port or hidraw node, best a by-id or by-path link",
            "scanner"),
        Key("port", "word", "", "USB port it is plugged into, 1-1.3 say, in place of path; `tillbox scan list` names them",
            "scanner", pattern=_PORT),
        Key("lane", "text", "", "its name, where there are several", "scanner", high=12),
        Key("suffix", "flag", True, "false: the scanner sends nothing after a symbol, silence ends it", "scanner"),
        Key("gap_ms", "int", 0, "pause that breaks (or without suffix ends) a symbol; 0: as built", "scanner", "ms", high=2000),
        Key("gs", "text", "", "what it sends in place of GS, the separator in GS1 labels, | or {GS} say; empty: GS itself",
            "scanner", high=8),
        Key("layout", "word", "us", "country its keys are set to", "scanner", choices=tuple(LAYOUTS)),
        Key("caps", "word", "ignore", "toggles: it presses caps lock around capitals; inverted: it reckons with caps lock on",
            "scanner", choices=CAPS),
        Key("repeat_ms", "int", 0, "the same code within this time is one scan, for a scanner that stands and looks; 0: every scan "
            "counts", "scanner", "ms", high=2000),
        Key("baud", "int", 9600, "speed of a serial scanner", "scanner", "baud", low=300, high=921_600),
    ),
    "keypad": (
        Key("kind", "word", "evdev", "how it is attached", "keypad", choices=("evdev", "none")),
        Key("path", "text", "/dev/input/tillbox-keypad", "event node", "keypad"),
        Key("port", "word", "", "USB port it is plugged into, in place of path", "keypad", pattern=_PORT),
        Key("layout", "table", {}, "evdev key name to key of the till, laid over the default", "keypad"),
    ),
    "display": (
        Key("kind", "word", "fb", "framebuffer, a plain file of the same bytes, or none", "display",
            choices=("fb", "file", "none")),
        Key("path", "text", "/dev/fb0", "framebuffer or file", "display"),
        Key("width", "int", 800, "of a file; a framebuffer says it itself", "display", "px", low=160, high=4096),
        Key("height", "int", 480, "likewise", "display", "px", low=120, high=4096),
        Key("rotation", "int", 0, "clockwise", "display", "degrees", high=270, choices=("0", "90", "180", "270")),
    ),
    "printer": (
        Key("kind", "word", "usb", "how it is attached", "printer", choices=("file", "tcp", "serial", "usb", "none")),
        Key("path", "text", "/dev/usb/lp0", "device or file", "printer"),
        Key("host", "text", "", "address of a tcp printer", "printer"),
        Key("port", "int", 9100, "its port", "printer", low=1, high=65_535),
        Key("baud", "int", 9600, "speed of a serial printer", "printer", "baud", low=300, high=921_600),
        Key("columns", "int", 48, "characters on a line: 48 on 80 mm paper, 32 on 58 mm", "printer", low=24, high=64),
        Key("backend", "word", "native", "who makes the bytes", "printer", choices=("native", "escpos")),
        Key("timeout_s", "int", 8, "until an unanswered print is unsure", "printer", "s", low=1, high=120),
        Key("drawer_pin", "int", 2, "pin of the connector that kicks the drawer", "printer", high=5, choices=("2", "5")),
    ),
    "sound": (
        Key("kind", "word", "none", "loudspeaker by aplay, a WAV file that each sound replaces, or none", "sound",
            choices=("aplay", "file", "none")),
        Key("device", "text", "default", "ALSA's name of the sound card", "sound", low=1),
        Key("path", "text", "", "of a file", "sound"),
        Key("volume", "int", 100, "of full scale", "sound", low=1, high=100),
        Key("speak", "flag", False, "true: the amount is said as well, by espeak-ng", "sound"),
    ),
    "cards": (
        Key("card_key", "text", "", "key that printed command cards are signed with, the store's own, at least 32 characters; "
            "empty: no card is taken", secret=True, high=128),
        Key("store", "word", "", "the store's name on its cards", pattern=r"[0-9A-Z]{0,12}"),
        Key("revoked", "words", (), "numbers of cards that are obeyed no more"),
    ),
    "mqtt": (
        Key("host", "text", "", "broker; empty: no cloud", "mqtt"),
        Key("port", "int", 8883, "its port", "mqtt", low=1, high=65_535),
        Key("user", "text", "", "user name; empty: the certificate says it", "mqtt"),
        Key("password", "text", "", "password, where no certificate is used", "mqtt", secret=True),
        Key("ca_file", "file", "", "certificate the broker is checked with; empty: no TLS, loopback only", "mqtt"),
        Key("cert_file", "file", "", "certificate of this box", "mqtt"),
        Key("key_file", "file", "", "its key", "mqtt"),
        Key("keepalive_s", "int", 30, "silence after which the broker is asked", "mqtt", "s", low=5, high=600),
        Key("batch_s", "int", 2, "longest that a record waits for others to leave with; 60 saves a third of the bytes", "mqtt", "s",
            low=0, high=600),
    ),
    "journal": (
        Key("keep_days", "int", 180, "rows older than this are let go of, once the cloud has confirmed them; near the quota also "
            "younger ones", "daemon", "days", low=30, high=3650),
        Key("quota_mb", "int", 2048, "most that the journal may take of the card; beyond it nothing new is sold", "daemon", "MB",
            low=64, high=65_536),
    ),
    "channel.*": (
        Key("base_url", "url", "", "address of the channel, https; http on loopback only", "channel"),
        Key("account", "word", "main", "name of this account on this box; keys are found by it", "channel",
            pattern=r"[0-9A-Za-z_.-]{1,64}"),
        Key("appid", "text", "", "application number at the channel", "channel"),
        Key("mchid", "text", "", "merchant number at the channel", "channel"),
        Key("dialect", "word", "tillbox", "what the gateway speaks: our own protocol, or that of a provider", "channel",
            choices=tuple(DIALECTS)),
        Key("wallets", "words", (), "those the gateway takes, the usual one first; empty: what it said at the activation, or all",
            choices=WALLETS),
        Key("terminal_id", "text", "", "this box's own number at the gateway, empty: the one it was activated as; "
            "of a card terminal its serial number", "channel"),
        Key("notify_url", "text", "", "where the channel would send notices", "channel"),
        Key("fields", "table", {}, "further request fields that this account fixes", "channel"),
        Key("serial_no", "text", "", "serial of our certificate", "channel"),
        Key("private_key_file", "file", "", "our key at the channel; the gateway's: gateway.key when left out", "channel"),
        Key("platform_key_id", "text", "", "serial or id of the channel's own key", "channel"),
        Key("platform_key_file", "file", "", "the channel's own public key, or its certificates", "channel"),
        Key("secret", "text", "", "shared secret, where the channel uses one; Alipay: the shop's app_auth_token, where the app is "
            "a partner's", "channel", secret=True),
        Key("api_v3_key", "text", "", "WeChat's APIv3 key, 32 characters: opens the certificates that WeChat sends", "channel",
            secret=True),
        Key("code_api", "word", "v2", "how WeChat charges payers' codes: v2 micropay, v3 codepay where WeChat allows it", "channel",
            choices=("v2", "v3")),
        Key("ca_file", "file", "", "roots the channel's line is checked with; empty: the system's", "channel"),
        Key("client_cert_file", "file", "", "our certificate and key, where the channel wants them on the line", "channel"),
        Key("kind", "word", "serial", "how a card terminal is attached", "channel", choices=("serial", "tcp")),
        Key("path", "text", "", "serial port of a card terminal, best a by-id link", "channel"),
        Key("baud", "int", 9600, "its speed", "channel", "baud", low=300, high=921_600),
        Key("host", "text", "", "address of a tcp card terminal", "channel"),
        Key("port", "int", 9101, "its port", "channel", low=1, high=65_535),
        Key("give_up_s", "int", 300, "until an unpaid order is closed; left out, the rule table speaks, here and below",
            unit="s", low=10, high=7200),
        Key("pace_s", "pairs", ((60, 2), (300, 5)), "queries: until so many seconds, one every so many", unit="s"),
        Key("undo_every_s", "int", 2, "pause between tries to undo", unit="s", low=1, high=60),
        Key("dead_after_s", "int", 7500, "until a closed order can no longer be paid", unit="s", low=60, high=172_800),
        Key("refund_query_s", "int", 60, "pause between questions after a refund", unit="s", low=1, high=3600),
        Key("refund_parts_max", "int", 50, "refunds of one order", low=1, high=300),
        Key("refund_days_max", "int", 365, "days after which nothing is refunded", unit="days", low=1, high=3650),
    ),
    "supervisor[]": (
        Key("name", "text", _MUST, "as it stands in records", low=1, high=40),
        Key("badge", "word", _MUST, "hash of the badge, as `tillbox supervisor` prints it", pattern=r"[0-9a-f]{64}"),
        Key("pin", "word", _MUST, "hash of the PIN, likewise", pattern=r"[0-9a-f]{16}\$[0-9a-f]{64}"),
    ),
    "template[]": (
        Key("pattern", "text", _MUST, "one letter a digit: F prefix, P item, V value, W weight, M amount, C check",
            low=8, high=32),
        Key("kind", "word", "weight", "what the value is", choices=TEMPLATE_KINDS),
        Key("prefixes", "words", (), "prefixes it is for; empty: all that begin with 2"),
        Key("weight_decimals", "int", 3, "decimals of a weight in kg", high=3),
        Key("price_decimals", "int", 2, "decimals of an amount in yuan", high=2),
        Key("check", "flag", True, "false: the check digit is not looked at"),
    ),
}
# Keys that a card terminal reads, the last five alone; its timing is the rule table's.
WECHAT_KEYS = ("api_v3_key", "code_api")
CARD_KEYS = ("account", "terminal_id", "secret", "kind", "path", "baud", "host", "port")
# What a channel cannot do without; all but the card terminal also want base_url, and a key: sealed, or in private_key_file.
NEEDS: dict[str, tuple[str, ...]] = {
    "wechat": ("appid", "mchid", "notify_url", "serial_no"),
    "alipay": ("appid", "platform_key_file"),
    "unionpay": ("mchid", "serial_no", "platform_key_file"),
    "gateway": (),
    CARD: ("terminal_id",),
}
MERCHANT_CHANNELS = ("wechat", "alipay", "unionpay")


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


class PrinterConfig(msgspec.Struct, frozen=True):
    kind: str
    path: str
    host: str
    port: int
    baud: int
    columns: int
    backend: str
    timeout_s: int
    drawer_pin: int


class SoundConfig(msgspec.Struct, frozen=True):
    kind: str
    device: str
    path: str
    volume: int
    speak: bool


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


class Config(msgspec.Struct, frozen=True):
    """A configuration without fault.  Files are absolute: a relative one counts from `state_dir`."""

    box: str
    box_no: str
    tenant: str
    shop_zh: str
    shop_en: str
    cashier: str
    lang: str
    training: bool
    cutoff_hour: int
    cash_round_fen: int
    rules_file: str
    rules_key_file: str
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
    record_key_file: str
    ack_key_file: str
    command_key_file: str
    config_key_file: str
    encryption_key_file: str
    keyboards: str
    identity_dir: str
    signer: SignerConfig
    scanner: ScannerConfig
    keypad: KeypadConfig
    display: DisplayConfig
    printer: PrinterConfig
    sound: SoundConfig
    cards: CardsConfig
    mqtt: MqttConfig
    journal: JournalConfig
    channels: tuple[ChannelConfig, ...]
    supervisors: tuple[Supervisor, ...]
    templates: tuple[Template, ...]
    scanners: tuple[ScannerConfig, ...]      # all of them; `scanner` is the first


def parse_toml(text: str, *, which: str = "config") -> Config:
    """As `parse`, from TOML text."""
    import tomllib

    try:
        return parse(tomllib.loads(text), which=which)
    except tomllib.TOMLDecodeError as fault:
        raise ConfigError([f"not TOML: {fault}"], which=which) from fault


def parse(data: dict[str, Any], *, which: str = "config") -> Config:
    """The configuration in `data`, defaults filled in.  ConfigError with every reason when anything is wrong."""
    faults: list[str] = []
    tables = tuple(name for name in SECTIONS if name.isalpha())
    top = _section("", data, "", faults, also=(*tables, "channel", "template", "supervisor"))
    scanners = _scanners(data, faults)
    parts = {name: _section(name, _table(data, name, faults), f"{name}.", faults) for name in tables if name != "scanner"}
    channels = _channels(_table(data, "channel", faults), faults)
    templates = _templates(data.get("template", []), faults)
    supervisors = _supervisors(data.get("supervisor", []), faults)
    _across(top, parts, scanners, channels, faults)
    if faults:
        raise ConfigError(faults, which=which)
    at = top["state_dir"]
    top["route"] = top["route"] or tuple(channel["name"] for channel in channels if channel["name"] != CARD)
    for name, values in (("", top), *parts.items(), *(("channel.*", channel) for channel in channels)):
        for key in SECTIONS[name]:
            if key.type == "file" and values[key.name]:
                values[key.name] = posixpath.join(at, values[key.name])
    return Config(
        **top,
        signer=SignerConfig(**parts["signer"]),
        scanner=ScannerConfig(**scanners[0]),
        scanners=tuple(ScannerConfig(**one) for one in scanners),
        keypad=KeypadConfig(**parts["keypad"]),
        display=DisplayConfig(**parts["display"]),
        printer=PrinterConfig(**parts["printer"]),
        sound=SoundConfig(**parts["sound"]),
        cards=CardsConfig(**parts["cards"]),
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
        training=config.training, approve_refund_fen=config.approve_refund_fen, supervisors=config.supervisors,
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


def docs_page() -> str:
    """`docs/config.md`: every key, section by section."""
    lines = ["# Configuration", "", "The file is `/etc/tillbox/box.toml`.  This page is made from the table in "
             "`device/config.py` by `python -m device.config > docs/config.md`.", "",
             "A configuration with any fault is refused whole, and every fault is named.  A key that nobody reads is a "
             "fault.  Amounts are whole fen, times whole seconds.  A relative file counts from `state_dir`.", ""]
    for name, keys in SECTIONS.items():
        title = {"": "Top of the file", "channel.*": f"[channel.NAME], NAME one of {', '.join(CHANNELS)}",
                 "template[]": "[[template]], one for each kind of in-store label",
                 "scanner": "[scanner], or [[scanner]] for each of several"}.get(name, f"[{name}]")
        lines += [f"## {title}", "", "| key | type | unit | bounds | default | a change restarts | what |",
                  "|---|---|---|---|---|---|---|"]
        for key in keys:
            default = "must be given" if key.default is _MUST else f"`{_toml(key.default)}`"
            says = key.says + (" (secret: never shown)" if key.secret else "")
            cells = [f"`{key.name}`", key.type, key.unit, _bounds(key), default, key.restarts, says]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines += ["What a channel cannot do without:", ""]
    lines += [f"- {name}: {', '.join(f'`{key}`' for key in _needed(name))}" for name in NEEDS]
    lines += ["", f"The card terminal reads {', '.join(f'`{key}`' for key in CARD_KEYS)}, and wants `path` (serial), or `host` and "
              "`secret` (tcp). No other channel reads the last five.", "", "WeChat's replies are proven by `platform_key_id` and "
              "`platform_key_file`, or by `api_v3_key` (here or sealed), or by both."]
    return "\n".join([*lines, ""])


# -- one section ------------------------------------------------------------------------------------------------------

def _section(name: str, data: dict[str, Any], at: str, faults: list[str], also: tuple[str, ...] = ()) -> dict[str, Any]:
    keys = {key.name: key for key in SECTIONS[name]}
    for given in data:
        if given not in keys and given not in also:
            faults.append(_unknown(given, at, keys, also))
    values = {}
    for key in keys.values():
        if key.name in data:
            values[key.name] = _value(key, data[key.name], at + key.name, faults)
        elif key.default is _MUST:
            faults.append(f"{at}{key.name} is missing: {key.says}")
            values[key.name] = ""
        else:
            values[key.name] = key.default
    return values


def _table(data: dict[str, Any], name: str, faults: list[str]) -> dict[str, Any]:
    table = data.get(name, {})
    if isinstance(table, dict):
        return table
    faults.append(f"{name} is {_said(table)}; it is a section: write [{name}] and its keys below")
    return {}


_UNIT_TAILS = re.compile(r"_(s|ms|sec|seconds|m|min|minutes|h|hours|fen|yuan|cents|px|days)$")


def _near(*asked: Any) -> list[str]:
    import difflib  # only for a file with a fault in it

    return difflib.get_close_matches(*asked)


def _unknown(given: str, at: str, keys: dict[str, Key], also: tuple[str, ...]) -> str:
    stem = _UNIT_TAILS.sub("", given)
    for key in keys.values():
        if key.unit and stem == _UNIT_TAILS.sub("", key.name):
            return f"{at}{given} is no key; did you mean {at}{key.name}, which counts {_UNITS.get(key.unit, key.unit)}?"
    near = _near(given.lower(), [*keys, *also], 1, 0.6)
    if near:
        return f"{at}{given} is no key; did you mean {at}{near[0]}?"
    for section, others in SECTIONS.items():
        if any(key.name == given for key in others) and section != at.rstrip("."):
            return f"{at}{given} is no key here; there is one in {f'[{section}]' if section else 'the top of the file'}"
    return f"{at}{given} is no key; docs/config.md lists them all"


# -- one value --------------------------------------------------------------------------------------------------------

_UNITS = {"s": "seconds", "ms": "milliseconds", "fen": "fen", "px": "pixels", "h": "hours", "days": "days",
          "degrees": "degrees", "baud": "baud"}
_TIMES = {"ms": "0.001", "s": "1", "sec": "1", "秒": "1", "m": "60", "min": "60", "分": "60", "分钟": "60", "h": "3600",
          "小时": "3600", "d": "86400", "day": "86400", "days": "86400", "天": "86400"}
_IN_UNIT: dict[str, dict[str, Decimal]] = {
    "s": {name: Decimal(factor) for name, factor in _TIMES.items()},
    "ms": {name: Decimal(factor) * 1000 for name, factor in _TIMES.items()},
    "h": {name: Decimal(factor) / 3600 for name, factor in _TIMES.items()},
    "days": {name: Decimal(factor) / 86400 for name, factor in _TIMES.items()},
    "fen": {"fen": Decimal(1), "分": Decimal(1), "yuan": Decimal(100), "元": Decimal(100), "rmb": Decimal(100),
            "cny": Decimal(100), "¥": Decimal(100), "￥": Decimal(100)},
    "px": {"px": Decimal(1)}, "degrees": {"deg": Decimal(1), "°": Decimal(1)}, "baud": {"baud": Decimal(1)},
}
_QUANTITY = re.compile(r"\s*([¥￥]?)\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([^\W\d_]*|°|¥|￥)\s*")


def _value(key: Key, raw: Any, at: str, faults: list[str]) -> Any:
    """The value of one key; when it is wrong, a sentence in `faults` and the default or a neutral value instead."""
    value, fault = _READERS[key.type](key, raw)
    if fault:
        faults.append(f"{at} {fault}")
        return key.default if key.default is not _MUST else ""
    return value


def _int(key: Key, raw: Any) -> tuple[Any, str]:
    unit = _UNITS.get(key.unit, "")
    wanted = f"a whole number{f' of {unit}' if unit else ''}"
    if isinstance(raw, str):
        number = _quantity(raw, key.unit)
        return None, f"is {raw!r}, but it is {wanted}" + (f": write {number}, without quotes" if number is not None else "")
    if isinstance(raw, float):
        if key.unit == "fen":
            return None, f"is {raw}, but money is counted in whole fen: write {round(Decimal(str(raw)) * 100)} for {raw} yuan"
        return None, f"is {raw}, but it is {wanted}: write it without a point"
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None, f"is {_said(raw)}, but it is {wanted}"
    if key.choices and str(raw) not in key.choices:
        return None, f"is {raw}; it is one of {', '.join(key.choices)}"
    if not key.low <= raw <= key.high:
        return None, f"is {raw}; it is between {key.low} and {key.high}{f' {unit}' if unit else ''}"
    return raw, ""


def _quantity(text: str, unit: str) -> int | None:
    # "5m" for a key in seconds: the number to write instead, or None when the text is nothing of the kind.
    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    name = match[1] or match[3].lower()
    factor = _IN_UNIT.get(unit, {}).get(name) if name else Decimal(1)
    number = Decimal(match[2]) * factor if factor is not None else Decimal("0.5")
    return int(number) if number == int(number) else None


def _flag(key: Key, raw: Any) -> tuple[Any, str]:
    return (raw, "") if isinstance(raw, bool) else (None, f"is {_said(raw)}, but it is true or false, without quotes")


def _text(key: Key, raw: Any) -> tuple[Any, str]:
    if not isinstance(raw, str):
        return None, f"is {_said(raw)}, but it is text in double quotes"
    if not raw.isprintable():
        return None, "holds control or invisible characters; type it anew"
    if not key.low <= len(raw) <= key.high:
        return None, f"has {len(raw)} characters; it has {key.low} to {key.high}"
    return raw, ""


def _word(key: Key, raw: Any) -> tuple[Any, str]:
    value, fault = _text(key, raw)
    if fault:
        return value, fault
    if key.choices and raw not in key.choices:
        near = _near(raw, key.choices, 1)
        return None, f"is {raw!r}; it is one of {', '.join(key.choices)}" + (f"; did you mean {near[0]!r}?" if near else "")
    if key.pattern and not re.fullmatch(key.pattern, raw):
        return None, f"is {raw!r}, which does not have the form {key.pattern}"
    return raw, ""


def _words(key: Key, raw: Any) -> tuple[Any, str]:
    if not isinstance(raw, list) or not all(isinstance(word, str) for word in raw):
        return None, f"is {_said(raw)}, but it is a list of texts such as [\"a\", \"b\"]"
    odd = [word for word in raw if key.choices and word not in key.choices]
    if odd:
        return None, f"names {', '.join(odd)}; known are {', '.join(key.choices)}"
    if len(set(raw)) < len(raw):
        return None, "names one twice"
    return tuple(raw), ""


def _pairs(key: Key, raw: Any) -> tuple[Any, str]:
    fine = isinstance(raw, list) and raw and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 1 <= n <= 86_400 for n in pair) for pair in raw
    )
    if not fine:
        return None, "is a list of pairs of whole seconds, [until, every], such as [[60, 2], [300, 5]]"
    untils = [until for until, _ in raw]
    if sorted(set(untils)) != untils:
        return None, "has pairs that do not rise: each holds until a later second than the one before"
    return tuple((until, every) for until, every in raw), ""


def _dict(key: Key, raw: Any) -> tuple[Any, str]:
    if isinstance(raw, dict) and all(isinstance(value, str) and value.isprintable() for value in raw.values()):
        return dict(sorted(raw.items())), ""
    return None, f"is {_said(raw)}, but it is a table of texts"


def _url(key: Key, raw: Any) -> tuple[Any, str]:
    value, fault = _text(key, raw)
    if fault or not raw:
        return value, fault
    match = re.fullmatch(r"(https?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[^\s?#]*)?", raw)
    if match is None:
        return None, f"is {raw!r}, which is no address such as https://api.example.com"
    if match[1] == "http" and not (match[2] in ("localhost", "[::1]") or re.fullmatch(r"127\.[0-9.]+", match[2])):
        return None, f"is {raw!r}; money travels by https, http is for loopback only"
    return raw.rstrip("/"), ""


_READERS = {"int": _int, "flag": _flag, "text": _text, "file": _text, "word": _word, "words": _words, "pairs": _pairs,
            "table": _dict, "url": _url}


def _said(raw: Any) -> str:
    # What was given, by its TOML name and never by its value: it may be a secret.
    names = {bool: "true or false", int: "a number", float: "a number with a point", str: "text", list: "a list", dict: "a table"}
    return names.get(type(raw), "a date")


# -- sections that repeat, and rules across sections ------------------------------------------------------------------

def _channels(data: dict[str, Any], faults: list[str]) -> list[dict[str, Any]]:
    channels = []
    for name in sorted(data, key=lambda name: CHANNELS.index(name) if name in CHANNELS else len(CHANNELS)):
        at = f"channel.{name}"
        if name not in CHANNELS:
            near = _near(name.lower(), CHANNELS, 1)
            hint = f"did you mean channel.{near[0]}?" if near else f"they are {', '.join(CHANNELS)}"
            faults.append(f"{at} is no channel; {hint}")
            continue
        table = _table(data, name, faults)
        values = _section("channel.*", table, at + ".", faults)
        if name == "gateway" and not values["secret"]:
            values["private_key_file"] = values["private_key_file"] or "gateway.key"      # `tillbox gateway activate` makes it
        if name == CARD:
            faults += _card_faults(table, values)
        else:
            faults += [f"{at}.{given} is read of a card terminal alone" for given in table if given in CARD_KEYS[3:]]
        missing = [need for need in _needed(name) if not values[need] and not table.get(need)]
        faults += [f"{at}.{need} is missing: {name} cannot do without it" for need in missing]
        if name != "wechat":
            faults += [f"{at}.{given} is read of wechat alone" for given in table if given in WECHAT_KEYS]
        elif bool(values["platform_key_id"]) != bool(values["platform_key_file"]):
            faults.append(f"{at}: platform_key_id and platform_key_file go together: one of them is missing")
        channels.append({"name": name, **values, "written": tuple(key for key in RULE_FIELDS if key in table)})
    return channels


def _needed(name: str) -> tuple[str, ...]:
    return NEEDS[name] if name == CARD else ("base_url", *NEEDS[name])


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
        return [_section("scanner", _table(data, "scanner", faults), "scanner.", faults)]
    if not 1 <= len(told) <= SCANNERS_MAX or not all(isinstance(table, dict) for table in told):
        faults.append(f"scanner is written [scanner], or [[scanner]] once for each of at most {SCANNERS_MAX}")
        return [_section("scanner", {}, "scanner.", faults)]
    scanners = [_section("scanner", table, f"scanner {n}: ", faults) for n, table in enumerate(told, 1)]
    for what, names in (("lane", [one["lane"] for one in scanners]),
                        ("device", [one["port"] or one["path"] for one in scanners if one["kind"] != "none"])):
        faults += [f"two scanners have the {what} {name!r}: no one could tell them apart" for name in sorted(set(names))
                   if names.count(name) > 1]
    return scanners


def _templates(data: Any, faults: list[str]) -> list[Template]:
    if not isinstance(data, list) or not all(isinstance(table, dict) for table in data):
        faults.append("template is written [[template]], once for each kind of label")
        return []
    templates: list[Template] = []
    for n, table in enumerate(data, 1):
        before = len(faults)
        values = _section("template[]", table, f"template {n}: ", faults)
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
        values = _section("supervisor[]", table, f"supervisor {n}: ", faults)
        if len(faults) == before:
            supervisors.append(Supervisor(**values))
    return supervisors


def _overlap(one: Template, other: Template) -> bool:
    alike = re.sub("[^0-9F]", "x", one.pattern) == re.sub("[^0-9F]", "x", other.pattern)
    return alike and (not one.prefixes or (bool(other.prefixes) and set(other.prefixes) <= set(one.prefixes)))


def _across(top: dict[str, Any], parts: dict[str, dict[str, Any]], scanners: list[dict[str, Any]], channels: list[dict[str, Any]],
            faults: list[str]) -> None:
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
    devices = [*(("scanner", one) for one in scanners), *((name, parts[name]) for name in ("keypad", "display", "printer"))]
    for name, said in devices:
        if said["kind"] not in ("none", "tcp") and not said["path"] and not said.get("port"):
            faults.append(f"{name}.path is empty: name the device, or say {name}.kind = \"none\"")
    for one in scanners:
        if one["port"] and one["kind"] == "serial":
            faults.append("scanner.port is read of evdev and hidraw alone: name a serial scanner by its link under /dev/till")
        if one["kind"] != "evdev" and (one["layout"] != "us" or one["caps"] != "ignore"):
            faults.append(f"scanner.layout and scanner.caps are of keyboards: a scanner of kind {one['kind']} types no keys")
        if not one["lane"].replace("-", "").replace("_", "").isalnum() and one["lane"]:
            faults.append("scanner.lane holds more than letters, digits and dashes")
    if parts["sound"]["kind"] == "file" and not parts["sound"]["path"]:
        faults.append("sound.path is empty: name a file, or say sound.kind = \"none\"")
    cards = parts["cards"]
    if cards["card_key"] and (len(cards["card_key"]) < KEY_LEN_MIN or not cards["store"]):
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


# What of a channel's timing box.toml may say, and its field in the rules.
RULE_FIELDS = {"give_up_s": "give_up_ms", "pace_s": "pace_ms", "undo_every_s": "undo_every_ms", "dead_after_s": "dead_after_ms",
               "refund_query_s": "refund_query_ms", "refund_parts_max": "refund_parts_max", "refund_days_max": "refund_days_max"}


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
        if name == "scanner":
            parts: list[tuple[str, Any]] = [("scanner.", config.scanner)] if len(config.scanners) == 1 else [
                (f"scanner.{n}.", scanner) for n, scanner in enumerate(config.scanners, 1)]
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


def _bounds(key: Key) -> str:
    if key.choices:
        return " ".join(key.choices)
    if key.pattern:
        return f"`{key.pattern}`"
    if key.type == "int":
        return f"{key.low} to {key.high}"
    return f"{key.low} to {key.high} characters" if key.type in ("text", "file") else ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)


if __name__ == "__main__":
    print(docs_page(), end="")
