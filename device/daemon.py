"""The daemon: real clock, files, wiring, signals, watchdog.  Everything is put together here and nowhere else."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import gc
import json
import logging
import os
import secrets
import signal
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec

from device import __version__, rules
from device.box import Box
from device.config import Config, parse_toml, show, to_terms, written_rules
from device.drivers.registry import display_of, drivers_of
from device.drivers.signer_file import FileSigner
from device.errors import ConfigError, JournalUnreadable, KeyMissing, Outside
from device.gateway import activate, arguments, with_terminal
from device.goods import PriceList
from device.inside import keep_inside
from device.key_store import store_of
from device.mqtt import wire
from device.mqtt.cloud import Cloud
from device.price_file import read_prices
from device.real_clock import RealClock
from device.runner import Runner
from device.store_forward.forwarder import Forwarder, Refused
from device.store_forward.journal import Journal
from device.txn import facts
from device.txn import show as screens
from device.txn.figures import figures
from device.txn.inputs import LinkSaid, Started
from device.txn.screen import Screen
from device.types import Rules, Terms

log = logging.getLogger("tillbox")

CONNECTS_BITS = 20           # connect counter: boots in the high part, so that it rises over restarts
IDLE_TICK_S = 1.0
LINK_AFTER_S = 1.0
SOCKET_LINE_MAX = 64 * 1024
EXIT_JOURNAL, EXIT_KEY = 3, 4   # the journal cannot be read, or failed; the record key is not its own: docs/recovery.md


def clock_quality() -> str:
    """`ntp` when systemd's time service says it is synchronised, else `unset`: a claim is never better than its proof."""
    return "ntp" if os.path.exists("/run/systemd/timesync/synchronized") else "unset"


class Daemon:
    """One box: config in, until it is told to stop."""

    def __init__(self, config: Config) -> None:
        self.config = config
        state = Path(config.state_dir) / ("training" if config.training else "")
        state.mkdir(parents=True, exist_ok=True)
        Path(config.run_dir).mkdir(parents=True, exist_ok=True)
        self.terms, self.rules_fault = _ruled(to_terms(config), config)
        self.boot = secrets.token_hex(8)
        self.journal = Journal(str(state / "journal.db"),
                               identity={"box": config.box, "mode": "training" if config.training else "real"})
        self.box = Box(self.journal)
        self.clock = RealClock(self.boot, self.box.last_wall, quality=clock_quality)
        try:
            self.signer = FileSigner(str(state / "training.key") if config.training else config.record_key_file,
                                     self.box.books.chain.kid)
        except Outside:
            self.journal.close()
            raise
        self.prices, self.prices_fault = _prices(config)
        self._ack_keys: dict = {}                     # read when the line is first wanted
        self.cloud = Cloud(config.box, self.signer.kid, self.signer.signature, self._ack_keys, self._publish)
        keys = None if config.training else store_of(config)
        drivers = {"signer": self.signer, "cloud": self.cloud, **drivers_of(to_driven(config), self.look_up, keys, self.clock)}
        self.runner = Runner(self.box, drivers, self.clock, display=display_of(config), on_rows=self._rows_durable)
        self.forwarder: Forwarder | None = None
        self.link = None
        self._forward_timer: asyncio.TimerHandle | None = None

    def look_up(self, symbol: str):
        return self.prices.look_up(symbol, self.config.templates)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.  An error of our own ends the process: systemd starts it again, boot folds."""
        loop = asyncio.get_running_loop()
        stop: asyncio.Future[None] = loop.create_future()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, lambda: stop.done() or stop.set_result(None))
        loop.set_exception_handler(lambda _loop, context: _fatal(stop, context))
        first = Started(self.boot, __version__, self.terms, secrets.token_urlsafe(16), self.signer.kid)
        work = [asyncio.create_task(self.runner.run(first), name="runner")]
        server = await asyncio.start_unix_server(self._serve, path=_socket_path(self.config), limit=SOCKET_LINE_MAX)
        await asyncio.sleep(0)
        self._forward_from()
        if self.config.mqtt.host and not self.config.training:
            self.link = self._link()
            work.append(asyncio.create_task(self._line_up(self.link), name="link"))
        notify("READY=1", f"STATUS=selling as {self.config.box}")
        gc.freeze()                                   # what a start made stays; `__main__` let nobody look for garbage in it
        gc.enable()
        log.info("tillbox %s boot=%s box=%s journal=%s", __version__, self.boot, self.config.box, self.box.books.chain.jid)
        work.append(asyncio.create_task(self._watchdog(), name="watchdog"))
        try:
            await asyncio.wait([stop, *work], return_when=asyncio.FIRST_COMPLETED)
            for task in work:
                if task.done() and not task.cancelled() and task.exception() is not None:
                    raise task.exception()
            if stop.done():
                stop.result()
        finally:
            notify("STOPPING=1")
            server.close()
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)
            self.journal.close()

    async def _watchdog(self) -> None:
        """The loop itself feeds the watchdog: a thread would prove only that the thread lives."""
        spell_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 / 3 or 10.0
        while True:
            await asyncio.sleep(spell_s)
            notify("WATCHDOG=1")

    # The line to the cloud -------------------------------------------------------------------------------------------

    def _forward_from(self) -> None:
        _, upto, head = self.journal.acked()
        self.forwarder = Forwarder(self.box.books.chain.jid, upto, head, tokens=self._tokens, seed=secrets.randbits(32))

    def _tokens(self, after: int, limit: int) -> list[tuple[int, str]]:
        try:
            return self.journal.tokens(after, limit, wire.BODY_MAX_BYTES, facts.tokens_of)
        except msgspec.DecodeError as why:
            raise self.journal.unreadable(f"a row behind record {after} cannot be read ({why})") from None

    def _link(self):
        from device.mqtt.client import Link
        self._ack_keys |= _ack_verifiers(self.config)
        c = self.config.mqtt
        context = broker_tls(self.config)
        return Link(c.host, c.port, self.config.tenant, self.config.box, on_message=self._came, on_state=self._line,
                    hello=self._hello, connect_from=self.box.books.boots << CONNECTS_BITS,
                    wall=lambda: self.clock.stamp().wall, context=context, username=c.user or None,
                    password=c.password or None, keepalive_s=c.keepalive_s, pause_max_ms=30_000)

    async def _line_up(self, link) -> None:
        await asyncio.sleep(LINK_AFTER_S)             # its library is a fifth of a start, and the first customer may stand there
        await link.run()

    def _hello(self, session: str) -> bytes:
        _, upto, head = self.journal.acked()
        chain = self.box.books.chain
        return wire.encoded(wire.Hello((wire.JournalHead(chain.jid, 1, chain.seq + 1, chain.prev if chain.seq else ""),),
                                       session, software=__version__, boot=self.boot, clk=self.clock.stamp().clk,
                                       free_bytes=_free(self.config.state_dir), oldest_unacked_s=self._oldest_s()))

    def _line(self, up: bool, collector: bool) -> None:
        self.runner.post(LinkSaid(up, collector))
        self.forwarder.on_link(up, collector, self.clock.now_ms())
        self._forward()

    def _publish(self, name: str, payload: bytes) -> bool:
        return self.link is not None and self.link.publish(name, payload)

    def _came(self, name: str, payload: bytes) -> None:
        if name == "answer":
            self.cloud.came(payload)
            return
        if name != "ack":
            log.warning("a message on %s is not understood by this release", name)
            return
        try:
            ack = wire.ack_decoded(payload, self._ack_keys)
        except wire.WireError as why:
            log.warning("an acknowledgement was refused: %s", why.sentence)
            return
        released = self.forwarder.on_ack(ack, self.clock.now_ms())
        if isinstance(released, Refused):
            log.debug("ack: %s", released)
        elif self.journal.ack(ack.jid, released.upto, released.head):
            self.clock.acknowledged(ack.at)           # it released something that we sent: no replay of an older one
        self._forward()

    def _rows_durable(self) -> None:
        if self.forwarder is not None:
            self._forward()

    def _forward(self) -> None:
        """Send what is due now; come back when the clock alone makes something due."""
        if self.link is None:
            return
        now_ms = self.clock.now_ms()
        for batch in self.forwarder.due(now_ms):
            if not self.link.publish_up(wire.batch_encoded(batch, "zlib")):
                self.forwarder.unsent(batch, now_ms)
                break
        if self._forward_timer is not None:
            self._forward_timer.cancel()
            self._forward_timer = None
        due_ms = self.forwarder.next_due_ms()
        if due_ms is not None:
            wait_s = max(0.05, (due_ms - self.clock.now_ms()) / 1000)
            self._forward_timer = asyncio.get_running_loop().call_later(wait_s, self._forward)

    def _oldest_s(self) -> int:
        """Age of the oldest record that the cloud has not confirmed, by the wall; 0 when none waits."""
        _, upto, _ = self.journal.acked()
        oldest = self._tokens(upto, 1)
        wall = _at_of(oldest[0][1]) if oldest else (self.box.books.due[0].at.wall if self.box.books.due else "")
        if not wall:
            return 0
        return max(0, int(self.clock.now_s() - datetime.datetime.fromisoformat(wall).timestamp()))

    # The local socket ------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """JSON lines: one question, one answer.  Questions never reach the core; nothing here moves money."""
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self._answer(line), ensure_ascii=False).encode() + b"\n")
                await writer.drain()
        except (ValueError, ConnectionError):         # a line too long, or a caller that hung up
            pass
        finally:
            writer.close()

    def _answer(self, line: bytes) -> dict:
        try:
            verb = str(msgspec.json.decode(line, type=dict).get("verb"))
        except (msgspec.DecodeError, RecursionError):
            return {"ok": False, "error": "A request is one line of JSON, an object with a verb."}
        answers: dict[str, Callable[[], dict]] = {
            "state": lambda: {"state": self.state()},
            "screen": lambda: {"screen": msgspec.to_builtins(self.runner.now_screen())},
            "receipts": lambda: {"receipts": self.receipts()},
            "sums": lambda: {"sums": self.sums()},
            "metrics": lambda: {"metrics": self.metrics()},
        }
        if verb not in answers:
            return {"ok": False, "error": f"The verb is one of {', '.join(sorted(answers))}."}
        return {"ok": True, **answers[verb]()}

    def state(self) -> dict:
        books = self.box.books
        _, upto, _ = self.journal.acked()
        state = screens.state(books, self.box.desk, self.clock.now_ms())
        state["unacked"] = books.chain.seq - upto + len(books.due)
        state["oldest_unacked_s"] = self._oldest_s()
        if self.forwarder is not None and (self.forwarder.halted or self.forwarder.trouble):
            state["health"]["collector"] = self.forwarder.halted or "unreadable"
        if self.journal.room_bytes() <= 0:
            state["health"]["journal"] = "full"
        if self.clock.doubts:
            state["health"]["clock"] = "wrong"
        if self.prices_fault:
            state["health"]["prices"] = "refused"
            state["notice"] = state["notice"] or self.prices_fault
        return state

    def metrics(self) -> dict:
        """The box in numbers; nothing in it names a payment or a payer."""
        _, upto, _ = self.journal.acked()
        books, now_ms = self.box.books, self.clock.now_ms()
        return {**figures(books, self.box.desk, now_ms), "unacked": books.chain.seq - upto + len(books.due),
                "oldest_unacked_s": self._oldest_s(), "handled": self.runner.handled, "up_ms": now_ms,
                "room_bytes": self.journal.room_bytes()}

    def receipts(self) -> list[dict]:
        return [{"job": p.job, "order_no": "" if p.kind in ("x", "z") else p.ref, "kind": p.kind, "copy": p.copy, "state": p.state}
                for p in self.box.books.papers.values()]

    def sums(self) -> dict:
        chain = self.box.books.chain
        return {"sales_fen": chain.sales_fen, "refunds_fen": chain.refunds_fen, "count": chain.count,
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


def _ruled(terms: Terms, config: Config) -> tuple[Terms, str]:
    """The terms under the newest rule table at hand, and the sentence that says what is wrong with the fleet's.

    A table once taken is kept in the state folder, so that neither an older one nor a spoilt file undoes it.
    """
    table, fault = rules.parse((Path(__file__).with_name("rules.json")).read_bytes(), which="the rule table that ships"), ""
    kept = Path(config.state_dir) / "rules.taken"
    for path in (kept, Path(config.rules_file)) if config.rules_file else ():
        try:
            token = path.read_bytes().strip()
            told = rules.opened(token, _verifiers(config.rules_key_file, "a rule table"), which=str(path))
        except (OSError, Outside) as why:
            if path != kept:
                log.error("the rule table is not taken: %s", why)
                fault = f"the rule table is not taken: {why}"
            continue
        if told.version > table.version:
            table = told
            if path != kept:
                fresh = kept.with_suffix(".new")
                fresh.write_bytes(token)
                os.replace(fresh, kept)
        elif path != kept and told.version < table.version:
            fault = f"the rule table is not taken: version {told.version} is older than {table.version}"
            log.error("%s", fault)
    own = dict(table.rules)
    for channel in () if config.rules_file else config.channels:                    # box.toml speaks where no fleet does
        said = written_rules(channel)
        if said:
            own[channel.name] = msgspec.structs.replace(own.get(channel.name, Rules()), **said)
        if (code := own.get(f"{channel.name}.code")) is not None:                   # a refund is the same, however it was paid
            refunds = {field: value for field, value in said.items() if field.startswith("refund_")}
            own[f"{channel.name}.code"] = msgspec.structs.replace(code, **refunds)
    for channel in config.channels:                                                 # no table knows what a gateway speaks
        if channel.dialect == "shouqianba" and channel.name in own:
            own[channel.name] = msgspec.structs.replace(own[channel.name], undo_moves_money=True)
    return msgspec.structs.replace(terms, rules=tuple(sorted(own.items())), codes=table.codes,
                                   rules_version=table.version), fault


def _ack_verifiers(config: Config) -> dict:
    return _verifiers(config.ack_key_file, "acknowledgements")


def _verifiers(path: str, what: str) -> dict:
    from device.store_forward.es256 import public_verifier
    from device.store_forward.token import thumbprint
    try:
        jwk = json.loads(Path(path).read_text())
    except (OSError, ValueError) as why:
        log.error("no key to check %s with, so none will be believed: %s", what, why)
        return {}
    return {thumbprint(jwk): public_verifier(jwk)}


def broker_tls(config: Config):
    """What the line to the broker is proven by, None for a plain one."""
    if not config.mqtt.ca_file:
        return None
    import ssl
    context = ssl.create_default_context(cafile=config.mqtt.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if config.mqtt.cert_file:
        context.load_cert_chain(config.mqtt.cert_file, config.mqtt.key_file)
    return context


def _socket_path(config: Config) -> str:
    path = Path(config.run_dir) / "daemon.sock"
    path.unlink(missing_ok=True)
    short = os.path.relpath(path)                    # an address holds 107 bytes
    return short if len(str(path)) > 100 and len(short) < len(str(path)) else str(path)


def _free(folder: str) -> int:
    stat = os.statvfs(folder)
    return stat.f_bavail * stat.f_frsize


def _at_of(token: str) -> str:
    from device.store_forward.token import parse
    return parse(token).payload.at


def _loaded(argv: list[str], prog: str) -> Config | None:
    """The configuration named on the command line; None after saying what is wrong with it."""
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--config", default="/etc/tillbox/box.toml")
    args = parser.parse_args(argv)
    try:
        return with_terminal(parse_toml(Path(args.config).read_text(encoding="utf-8"), which=args.config))
    except (OSError, UnicodeDecodeError) as why:
        print(f"{args.config} cannot be read: {why}", file=sys.stderr)
    except ConfigError as why:
        print(f"{args.config} is refused, nothing of it is used:", *(f"  {reason}" for reason in why.reasons), sep="\n",
              file=sys.stderr)
    return None


def show_config(argv: list[str]) -> int:
    config = _loaded(["--config", *argv] if argv and not argv[0].startswith("-") else argv, "tillbox config")
    if config is None:
        return 2
    for path, value in show(config):
        print(f"{path} = {value}")
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
    """Print the public half of the record key, for the cloud's key set; makes none."""
    config = _loaded(["--config", *argv] if argv and not argv[0].startswith("-") else argv, "tillbox key")
    if config is None:
        return 2
    try:
        if not os.path.lexists(config.record_key_file):
            raise Outside(f"There is no record key at {config.record_key_file}.", which="signer",
                          hint="a new journal makes one; for another, see docs/recovery.md")
        print(json.dumps({**FileSigner(config.record_key_file).jwk, "box": config.box}))
    except Outside as why:
        print(f"tillbox key: {why}", file=sys.stderr)
        return 1
    return 0


def gateway(argv: list[str]) -> int:
    """`tillbox gateway activate CODE`."""
    args, code = arguments(argv)
    config = _loaded(["--config", args.config], "tillbox gateway")
    return 2 if config is None else activate(config, code, again=args.again, vendor=args.vendor)


def main(argv: list[str]) -> int:
    config = _loaded(argv, "tillbox run")
    if config is None:
        return 2
    keep_inside()
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")
    try:
        asyncio.run(Daemon(config).run())
    except JournalUnreadable as why:
        _last_words(config, f"tillbox cannot sell: {why}")
        os._exit(EXIT_JOURNAL)       # nothing is closed: SQLite would move rows out of the WAL that a person must see first
    except sqlite3.Error as why:
        _last_words(config, f"tillbox cannot sell: journal: The journal in {config.state_dir} failed while it was used: {why} "
                            "(what it had confirmed is kept; see docs/recovery.md)")
        return EXIT_JOURNAL
    except KeyMissing as why:
        _last_words(config, f"tillbox cannot sell: {why}")
        return EXIT_KEY
    except Outside as why:
        print(f"tillbox cannot start: {why}", file=sys.stderr)     # not on the display: it may be another daemon's
        return 1
    return 0


def _last_words(config: Config, sentence: str) -> None:
    """Why nothing is sold, on standard error and, where there is one, on the display: the cashier reads no log."""
    print(sentence, file=sys.stderr, flush=True)
    zh = config.lang == "zh"
    screen = Screen("IDLE", "暂停收银，请叫技术人员" if zh else "Out of order: call the technician", notice=sentence, tone="bad",
                    lang=config.lang)
    try:
        display = display_of(config)
        if display is not None:
            asyncio.run(display.show(screen, 0))
    except Outside as why:
        print(f"tillbox cannot say so on the display either: {why}", file=sys.stderr, flush=True)
