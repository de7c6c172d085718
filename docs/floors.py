"""The house plan as one literal table: which file stands on which floor, and what it may lean on.

Knows names only.  `docs/arrows.py` holds the source against it, `tests/house/test_floors.py` fails on a breach, and
`docs/draw.py` draws it.
"""

from __future__ import annotations

from typing import NamedTuple


class Floor(NamedTuple):
    """`files` are patterns below the repository; `may` the rooms its arrows may reach besides its own; `never` top-level
    modules and built-ins its source may not name; `third` what it may take from outside the standard library (None: anything).
    """

    number: int
    room: str
    says: str
    files: tuple[str, ...]
    may: frozenset[str]
    never: frozenset[str] = frozenset()
    third: frozenset[str] | None = None


# Whatever reads a clock, a die, a file or a wire, or depends on which thread ran first.
IMPURE = frozenset({
    "asyncio", "concurrent", "fcntl", "glob", "http", "logging", "multiprocessing", "open", "os", "pathlib", "print", "random",
    "secrets", "select", "selectors", "shutil", "signal", "socket", "socketserver", "sqlite3", "ssl", "subprocess", "sys",
    "tempfile", "termios", "threading", "time", "tty", "urllib.request", "uuid",
})
MSGSPEC = frozenset({"msgspec"})
BELOW_BOX = frozenset({"ground", "vocabulary", "core", "stores", "outside"})

# The first floor whose pattern fits a file is its floor.
FLOORS: tuple[Floor, ...] = (
    Floor(0, "ground", "words, codecs and pure halves; bytes in, values out",
          ("device/__init__.py", "device/*/__init__.py", "device/*/*/__init__.py",
           "device/types.py", "device/errors.py", "device/config.py", "device/config_*.py",
           "device/rules.py", "device/push/checks.py", "device/clock.py",
           "device/wall.py", "device/anchors.py", "device/store_forward/dating.py",
           "device/store_forward/rules_of_chain.py",
           "device/goods.py", "device/price_file.py", "device/keys/sealed.py",
           "device/crockford.py", "device/console/challenge.py", "device/console/bundle_lines.py",
           "device/console/printing.py", "device/console/editor.py",
           "device/console/words.py", "device/update/boot_state.py", "device/store_forward/token.py",
           "device/store_forward/es256.py", "device/appliance/*_bytes.py",
           "device/mqtt/topics.py", "device/mqtt/wire.py", "device/mqtt/*_wire.py",
           "device/drivers/*_bytes.py", "device/drivers/*/*_bytes.py", "device/drivers/*/*_keys.py"),
          may=frozenset(), never=IMPURE, third=MSGSPEC),
    Floor(1, "vocabulary", "what the outside reports, what it should do, what the screen shows",
          ("device/txn/inputs.py", "device/txn/effects.py", "device/txn/screen.py"),
          may=frozenset({"ground"}), never=IMPURE, third=MSGSPEC),
    Floor(1, "core", "decide, evolve, wants, render: the rules of money",
          ("device/txn/*.py",),
          may=frozenset({"ground", "vocabulary"}), never=IMPURE, third=MSGSPEC),
    Floor(2, "stores", "journal and forwarder: bytes, not money",
          ("device/store_forward/*.py",),
          may=frozenset({"ground"})),
    Floor(3, "outside", "drivers, channels, signer, broker: slow, rude and sometimes gone",
          ("device/drivers/*.py", "device/drivers/*/*.py", "device/mqtt/*.py"),
          may=frozenset({"ground", "vocabulary"})),
    Floor(4, "box", "the one writer, and what makes what runs equal what is wanted",
          ("device/box.py",),
          may=BELOW_BOX, never=frozenset({"asyncio", "threading", "time", "random"})),
    Floor(4, "runner", "pace, retries, time-outs",
          ("device/runner.py", "device/pace.py"),
          may=BELOW_BOX | {"box"}),
    Floor(5, "daemon", "real clock, files, wiring, signals, watchdog, commands",
          ("device/*.py", "device/appliance/*.py", "device/commands/*.py", "device/console/*.py",
           "device/doctor/*.py", "device/identity/*.py", "device/keys/*.py",
           "device/push/*.py", "device/recovery/*.py", "device/update/*.py"),
          may=BELOW_BOX | {"box", "runner"}),
    Floor(6, "fleet", "the cloud end",
          ("fleet/*.py", "fleet/*/*.py"),
          may=frozenset({"ground"})),
    Floor(7, "sim", "the outside, played by programs",
          ("sim/*.py", "sim/*/*.py", "sim/*/*/*.py"),
          may=BELOW_BOX | {"box", "runner", "daemon", "fleet"}),
)

# Inside a folder arrows may point sideways, but no driver leans on another: these are the neighbours each may share.
# Within its room a driver may lean on all; in channels/ on its family (the first word of the name: wechat, wechat_bytes) alone.
DRIVERS_SHARED = frozenset({"device/drivers/contract.py", "device/drivers/input_line.py", "device/drivers/input_ports.py",
                            "device/drivers/port_holder.py", "device/drivers/private_file.py",
                            "device/drivers/qr_bits.py", "device/drivers/channels/https.py"})
DRIVERS_SEEING_ALL = frozenset({"device/drivers/registry.py"})

# Each arrow or name here breaks the table and is let through, with its
# reason; one that no source needs any more fails the test too.
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("device/keys/sealed.py", "cryptography"): "sealing is a function of bytes; the nonce comes from above",
    ("device/mqtt/jwe_wire.py", "cryptography"): "opening a secret is a function of bytes; key and randomness come from above",
    ("device/store_forward/es256.py", "cryptography"): "checking is a function of bytes; the cloud uses the same",
    ("device/drivers/channels/chain_bytes.py", "cryptography"): "following a chain is a function of bytes; the cloud uses the same",
    ("device/drivers/channels/rsa_bytes.py", "cryptography"): "a key out of bytes; the cloud asks with the same",
    ("device/drivers/channels/unionpay_proof_bytes.py", "cryptography"): "as above; key and time come from outside",
    ("device/drivers/channels/wechat_proof_bytes.py", "cryptography"): "as above; key and time come from outside",
    ("device/drivers/channels/alipay_proof_bytes.py", "cryptography"): "as above; key and time come from outside",
}

# Imports that a start would feel: in device/ only inside functions.  Not ssl: asyncio has taken it by then.
HEAVY = frozenset({"PIL", "cryptography", "escpos", "evdev", "http", "paho", "pkcs11", "sqlite_utils", "urllib.request"})
