"""Every key of the configuration in one table: `config.py` reads a file by it, `config_page.py` makes the manual's page."""

from __future__ import annotations

from typing import Any

import msgspec

from device.drivers.display.pole_bytes import CHARSETS as POLE_CHARSETS
from device.drivers.display.pole_bytes import DIALECTS as POLES
from device.drivers.input.layout_keys import CAPS, LAYOUTS
from device.goods import TEMPLATE_KINDS

MASK = "********"
SCANNERS_MAX = DISPLAYS_MAX = 4
CARD = "card"                             # the one channel that is a device on the counter
CHANNELS = ("wechat", "alipay", "unionpay", "gateway", CARD)
WALLETS = ("wechat", "alipay", "unionpay", "ecny")
# What a gateway speaks, and the wallets it can take at most; one whose QR is for a single wallet shows that of the first.
DIALECTS = {"tillbox": WALLETS, "shouqianba": ("wechat", "alipay", "unionpay")}
MUST: Any = object()                     # no default: the key must be given


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
        Key("box", "word", MUST, "name of this box; an enrolled one knows it", "daemon", pattern=_NAME),
        Key("box_no", "word", MUST, "the head of every order number; an enrolled box knows it", "daemon",
            pattern=r"[0-9A-HJKMNP-TV-Z]{6}"),
        Key("tenant", "word", MUST, "name of the merchant in topics; an enrolled box knows it", "daemon", pattern=_NAME),
        Key("shop_zh", "text", "便利店", "name of the shop on paper and screen, Chinese", low=1, high=40),
        Key("shop_en", "text", "Corner Shop", "the same in English", low=1, high=40),
        Key("cashier", "word", "01", "who sells, as it stands in records", pattern=r"[0-9A-Za-z-]{1,16}"),
        Key("lang", "word", "zh", "language of screen and paper", choices=("zh", "en")),
        Key("opening_ticket", "flag", False, "true: before the first sale of a day the box tries everything and prints what it "
            "found", "daemon"),
        Key("training", "flag", False, "true: nothing is sold, paper and screen say so"),
        Key("receipt_url", "text", "", "address of a receipt, a QR on screen when no paper can be had: docs/printers.md"),
        Key("cutoff_hour", "int", 4, "hour at which the business day ends", unit="h", high=23),
        Key("cash_round_fen", "int", 1, "cash totals are rounded down to a multiple of this", unit="fen", low=1, high=100),
        Key("rules_file", "file", "", "signed rule table of the channels; empty: the one that ships", "daemon"),
        Key("rules_key_file", "file", "rules.jwk", "key that the rule table is checked with", "daemon"),
        Key("approve_drawer", "flag", False, "true: opening the drawer without a sale wants a supervisor"),
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
        Key("pictures", "words", (), "PNG or JPEG files that stand on the panel while nobody is served; a fleet sends them as "
            "picture/NAME"),
        Key("record_key_file", "file", "record.key", "key that signs records", "daemon"),
        Key("ack_key_file", "file", "ack.pub", "key that acknowledgements are checked with; an enrolled box has its own", "daemon"),
        Key("command_key_file", "file", "", "key that commands of the cloud are checked with; empty: none is obeyed", "daemon"),
        Key("config_key_file", "file", "config.pub", "key that pushed configurations are checked with; no such file: none is taken",
            "daemon"),
        Key("encryption_key_file", "file", "encryption.key", "key that secrets in pushed configurations are opened with", "daemon"),
        Key("keyboards", "word", "auto", "those that are no scanner or keypad of this box: refuse takes each and lets it type into "
            "nothing, leave does not look, auto refuses as a service, where a scanner or keypad is an input device", "daemon",
            choices=("auto", "refuse", "leave")),
        Key("console_key_file", "file", "console.pub", "the fleet's console key: codes for the technician's console and bundles "
            "need it; an enrolled box has its own"),
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
        Key("layout", "word", "us", "country its keys are set to", "scanner", choices=LAYOUTS),
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
        Key("kind", "word", "fb", "framebuffer, a plain file of the same bytes, a pole on a serial port, a small OLED, or none",
            "display", choices=("fb", "file", "pole", "oled", "none")),
        Key("path", "text", "/dev/fb0", "framebuffer, file, serial port, or an OLED's bus: /dev/i2c-1, /dev/i2c-1:3d", "display"),
        Key("width", "int", 800, "of a file or an OLED; a framebuffer says it itself", "display", "px", low=64, high=4096),
        Key("height", "int", 480, "likewise", "display", "px", low=32, high=4096),
        Key("rotation", "int", 0, "clockwise", "display", "degrees", high=270, choices=("0", "90", "180", "270")),
        Key("large", "flag", False, "true: large type in plain black on white", "display"),
        Key("slide_s", "int", 8, "how long each of the pictures stands while nobody is served", "display", "s", low=3, high=600),
        Key("dialect", "word", "cd5220", "command set of a pole", "display", choices=tuple(POLES)),
        Key("baud", "int", 0, "speed of a pole; 0: what such poles leave the factory with", "display", "baud", high=115_200,
            choices=("0", "300", "600", "1200", "2400", "4800", "9600", "19200", "38400", "57600", "115200")),
        Key("charset", "word", "ascii", "letters that a pole has: gbk for one with Chinese", "display", choices=POLE_CHARSETS),
        Key("chip", "word", "ssd1306", "controller of an OLED", "display", choices=("ssd1306", "ssd1309", "ssd1327", "sh1106")),
    ),
    "printer": (
        Key("kind", "word", "usb", "how it is attached", "printer", choices=("file", "tcp", "serial", "usb", "none")),
        Key("path", "text", "/dev/usb/lp0", "device or file", "printer"),
        Key("host", "text", "", "address of a tcp printer", "printer"),
        Key("port", "int", 9100, "its port", "printer", low=1, high=65_535),
        Key("baud", "int", 9600, "speed of a serial printer", "printer", "baud", low=300, high=921_600),
        Key("flow", "word", "none", "how a serial printer says wait", "printer", choices=("none", "rtscts", "xonxoff", "dtr")),
        Key("columns", "int", 48, "characters on a line: 48 on 80 mm paper, 32 on 58 mm", "printer", low=24, high=64),
        Key("dialect", "word", "chinese", "character set it prints, see docs/printers.md", "printer",
            choices=("chinese", "gb18030", "utf8", "western", "cp437", "raster")),
        Key("qr", "word", "auto", "who makes a QR: the printer, or we in dots", "printer", choices=("auto", "native", "raster")),
        Key("cut", "word", "partial", "how a paper ends", "printer", choices=("partial", "full", "none")),
        Key("logo", "text", "", "picture above each paper: a file, or a pushed picture/NAME", "printer"),
        Key("model", "text", "", "part of the name it must answer with; empty: any", "printer", high=40),
        Key("backend", "word", "native", "who makes the bytes", "printer", choices=("native", "escpos")),
        Key("profile", "text", "default", "python-escpos's name of it, with backend escpos", "printer", low=1, high=40),
        Key("timeout_s", "int", 8, "until an unanswered print is unsure", "printer", "s", low=1, high=120),
        Key("drawer_pin", "int", 2, "pin of the connector that kicks the drawer", "printer", high=5, choices=("2", "5")),
        Key("drawer_sensor", "word", "none", "level of the drawer's wire while open", "printer", choices=("none", "high", "low")),
    ),
    "sound": (
        Key("kind", "word", "none", "loudspeaker by aplay, a buzzer in the printer, on a wire or the board, a WAV file", "sound",
            choices=("aplay", "printer", "wire", "board", "file", "none")),
        Key("device", "text", "default", "ALSA's name of the sound card", "sound", low=1),
        Key("path", "text", "", "of a file, a wire that holds 1 or 0, a board's event node", "sound"),
        Key("volume", "int", 100, "of full scale", "sound", low=1, high=100),
        Key("speak", "flag", False, "true: the amount is said as well, by espeak-ng or voice_dir", "sound"),
        Key("voice_dir", "text", "", "folder of recorded words, see docs/printers.md; empty: espeak-ng speaks", "sound"),
    ),
    "cards": (
        Key("card_key", "text", "", "key that printed command cards are signed with, the store's own, at least 32 characters; "
            "empty: no card is taken", secret=True, high=128),
        Key("store", "word", "", "the store's name on its cards", pattern=r"[0-9A-Z]{0,12}"),
        Key("revoked", "words", (), "numbers of cards that are obeyed no more"),
    ),
    "console": (
        Key("lang", "word", "same", "language of the technician's console; same: that of screen and paper",
            choices=("same", "zh", "en")),
        Key("baud", "int", 115_200, "speed of its serial line", unit="baud", low=9600, high=921_600,
            choices=("9600", "19200", "38400", "57600", "115200", "230400", "460800", "921600")),
        Key("idle_s", "int", 900, "silence that ends a session", unit="s", low=30, high=7200),
        Key("ssh_ca", "text", "", "OpenSSH public key of the CA whose short-lived certificates may log in; empty: codes alone",
            high=800),
        Key("port", "word", "", "USB port in which an adapter is a console too; of an image, at a boot", "daemon", pattern=_PORT),
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
        Key("name", "text", MUST, "as it stands in records", low=1, high=40),
        Key("badge", "word", MUST, "hash of the badge, as `tillbox supervisor` prints it", pattern=r"[0-9a-f]{64}"),
        Key("pin", "word", MUST, "hash of the PIN, likewise", pattern=r"[0-9a-f]{16}\$[0-9a-f]{64}"),
    ),
    "template[]": (
        Key("pattern", "text", MUST, "one letter a digit: F prefix, P item, V value, W weight, M amount, C check",
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
# What of a channel's timing box.toml may say, and its field in the rules.
RULE_FIELDS = {"give_up_s": "give_up_ms", "pace_s": "pace_ms", "undo_every_s": "undo_every_ms", "dead_after_s": "dead_after_ms",
               "refund_query_s": "refund_query_ms", "refund_parts_max": "refund_parts_max", "refund_days_max": "refund_days_max"}


def needed(name: str) -> tuple[str, ...]:
    return NEEDS[name] if name == CARD else ("base_url", *NEEDS[name])
