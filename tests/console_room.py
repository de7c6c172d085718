"""A box in a folder with a console key of its fleet, and somebody at the console: scripted over a line in memory, or over a pty."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from device.console import challenge as challenges
from device.console import place as places
from device.console.line import LineGone
from device.console.session import Session
from device.console.spool import Spool
from device.console.tries import Tries
from device.identity.enrol import jwk_of
from fleet.console import code_for

TOML = '''
box = "{box}"
box_no = "00BX01"
tenant = "shop"
lang = "en"
state_dir = "{folder}"
run_dir = "{folder}"
[scanner]
kind = "none"
[keypad]
kind = "none"
[display]
kind = "file"
path = "{folder}/display.rgb"
width = 320
height = 240
[printer]
kind = "file"
path = "{folder}/paper.bin"
'''
_SHOWN = re.compile(r"challenge ([0-9A-Z-]{19})")


class Room:
    """A box named `box` whose files lie in `folder`; `code(shown)` is what head office answers to a challenge on the screen."""

    def __init__(self, folder: Path, box: str = "box-1", more: str = "") -> None:
        self.folder, self.box, self.toml = folder, box, folder / "box.toml"
        self.fleet, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        self.jwk = jwk_of(own.public_key())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "console.pub").write_text(json.dumps(jwk_of(self.fleet.public_key())))
        (folder / "encryption.key").write_bytes(own.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))
        self.toml.write_text(TOML.format(box=box, folder=folder) + more)

    def place(self) -> places.Place:
        return places.at(str(self.toml))

    def code(self, shown: str, who: str = "li", level: str = "work") -> str:
        spoken = _SHOWN.findall(shown)[-1]
        return code_for(self.fleet, self.jwk, "shop", challenges.heard(self.box, who, level, spoken))

    def session(self, script: Callable[[Callable[[], str]], Iterator[str | bytes]], **more: Any) -> str:
        """Everything a session says to the script's lines: the generator gets a function that tells what was said so far."""
        line = Scripted(script)
        boot, now_s = more.pop("boot", "boot-1"), more.pop("since_boot_s", lambda: 1000.0)
        tell = more.pop("tell", lambda entries: False)
        spool = Spool(self.folder / "console", boot, tell)
        session = Session(self.place(), line, Tries(self.folder / "console", boot, now_s), spool, boot=boot, **more)
        with contextlib.suppress(LineGone):
            session.run()
        spool.close()
        return line.said()

    def visit(self, *lines: str, level: str = "full", who: str = "li", **more: Any) -> str:
        """A login, then these lines; what was said after the login."""
        def script(said: Callable[[], str]) -> Iterator[str | bytes]:
            yield who
            yield level
            yield self.code(said(), who, level)
            yield from lines
        said = self.session(script, **more)
        return said.partition("help lists the commands.\n")[2]


class Scripted:
    """A line whose other end types one scripted line whenever the console has nothing to read, and then hangs up."""

    def __init__(self, script: Callable[[Callable[[], str]], Iterator[str | bytes]]) -> None:
        self._out = bytearray()
        self._script = script(self.said)

    def said(self) -> str:
        return self._out.decode().replace("\r\n", "\n")

    def read(self, wait_s: float) -> bytes:
        typed = next(self._script, None)
        if typed is None:
            raise LineGone("the script is over")
        return typed if isinstance(typed, bytes) else typed.encode() + b"\r"

    def write(self, data: bytes) -> None:
        self._out += data


class Terminal:
    """The real console process on a pty, and what a person there sees and types."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self._master, slave = pty.openpty()
        self.raw = b""
        self.process = subprocess.Popen([sys.executable, "-m", "device", "console", "--line", os.ttyname(slave), "--config",
                                         str(room.toml)], stderr=subprocess.PIPE)
        os.set_blocking(self._master, False)
        self._slave = slave                          # until the console has it open, or a read here would end

    def type(self, text: str) -> None:
        self.keys(text + "\r")

    def keys(self, keys: str | bytes) -> None:
        """Keys as they are, without a return."""
        left = keys.encode() if isinstance(keys, str) else keys
        while left:                                  # a console that cannot write reads nothing either
            self.drain()
            if select.select([self._master], [self._master], [], 1.0)[1]:
                left = left[os.write(self._master, left[:512]):]

    def drain(self, seconds: float = 0.0) -> None:
        """Read what is there, for at most so long after the last of it."""
        while select.select([self._master], [], [], seconds)[0]:
            self.raw += os.read(self._master, 65_536)
            self._let_go()

    def until(self, word: str, seconds: float = 30.0) -> str:
        """Everything said since the last call, up to `word`."""
        return self.until_any(word, seconds=seconds)

    def until_any(self, *words: str, seconds: float = 60.0) -> str:
        """The same, up to the first of several words at its end."""
        end, seen = time.monotonic() + seconds, b""
        while not any(word.encode() in seen for word in words):
            left = end - time.monotonic()
            assert left > 0, f"none of {words} in {seen.decode(errors='replace')!r}"
            if select.select([self._master], [], [], left)[0]:
                part = os.read(self._master, 65_536)
                seen, self.raw = seen + part, self.raw + part
                self._let_go()
        return seen.decode(errors="replace").replace("\r\n", "\n")

    def login(self, level: str = "full", who: str = "li") -> None:
        self.until("name:")
        self.login_now(level, who)

    def login_now(self, level: str = "full", who: str = "li") -> None:
        """The login, at a prompt for the name."""
        self.type(who)
        self.until("]:")
        self.type(level)
        shown = self.until("code:")
        self.type(self.room.code(shown, who, level))
        self.until(f"{self.room.box}> ")

    def command(self, line: str, seconds: float = 60.0) -> str:
        """One command's answer, from the echo to the next prompt."""
        self.type(line)
        return self.until(f"{self.room.box}> ", seconds)

    def _let_go(self) -> None:
        if self._slave >= 0:
            os.close(self._slave)
            self._slave = -1

    def unplug(self) -> None:
        self._let_go()
        if self._master >= 0:
            os.close(self._master)
            self._master = -1

    def close(self) -> None:
        self.unplug()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        if self.process.stderr is not None:
            self.process.stderr.close()
