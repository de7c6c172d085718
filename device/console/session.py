"""One session at the console: who is there, what is typed, what is answered.  Nothing is done before a login.

Knows the line, the table of commands and the login; refuses to know what a command does.  Every line it prints went through
`printing`.  The till does not stop because a console is open: this process shares nothing with the daemon but its socket.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import msgspec

from device.console import place as places
from device.console import words
from device.console.challenge import Challenge
from device.console.editor import END, STOP, Editor
from device.console.line import LineGone
from device.console.login import Login
from device.console.place import Place
from device.console.printing import table, wrapped
from device.console.spool import Spool
from device.console.tries import Tries
from device.doctor.words_zh import ZH
from device.errors import Outside

BEAT_S = 1.0
WAITING_BYTES_MAX = 64 << 10             # typed ahead of what is looked at
_LINE = re.compile(rb"[^\r\n\x03\x04]*[\r\n\x03\x04]?")      # as far as no more than one event of the editor comes of it
DELIVER_S = 20.0                         # between two looks whether the daemon takes what waits


class Wire(Protocol):
    """The line, as the session needs it: see `device.console.line`."""

    def read(self, wait_s: float) -> bytes: ...
    def write(self, data: bytes) -> None: ...


class Failed(Exception):
    """A command that did not do what it should: `code` for scripts, `sentence` for the technician."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code, self.sentence = code, sentence


class Stopped(Exception):
    """Ctrl-C, while a command ran or a question stood."""


class Ended(Exception):
    """The session is over, and the line may stay."""


class Visit(msgspec.Struct):
    """Who is here, since when, and what was done: what `handover` reports."""

    who: str
    level: str
    how: str
    since: str
    done: list[tuple[str, str]] = []             # command, outcome


class Call:
    """What a command gets: its words, the place, and the ways to speak with the person.

    `entry` is what the spool keeps of it, and `more` what it keeps at its end; `t(zh, en)` picks the session's language; `ask` puts
    a question, `secret` without an echo; `pause` waits and sees Ctrl-C.
    """

    def __init__(self, session: Session, args: str, entry: dict[str, Any]) -> None:
        self.entry, self.more = entry, dict[str, Any]()
        self.args, self.place, self.lang, self.visit, self.spool = args, session.place, session.lang, session.visit, session.spool
        self._session = session

    def t(self, zh: str, en: str) -> str:
        return zh if self.lang == "zh" else en

    def ask(self, question: str, *, secret: bool = False) -> str:
        return self._session.asked(question, secret=secret)

    def without_args(self) -> Call:
        """The same call of a command without words."""
        return Call(self._session, "", self.entry)

    def say(self, line: str) -> None:
        """A line now, before the command is over."""
        self._session.tell(line)

    def pause(self, seconds: float) -> None:
        self._session.pause(seconds)


class Session:
    """`run()` serves one visit, until `exit`, silence, or LineGone.

    `mono_s()` monotonic, `wall()` RFC 3339, `now_s()` the system's clock.
    """

    def __init__(self, place: Place, line: Wire, tries: Tries, spool: Spool, *, boot: str,
                 mono_s: Callable[[], float] = time.monotonic, now_s: Callable[[], float] = time.time,
                 wall: Callable[[], str] | None = None) -> None:
        self.place, self.spool, self.lang = place, spool, place.lang
        self.visit: Visit | None = None
        self._line, self._tries, self._boot = line, tries, boot
        self._mono_s, self._now_s, self._wall = mono_s, now_s, wall or _wall
        self._editor = Editor(words.completed)
        self._raw = b""                              # not looked at yet: the next question says whether it is secret
        self._heard_s = self._delivered_s = mono_s()

    def run(self) -> None:
        self._banner()
        try:
            while self.visit is None:
                with contextlib.suppress(Stopped):   # Ctrl-C before the login begins it anew
                    self._login()
            self._serve()
        except Ended:
            self.tell(self.t("会话已结束。", "The session is over."))
        finally:
            self.visit = None
            self._editor.forget()
            self._raw = b""

    def t(self, zh: str, en: str) -> str:
        return zh if self.lang == "zh" else en

    def tell(self, *lines: str) -> None:
        out = "".join(f"{part}\r\n" for line in lines for part in wrapped(line))
        self._line.write(out.encode())

    def asked(self, question: str, *, secret: bool = False) -> str:
        """One line for a question.  Stopped on Ctrl-C; Ended on silence or the end of input; LineGone."""
        *before, self._editor.prompt = wrapped(question + " ")
        self._editor.secret = secret
        try:
            self.tell(*before)
            self._line.write(self._editor.shown())
            line = self.next_line()
        finally:
            self._editor.secret = False
        if line == STOP:
            raise Stopped
        if line == END:
            raise Ended
        return line.strip()

    def pause(self, seconds: float) -> None:
        """Let time pass; what is typed meanwhile is kept, Ctrl-C is Stopped."""
        until = self._mono_s() + seconds
        while (left := until - self._mono_s()) > 0:
            self._hear(min(left, BEAT_S))
            if STOP.encode() in self._raw:
                self._raw = b""
                raise Stopped

    # Lines -------------------------------------------------------------------------------------------------------------

    def next_line(self) -> str:
        while True:
            if not self._raw:
                self._hear(BEAT_S)
            if self._raw and (events := self._looked_at()):
                return events[0]
            if self._mono_s() - self._delivered_s > DELIVER_S:
                self._delivered_s = self._mono_s()   # a daemon that was dead may live again, and nobody types
                self.spool.deliver()
            if not self._raw and self._mono_s() - self._heard_s > self.place.console.idle_s and self.visit is not None:
                self.tell("", self.t("太久没有动静。", "Nobody typed for too long."))
                raise Ended

    def _looked_at(self) -> list[str]:
        """Put what came to the editor, up to the end of its first line: a code pasted behind its command is not echoed."""
        line = _LINE.match(self._raw)
        assert line is not None
        self._raw = self._raw[line.end():]
        out, events = self._editor.feed(line[0])
        if out:
            self._line.write(out)
        return events

    def _hear(self, wait_s: float) -> None:
        if data := self._line.read(wait_s):
            self._heard_s = self._mono_s()
            self._raw = (self._raw + data)[-WAITING_BYTES_MAX:]

    # Who is here -------------------------------------------------------------------------------------------------------

    def _banner(self) -> None:
        self.tell("", f"Tillbox {self.place.software}  {self.t('技术员控制台', 'technician console')}  {self.place.box}",
                  self.t("help、lang zh|en、exit 不需登录。", "help, lang zh|en and exit need no login."))
        if self.place.fault is not None:
            code, sentence = self.place.fault
            self.tell(self.t(ZH.get(code, (sentence, ""))[0], sentence) + f" [{code}]")
        if self.place.unclaimed:
            self.tell(self.t("这台收银机还没有入网：enrol 主机:端口 不需登录，凭一次性码。",
                             "This box is nobody's yet: enrol HOST:PORT needs no login, but a one-use code."))

    def reread(self) -> Place:
        """The place as its files say it now; the session's language stays."""
        self.place = places.at(self.place.path)
        return self.place

    def _login(self) -> None:
        asked, how = Login(self, self.place, self._tries, boot=self._boot, mono_s=self._mono_s, now_s=self._now_s).done()
        self._open(asked, how)

    def _open(self, asked: Challenge, how: str) -> None:
        self._tries.clear()
        self.visit = Visit(asked.who, asked.level, how, self._wall())
        self.spool.visitor(asked.who, asked.level)
        self._record("login", "", "ok")
        self.tell(self.t(f"{asked.who}，级别 {asked.level}。help 列出命令。",
                         f"{asked.who}, level {asked.level}. help lists the commands."))
        if self.place.faults:
            self.tell(self.t("box.toml 不能用，doctor 说明原因。", "box.toml is refused; doctor says why."))

    # Commands ------------------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        while True:
            try:
                line = self.asked(f"{self.place.box}>")
            except Stopped:
                continue
            if line:
                self.tell(self._answered(line))

    def _answered(self, line: str) -> str:
        """Do one line; the last line of its answer, the same for every script: `ok`, or `failed: CODE sentence`."""
        assert self.visit is not None
        try:
            said = words.parsed(line)
        except words.Wrong as why:
            return f"failed: USAGE {self.t(*why.told)}"
        command = said.command
        if not words.allowed(command, self.visit.level):
            return "failed: LEVEL " + self.t(f"{command.name} 需要级别 {command.level}",
                                             f"{command.name} wants level {command.level}")
        return self._answered_for(said)

    def _answered_for(self, said: words.Said) -> str:
        command = said.command
        if said.dry:
            self.tell(self.t(*command.dry))
            return "ok"
        if command.does == "session":
            return self.own(said)
        try:
            if command.dangerous:
                typed = self.asked(self.t(f"这是 {self.place.box}。键入它的名字以继续:",
                                          f"This is {self.place.box}. Type its name to go on:"))
                if typed != self.place.box:
                    return "failed: NAME " + self.t("名字不符，什么也没做", "that is not its name: nothing was done")
            return self._done(said)
        except Stopped:
            return "failed: STOPPED " + self.t("已停", "stopped")

    def _done(self, said: words.Said) -> str:
        command = said.command
        entry = self.spool.entry(command.name, said.args, self._wall())
        call = Call(self, said.args, entry)
        try:
            self.spool.begun(entry)
        except OSError as why:                       # a dead card is what some visits are about
            self.tell(self.t(f"记不下来：{why.strerror}", f"not kept for the journal: {why.strerror}"))
        outcome, last = "ok", "ok"
        try:
            for line in self._handler(command)(call):
                self.tell(line)
        except Failed as why:
            outcome, last = why.code, f"failed: {why.code} {why.sentence}"
        except Outside as why:
            outcome, last = "OUTSIDE", f"failed: OUTSIDE {why}"
        except Stopped:
            outcome, last = "STOPPED", "failed: STOPPED " + self.t("已停", "stopped")
        except (LineGone, Ended):
            outcome = "LINE"
            raise
        except Exception as why:  # noqa: BLE001 - a fault of ours in one command must leave the others to the technician
            outcome, last = "FAULT", f"failed: FAULT {type(why).__name__}: {why}"
        finally:
            if self.visit is not None:
                self.visit.done.append((command.name, outcome))
            self.spool.ended(entry, outcome, **call.more)
        return last

    def claimed(self, said: words.Said) -> None:
        """Enrol a box that is nobody's, before there is anything to log in by; then the session ends, for the box is another."""
        self.spool.visitor("nobody", "")
        last = self._answered_for(said)
        self.tell(last)
        if last == "ok" and not said.dry:
            raise Ended

    def _handler(self, command: words.Command) -> Callable[[Call], Iterable[str]]:
        module, name = command.does.split(":")
        handler: Any = getattr(importlib.import_module(f"device.console.{module}"), name)
        return handler

    def _record(self, verb: str, args: str, outcome: str) -> None:
        entry = self.spool.entry(verb, args, self._wall())
        with contextlib.suppress(OSError):
            self.spool.begun(entry)
            self.spool.ended(entry, outcome)

    def own(self, said: words.Said) -> str:
        """The words that the session itself answers, before a login, too; how it ended."""
        if said.command.name == "lang":
            self.lang = said.args
        elif said.command.name == "exit":
            raise Ended
        elif said.args and " ".join(said.args.split()).lower() not in words.BY_NAME:
            near = words.nearest(said.args)
            return "failed: USAGE " + self.t(f"没有这个命令{'；是 ' + near + ' 吗？' if near else ''}，help 列出全部",
                                             f"that is no command{f'; did you mean {near}?' if near else ''} (help lists all)")
        else:
            self.tell(*_help(said.args, self.lang))
        return "ok"


def _help(name: str, lang: str) -> Iterator[str]:
    """The whole table, or what one command does."""
    at = 0 if lang == "zh" else 1
    command = words.BY_NAME.get(" ".join(name.split()).lower())
    if command is None:
        yield from table(((f"{one.name} {one.asks}".strip(), one.level, one.help[at]) for one in words.COMMANDS), (21, 4))
        yield ("每个命令可加 --dry：只说会做什么。最后一行是 ok 或 failed: 代码 句子。" if lang == "zh" else
               "Each takes --dry: says what it would do. The last line is ok, or failed: CODE sentence.")
        return
    yield f"{command.name} {command.asks}".rstrip()
    yield "  " + command.help[at]
    yield "  --dry: " + command.dry[at]
    if command.level:
        yield ("  级别 " if lang == "zh" else "  level ") + command.level + (
            ("，要键入收银机名" if lang == "zh" else ", and the box's name is typed") if command.dangerous else "")


def _wall() -> str:
    import datetime
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")
