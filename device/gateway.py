"""`tillbox gateway activate`: a technician's code becomes this box's terminal; and what the key file then tells the configuration.

Knows files, the line and what to say.  The exchange is `channels/gateway_activation.py`.
"""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from device.config import WALLETS, ChannelConfig, Config
from device.drivers.channels.terminal_bytes import Held, held_of, held_text
from device.drivers.private_file import KeyFile, PlainFile, make, read
from device.errors import DriverGone, Outside
from device.keys.store import KeyStore, store_of

if TYPE_CHECKING:
    import argparse

WHICH = "channel.gateway"


def with_terminal(config: Config) -> Config:
    """`config`, what the gateway said at the activation filled in where box.toml leaves it out: terminal id and wallets."""
    store = store_of(config)
    channels = tuple(_known(c, store) if c.name == "gateway" and not c.secret else c for c in config.channels)
    return msgspec.structs.replace(config, channels=channels)


def terminal_file(c: ChannelConfig, store: KeyStore) -> KeyFile:
    """Where the keys of the gateway's terminal lie: sealed, or in box.toml's file."""
    sealed = store.terminal(c)
    return store.key_file(sealed) if sealed is not None else PlainFile(c.private_key_file)


def _known(c: ChannelConfig, store: KeyStore) -> ChannelConfig:
    sealed = store.terminal(c)
    c = msgspec.structs.replace(c, terminal_id=c.terminal_id or (sealed.holder if sealed is not None else ""))
    try:
        notes = held_of(terminal_file(c, store).read()).notes
    except (OSError, Outside, ValueError):                 # the driver says it better, and the rest of the till sells
        return c
    wallets = tuple(name for name in WALLETS if name in notes.get("wallets", "").split())
    return msgspec.structs.replace(c, terminal_id=c.terminal_id or notes.get("terminal", ""), wallets=c.wallets or wallets)


def activate(config: Config, text: str, *, again: bool, vendor: str = "") -> int:
    """Exit status of the command.  Whatever goes wrong is one sentence, and the same command may be given again."""
    try:
        c = next((c for c in config.channels if c.name == "gateway"), None)
        if c is None:
            raise _refused("box.toml sets up no gateway", "add [channel.gateway] with its base_url")
        if c.secret:
            raise _refused("box.toml holds the gateway's secret itself", "take secret out of [channel.gateway]")
        _free(config, c, again)
        shown = _activate_there(config, c, text, vendor) if c.dialect == "shouqianba" else _activate_here(config, c, text)
    except (Outside, ValueError) as why:
        print(f"tillbox gateway: {why}", file=sys.stderr)
        return 1
    except OSError as why:
        print(f"tillbox gateway: {why.filename}: {why.strerror}", file=sys.stderr)
        return 1
    print(shown)
    return 0


def _activate_here(config: Config, c: ChannelConfig, text: str) -> str:
    from device.drivers.channels.gateway_activation import Activation
    from device.drivers.channels.gateway_key_bytes import code_of, fingerprint

    code = code_of(text)
    device = _device(c)
    print(f"device {fingerprint(device.public)}: compare it with what the gateway shows", flush=True)
    activation = Activation(code, device, box=config.box, nonce=secrets.token_hex(16))
    held = activation.read(asyncio.run(_asked(c, activation.request(int(time.time())))))
    _keep(c, held, store_of(config))
    _device_path(c).unlink(missing_ok=True)                # its work is done: from here on the key alone counts
    wallets = held.notes.get("wallets") or "none named"
    return f"activated: terminal {held.notes['terminal']}, wallets {wallets}; restart tillbox to sell with it"


def _activate_there(config: Config, c: ChannelConfig, text: str, vendor: str) -> str:
    """At Shouqianba, whose rules these are: the vendor's key signs, a code has a number of uses, and no device name works twice."""
    from device.drivers.channels import shouqianba_bytes as wire
    from device.drivers.channels.shouqianba_checkin import day_of

    sn, key, app_id = _vendor(vendor)
    probe = Path(c.private_key_file + ".probe")             # a card that is full must not cost the code
    PlainFile(probe).write(b"\n")
    probe.unlink()
    device = f"{config.tenant}-{config.box}-{secrets.token_hex(3)}"
    body = {"app_id": app_id, "code": text.strip(), "device_id": device, "name": config.box}
    told = wire.key_in(asyncio.run(_asked(c, wire.sealed("/terminal/activate", body, sn, key),
                                          "the code may be used up: try it once more, then ask for a fresh one")), "")
    if isinstance(told, str):
        raise ValueError(told)
    terminal, fresh = told
    _keep(c, Held(fresh, notes={"terminal": terminal, "device": device, "day": day_of(time.time())}), store_of(config))
    return f"activated: terminal {terminal}, device {device}; restart tillbox to sell with it"


def _vendor(path: str) -> tuple[str, bytes, str]:
    """vendor_sn, vendor_key and app_id in a TOML file that is read once and not kept: whoever holds it can make terminals."""
    import tomllib

    if not path:
        raise _refused("Shouqianba wants its vendor's signature", "say --vendor FILE, with vendor_sn, vendor_key and app_id")
    try:
        given = tomllib.loads(Path(path).read_text("utf-8"))
        names = [given[name] for name in ("vendor_sn", "vendor_key", "app_id")]
        if not all(isinstance(value, str) and value.isascii() and value.isprintable() and value for value in names):
            raise ValueError
    except (KeyError, ValueError):
        raise _refused(f"{path} is no vendor file", 'it holds vendor_sn = "…", vendor_key = "…" and app_id = "…"') from None
    return names[0], names[1].encode(), names[2]


def _device(c: ChannelConfig):
    """This device's key pair for one activation, on the card before its public half leaves: a lost answer is asked for again."""
    from device.drivers.channels.gateway_agreement import Agreement

    path = _device_path(c)
    held = read(path, 4096, which=WHICH)
    if held is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        make(path, Agreement().private.hex().encode() + b"\n")
        held = read(path, 4096, which=WHICH) or b""
    try:
        return Agreement(bytes.fromhex(held.decode().strip()) or b"?")
    except ValueError:
        raise _refused(f"{path} holds no device key", "move it away and ask for a fresh code") from None


def _device_path(c: ChannelConfig) -> Path:
    return Path(c.private_key_file + ".device")


async def _asked(c: ChannelConfig, request, hint: str = "the same code again asks for the same terminal"):
    from device.drivers.channels.https import Lines, NoAnswer

    name = {"shouqianba": "Shouqianba"}.get(c.dialect, "the gateway")
    lines = Lines(c.base_url, name, connect_s=5, read_s=15, at_once=1, ca_file=c.ca_file, client_cert=c.client_cert_file)
    try:
        return await lines.ask(request)
    except NoAnswer as silence:
        raise _refused(silence.why, hint) from None
    finally:
        await lines.close()


def _free(config: Config, c: ChannelConfig, again: bool) -> None:
    """Refuse to take a key from under a box that sells with it."""
    try:
        held = held_of(terminal_file(c, store_of(config)).read())
    except FileNotFoundError:
        return
    if not held.newest:
        return
    if not again:
        raise _refused(f"this box is terminal {held.notes.get('terminal') or c.terminal_id or '?'} already",
                       "say --again to give that up: its open payments and refunds could not be asked about any more")
    from device.ask import runs

    if runs(config.run_dir):
        raise _refused("tillbox is running with the old key", "stop it first: systemctl stop tillbox")


def _keep(c: ChannelConfig, held: Held, store: KeyStore) -> None:
    """The key on the card: sealed where it can be, else in its file, for its folder's owner, even when root gave the command."""
    if store.seals:
        mine = msgspec.structs.replace(c, terminal_id=held.notes["terminal"])
        store.keep_terminal(mine, held_text(held))
        store.remember(mine, b"", Path(c.ca_file).read_bytes() if c.ca_file else b"")
    else:
        PlainFile(c.private_key_file).write(held_text(held))


def _refused(what: str, hint: str) -> DriverGone:
    return DriverGone(what, which=WHICH, hint=hint, again=False)


def arguments(argv: list[str]) -> tuple[argparse.Namespace, str]:
    """The command line, and the code: `-` reads it from standard input, where no list of processes shows it."""
    import argparse

    parser = argparse.ArgumentParser(prog="tillbox gateway")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verb = verbs.add_parser("activate", help="become a terminal of the gateway with a one-use code")
    verb.add_argument("code", metavar="CODE", help="as scanned or typed; - reads a line of standard input")
    verb.add_argument("--config", default="/etc/tillbox/box.toml")
    verb.add_argument("--vendor", metavar="FILE", default="", help="vendor_sn, vendor_key and app_id, where the gateway is "
                                                                   "Shouqianba; read once, not kept")
    verb.add_argument("--again", action="store_true", help="give up the terminal this box is now")
    args = parser.parse_args(argv)
    return args, (sys.stdin.readline() if args.code == "-" else args.code)
