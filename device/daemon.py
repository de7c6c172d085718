"""The daemon: real clock, files, wiring, signals, watchdog.  Everything is put together here and nowhere else."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import secrets
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from device import __version__, last_words
from device.appliance import fault
from device.commands.console_door import ConsoleDoor
from device.commands.doors import Commands, rows_of_sale
from device.commands.inquiries import Inquiry, inquiries
from device.commands.log_ring import LogRing
from device.commands.restart import Restart
from device.config import Config, show, to_terms
from device.drivers.registry import displays_of, drivers_of, signer_of
from device.errors import ConfigError, CopyFailed, JournalHeld, JournalUnreadable, KeyMissing, Outside
from device.gateway import activate, arguments
from device.goods import PriceList
from device.identity.folder import enrolled
from device.inside import keep_inside
from device.keys import rotation
from device.keys.store import store_of
from device.mqtt.cloud import Cloud
from device.price_file import read_prices
from device.push.layers import Layers, Pushing
from device.real_clock import RealClock, clock_quality
from device.recovery.recovering import doubt, opened
from device.recovery.retention import Retention
from device.ruled import ruled
from device.runner import Runner
from device.scanning import Scanning, Tap, strangers_of
from device.txn import show as screens
from device.txn.figures import figures
from device.txn.inputs import Configured, Started
from device.txn.wants import idle
from device.uplink import LINK_AFTER_S, Uplink, tls_of

if TYPE_CHECKING:
    from device.identity.renewal import Renewal
    from device.update.updater import Updater

log = logging.getLogger("tillbox")

IDLE_TICK_S = 1.0
NO_ORDER = ("x", "z", "opening")                # papers that stand for no order
SOCKET_LINE_MAX = 64 * 1024
EXIT_JOURNAL, EXIT_KEY = 3, 4   # the journal cannot be read, or failed; the record key is not its own: docs/recovery.md
SLOTS = "/run/tillbox-slot/slot.sock"           # where a machine has two root slots
EXIT_CONFIG = 5                 # start again: another configuration waits


class Daemon:
    """One box: config in, until it is told to stop."""

    def __init__(self, config: Config, path: str = "", layers: Layers | None = None) -> None:
        """`path` of the file that `config` was read from, for the doctor."""
        self.config, self.path, self.ring, self.since = config, path, LogRing(), int(time.time())
        log.addHandler(self.ring)
        self.ends: asyncio.Future[int] | None = None
        state = Path(config.state_dir) / ("training" if config.training else "")
        state.mkdir(parents=True, exist_ok=True)
        Path(config.run_dir).mkdir(parents=True, exist_ok=True)
        self.boot = secrets.token_hex(8)
        self.opened = opened(state / "journal.db", state / "second" if config.training else config.second_copy_dir,
                             quota_bytes=config.journal.quota_mb << 20,
                             identity={"box": config.box, "mode": "training" if config.training else "real"})
        self.journal, self.box = self.opened.journal, self.opened.box
        displays = displays_of(config)
        for display in displays.values():              # not before the journal is ours: they may be another daemon's
            display.wipe()
        last_words.take_over(config)
        self.clock = RealClock(self.boot, self.box.last_wall, quality=clock_quality)
        try:
            self.signer = signer_of(config, self.box.books.chain.kid)
        except Outside:
            self.journal.close()
            raise
        self.terms, self.rules_fault = ruled(to_terms(config), config)
        self.prices, self.prices_fault = _prices(config)
        self.uplink = Uplink(config, self.journal, self.box, self.clock, self.boot)
        self.retention = Retention(self.journal, config.journal.keep_days, self.clock.now_s,
                                   idle=lambda: not self.box.books.basket.lines)
        self.cloud = Cloud(config.box, lambda: self.signer.kid, self.signer.signature, self.uplink.keys, self.uplink.publish)
        self.uplink.takers["answer"] = self.cloud.came
        keys = None if config.training else store_of(config)
        tap = Tap()
        drivers = {"signer": self.signer, "cloud": self.cloud, "system": Restart(self.end),
                   **drivers_of(to_driven(config), self.look_up, keys, self.clock, tap)}
        watch = strangers_of(config)
        if watch is not None:
            drivers["keyboards"] = watch
        self.scanning = Scanning(config, drivers, tap, lambda: idle(self.box.books, self.box.desk))
        self.pusher = Pushing(self, layers) if layers is not None and config.mqtt.host and not config.training else None
        if self.pusher is not None:
            drivers["config"] = self.pusher
        self.updater: Updater | None = None            # made with the line, where the machine has slots
        self.began = (self.box.books.chain.jid, self.box.books.chain.seq)
        self.runner = Runner(self.box, drivers, self.clock, displays=displays, on_rows=self.uplink.forward)
        self.clock.on_anchor = self.runner.post
        asked = inquiries(path, state=self.state, metrics=self.metrics, ring=self.ring, tokens=self.uplink.tokens,
                          jwk=lambda: self.signer.jwk)
        self.commands = self._commands(asked)
        self.console = ConsoleDoor(self.runner.ask, asked)
        self.uplink.takers["cmd"] = self.commands.came

    def look_up(self, symbol: str):
        return self.prices.found(symbol, self.config.templates)

    def _commands(self, asked: dict[str, Inquiry]) -> Commands:
        return Commands(self.config.box, self.uplink.command_keys, session=lambda: self.uplink.session, ask=self.runner.ask,
                        publish=self.uplink.publish, inquiries=asked, forward=self.uplink.hurry, update=self._update,
                        recalled=lambda no: rows_of_sale(self.journal.recall, no), wall=lambda: self.clock.stamp().wall)

    def _update(self, args: str) -> str:
        if self.updater is None:
            return "this installation has no slots: it is updated by hand, or not at all"
        self.updater.taken(args)
        return ""

    async def _updating(self, place: str) -> None:
        await asyncio.sleep(LINK_AFTER_S / 2)         # after the start, and before the line has anything to say
        from device.update.updating import updater_of

        self.updater = updater_of(self, place)
        await self.updater.run()

    async def _opening(self) -> None:
        from device.opening import Opening
        from device.txn.minting import business_day

        opening = Opening(self.path, self.config.state_dir, sold=lambda: self.box.books.day.day, post=self.runner.post,
                          day=lambda: business_day(self.clock.stamp(), self.config.cutoff_hour))
        self.runner.on_hand = opening.stirred
        await opening.run()

    def _renewal(self) -> Renewal:
        from device.identity.renewal import Renewal
        return Renewal(self.config.identity_dir, self.config.box, ask=self.cloud.ask, line=lambda: self.uplink.link,
                       stamp=self.clock.stamp, now_s=self.clock.now_s, mono_s=time.monotonic, tls=tls_of)

    def end(self, status: int) -> None:
        """Stop in good order and leave with `status`; said once more, or before anything runs, it changes nothing."""
        if self.ends is not None and not self.ends.done():
            self.ends.set_result(status)

    async def run(self) -> int:
        """Serve until SIGTERM, SIGINT or `end`; the exit status.

        An error of our own ends the process: systemd starts it again, boot folds.
        """
        loop = asyncio.get_running_loop()
        stop = self.ends = loop.create_future()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.end, 0)
        loop.set_exception_handler(lambda _loop, context: _fatal(stop, context))
        first = Started(self.boot, __version__, self.terms, secrets.token_urlsafe(16), self.signer.kid,
                        rotation.wished(self.config, self.box.books.chain.kid), up_ms=self.clock.up_ms(), **self.opened.started())
        work = [asyncio.create_task(self.runner.run(first), name="runner")]
        server = await asyncio.start_unix_server(self._serve, path=_socket_path(self.config), limit=SOCKET_LINE_MAX)
        await asyncio.sleep(0)
        self.uplink.begin(self.runner.post)
        if self.config.mqtt.host and not self.config.training:
            work.append(asyncio.create_task(self.uplink.run(), name="link"))
            work.append(asyncio.create_task(self.commands.run(), name="commands"))
            if enrolled(self.config):
                work.append(asyncio.create_task(self._renewal().run(), name="renewal"))
        slots = os.environ.get("TILLBOX_SLOTS", SLOTS)
        if not self.config.training and os.path.exists(slots):
            work.append(asyncio.create_task(self._updating(slots), name="update"))
        notify("READY=1", f"STATUS=selling as {self.config.box}")
        gc.freeze()                                   # what a start made stays; `__main__` let nobody look for garbage in it
        gc.enable()
        log.info("tillbox %s boot=%s box=%s journal=%s", __version__, self.boot, self.config.box, self.box.books.chain.jid)
        if self.config.opening_ticket and self.path:
            work.append(asyncio.create_task(self._opening(), name="opening"))
        work.append(asyncio.create_task(self._watchdog(), name="watchdog"))
        work.append(asyncio.create_task(self.retention.run(), name="retention"))
        try:
            await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    raise task.exception()
            return stop.result() if stop.done() else 0
        finally:
            notify("STOPPING=1")
            server.close()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            await self.runner.farewell()
            log.removeHandler(self.ring)
            self.journal.close()

    def restart(self) -> None:
        """End in order, to be started again: another configuration waits."""
        self.end(EXIT_CONFIG)

    def take(self, config: Config) -> None:
        """Go on under `config`, which needs no restart; what stands in a basket keeps its price."""
        self.config = config
        self.prices, self.prices_fault = _prices(config)
        terms, self.rules_fault = ruled(to_terms(config), config)
        for display in self.runner.displays.values():
            display.pictures(config.pictures)
        self.runner.post(Configured(terms))
        self.uplink.renew()

    async def _watchdog(self) -> None:
        """The loop itself feeds the watchdog: a thread would prove only that the thread lives."""
        spell_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 3 or 10.0
        while True:
            await asyncio.sleep(spell_s)
            notify("WATCHDOG=1")

    # The local socket ------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """JSON lines: one question, one answer.  The console's entries alone reach the core; nothing here moves money."""
        try:
            while line := await reader.readline():
                writer.write(msgspec.json.encode(await self.console.answered(line) or self._answer(line)) + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):         # a line too long, or a caller that hung up
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict:
        try:
            asked = msgspec.json.decode(line, type=dict)
            verb = str(asked.get("verb"))
        except (msgspec.DecodeError, RecursionError):
            return {"ok": False, "error": "A request is one line of JSON, an object with a verb."}
        answers: dict[str, Callable[[], dict]] = {
            "state": lambda: {"state": self.state()},
            "screen": lambda: {"screen": msgspec.to_builtins(self.runner.now_screen())},
            "receipts": lambda: {"receipts": self.receipts()},
            "sums": lambda: {"sums": self.sums()},
            "metrics": lambda: {"metrics": self.metrics()},
            "forward": lambda: {"forward": self.uplink.hurry()},
            "scan": lambda: self.scanning.answer(asked),
            "timeline": lambda: {"timeline": self.timeline(str(asked.get("order", "")))},
        }
        if verb not in answers:
            return {"ok": False, "error": f"The verb is one of {', '.join(sorted(answers))}."}
        return {"ok": True, **answers[verb]()}

    def state(self) -> dict:
        state = screens.state(self.box.books, self.box.desk, self.clock.now_ms())
        state |= {"software": __version__, "pid": os.getpid(), "since": self.since}
        state["whys"] = {part: why for part, why in self.runner.whys.items() if state["health"].get(part, "ok") != "ok"}
        if self.uplink.link is not None and not self.uplink.link.up:
            state["link_why"] = self.uplink.link.why_down
        state["unacked"] = self.uplink.unacked
        state["oldest_unacked_s"] = self.uplink.oldest_s()
        state["room_bytes"] = self.journal.room_bytes()
        state |= self.scanning.shown()
        if self.uplink.trouble:
            state["health"]["collector"] = self.uplink.trouble
        if self.journal.room_bytes() <= 0:
            state["health"]["journal"] = "full"
        if self.opened.trouble:
            state["health"]["second_copy"] = "gone"
        if self.clock.doubts:
            state["health"]["clock"] = "wrong"
        if self.box.books.reboot:
            state["health"]["system"] = "restart_due"
        if self.pusher is not None:
            state["config"] = self.pusher.shown()
        if self.updater is not None:
            state["update"] = self.updater.shown()
        if self.prices_fault:
            state["health"]["prices"] = "refused"
            state["notice"] = state["notice"] or self.prices_fault
        return state

    def timeline(self, no: str) -> dict | None:
        """Every step of one payment; None for a number that no row names."""
        from device.timeline import Asked, told

        jid, upto, _ = self.journal.acked()
        asked = [Asked(*one) for one in self.runner.asked]
        self.journal.sync()                           # what waits for the card is part of the story
        story = told(self.journal, no.upper(), acked=(jid, upto), asked=asked, acks=self.uplink.acks, now=self.clock.stamp())
        return None if story is None else msgspec.to_builtins(story)

    def metrics(self) -> dict:
        """The box in numbers; nothing in it names a payment or a payer."""
        now_ms = self.clock.now_ms()
        return {**figures(self.box.books, self.box.desk, now_ms), "unacked": self.uplink.unacked,
                "oldest_unacked_s": self.uplink.oldest_s(), "handled": self.runner.handled, "up_ms": now_ms,
                "room_bytes": self.journal.room_bytes(), "first_seq": self.journal.first_seq,
                "config_refused": self.pusher.refused if self.pusher is not None else 0,
                "commands_refused": self.commands.refused.total()}

    def receipts(self) -> list[dict]:
        return [{"job": p.job, "order_no": "" if p.kind in NO_ORDER else p.ref, "kind": p.kind, "copy": p.copy, "state": p.state}
                for p in self.box.books.papers.values()]

    def sums(self) -> dict:
        chain = self.box.books.chain
        sales_fen, refunds_fen, count = chain.before  # under older ids of this journal
        return {"sales_fen": sales_fen + chain.sales_fen, "refunds_fen": refunds_fen + chain.refunds_fen,
                "count": count + chain.count,
                "wallet_fen": self.box.books.wallet_fen, "jid": chain.jid, "seq": chain.seq, "kid": self.signer.kid}


def notify(*lines: str) -> None:
    """Tell systemd, when it listens.  One datagram, never an error of ours."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
        line.connect("\0" + address[1:] if address.startswith("@") else address)
        line.sendall("\n".join(lines).encode())


def _fatal(stop: asyncio.Future, context: dict) -> None:
    error = context.get("exception") or RuntimeError(context.get("message", "unknown"))
    if not stop.done():
        stop.set_exception(error)


def to_driven(config: Config) -> Config:
    """The configuration as the drivers see it: a training box has no channel, so that none of its orders can leave."""
    return msgspec.structs.replace(config, channels=()) if config.training else config


def _prices(config: Config) -> tuple[PriceList, str]:
    """The price list, or an empty one and the sentence that says why: cash by amount still sells."""
    try:
        return read_prices(Path(config.prices_file).read_bytes(), which=config.prices_file), ""
    except (OSError, Outside) as why:
        log.error("no price list: %s", why)
        return PriceList(), f"no price list: {why}"


def _socket_path(config: Config) -> str:
    path = Path(config.run_dir) / "daemon.sock"
    path.unlink(missing_ok=True)
    short = os.path.relpath(path)                    # an address holds 107 bytes
    return short if len(str(path)) > 100 and len(short) < len(str(path)) else str(path)


def _loaded(argv: list[str], prog: str) -> Config | None:
    """The configuration that a box with the file named on the command line runs with; None after saying what is wrong with it."""
    layers = _layers(argv, prog)
    return None if layers is None else layers.config()


def _layers(argv: list[str], prog: str) -> Layers | None:
    path = _config_path(argv, prog)
    try:
        return Layers(Path(path).read_text(encoding="utf-8"), which=path)
    except (OSError, UnicodeDecodeError) as why:
        print(f"{path} cannot be read: {why}", file=sys.stderr)
    except ConfigError as why:
        print(f"{path} is refused, nothing of it is used:", *(f"  {reason}" for reason in why.reasons), sep="\n",
              file=sys.stderr)
    except Outside as why:
        print(f"{prog}: {why}", file=sys.stderr)
    return None


def _config_path(argv: list[str], prog: str) -> str:
    if len(argv) == 2 and argv[0] == "--config" and not argv[1].startswith("-"):
        return argv[1]               # what a start says; argparse would be a fortieth of it
    import argparse

    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--config", default="/etc/tillbox/box.toml")
    return parser.parse_args(argv).config


def show_config(argv: list[str]) -> int:
    """`tillbox config [FILE] [--why KEY]`: what the box runs with, or which layer gave one value."""
    key = argv[argv.index("--why") + 1] if "--why" in argv[:-1] else ""
    argv = [word for word in argv if word not in ("--why", key)] if key else argv
    layers = _layers(["--config", *argv] if argv and not argv[0].startswith("-") else argv, "tillbox config")
    if layers is None:
        return 2
    values = dict(show(layers.config()))
    try:
        print(*(f"{path} = {value}" for path, value in values.items()) if not key
              else [f"{key} = {values.get(key)}   ({layers.why(key)})"], sep="\n")
    except ConfigError as why:
        print(f"tillbox config: {'; '.join(why.reasons)}", file=sys.stderr)
        return 2
    return 0


def show_supervisor(argv: list[str]) -> int:
    """`tillbox supervisor NAME`: a [[supervisor]] for box.toml, from a badge's code and a PIN that nobody else keeps."""
    from device.txn.approval import badge_hash, pin_hash
    badge, pin = sys.stdin.readline().strip(), sys.stdin.readline().strip()
    if len(argv) != 1 or not badge or not (pin.isascii() and pin.isdigit() and 4 <= len(pin) <= 9):
        print("usage: tillbox supervisor NAME, then two lines: the badge's code, and a PIN of 4 to 9 digits", file=sys.stderr)
        return 2
    print(f'[[supervisor]]\nname = "{argv[0]}"\nbadge = "{badge_hash(badge)}"\npin = "{pin_hash(pin, secrets.token_hex(8))}"')
    return 0


def show_key(argv: list[str]) -> int:
    """Print the public half of the record key, for the cloud's key set; makes none.  `rotate` asks for another key."""
    rotate = argv[:1] == ["rotate"]
    argv = argv[1:] if rotate else argv
    config = _loaded(["--config", *argv] if argv and not argv[0].startswith("-") else argv, "tillbox key")
    if config is None:
        return 2
    try:
        if rotate:
            print(f"at its next start the box leaves key {rotation.wish(config)}: a new one is made, and introduced under it")
        else:
            print(msgspec.json.encode({**signer_of(config, make=False).jwk, "box": config.box}).decode())
    except OSError as why:
        print(f"tillbox key: {why.filename} cannot be written: {why.strerror}", file=sys.stderr)
        return 1
    except Outside as why:
        print(f"tillbox key: {why}", file=sys.stderr)
        return 1
    return 0


def gateway(argv: list[str]) -> int:
    """`tillbox gateway activate CODE`."""
    args, code = arguments(argv)
    config = _loaded(["--config", args.config], "tillbox gateway")
    return 2 if config is None else activate(config, code, again=args.again, vendor=args.vendor)


def _code_waits(config: Config) -> bool:
    """Whether an enrolment code came with the card of a box that is nobody's yet; `device.identity.waiting` keeps it there."""
    return os.path.exists(os.path.join(config.state_dir, "enrol.wanted")) and not enrolled(config)


def main(argv: list[str]) -> int:
    path, service = _config_path(argv, "tillbox run"), bool(os.environ.get("NOTIFY_SOCKET"))
    if service and os.path.exists(fault.PATH):
        from device.standing import faulty
        return faulty(path, *fault.said() or ("", ""), notify)
    layers = _layers(argv, "tillbox run")
    if service and (layers is None or _code_waits(layers.alone)):
        from device.standing import unset
        return unset(path, notify, complete=layers is not None)
    if layers is None:
        last_words.say_unconfigured(path)
        return 2
    keep_inside()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    config, daemon = layers.alone, None
    try:
        config = layers.begin()
        daemon = Daemon(config, path, layers)
        return asyncio.run(daemon.run())
    except JournalUnreadable as why:
        if daemon is not None:
            doubt(daemon.journal.path)
        last_words.say(config, f"tillbox cannot sell: {why}")
        os._exit(EXIT_JOURNAL)       # nothing is closed: SQLite would move rows out of the WAL that a person must see first
    except CopyFailed as why:
        last_words.say(config, f"tillbox cannot sell: {why}")
        return EXIT_JOURNAL
    except sqlite3.Error as why:
        if daemon is not None and "malformed" in str(why):
            doubt(daemon.journal.path)
        last_words.say(config, f"tillbox cannot sell: journal: The journal in {config.state_dir} failed while it was used: {why} "
                               "(what it had confirmed is kept; see docs/recovery.md)")
        return EXIT_JOURNAL
    except KeyMissing as why:
        last_words.say(config, f"tillbox cannot sell: {why}")
        return EXIT_KEY
    except JournalHeld as why:
        print(f"tillbox cannot start: {why}", file=sys.stderr)     # not on the display: it may be another daemon's
        return 1
    except Outside as why:
        last_words.say(config, f"tillbox cannot start: {why}")     # and over the QR of a life that was cut off
        return 1
    except OSError as why:
        if daemon is not None or not last_words.may_say(config):
            raise
        last_words.say(config, f"tillbox cannot start: {why}")     # a card that only reads, a folder that is not ours
        return 1
