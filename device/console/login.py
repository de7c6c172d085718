"""The login: a name, a level, a challenge, and an answer that proves head office said yes.

Knows codes and signatures, and that a try is on the card before it is compared; refuses to know what a session may then do.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Protocol

from device.console import challenge as challenges
from device.console import words
from device.console.challenge import LEVELS, LIFE_S, WHO, Challenge
from device.console.place import Place, login_key
from device.console.sshsig import BEGIN as SIGNATURE_BEGIN
from device.console.sshsig import END as SIGNATURE_END
from device.console.sshsig import LINES_MAX as SIGNATURE_LINES_MAX
from device.console.tries import Tries
from device.errors import Outside

WRONG_MAX = 5                            # answers to one challenge


class Talk(Protocol):
    """The session, as the login needs it."""

    def t(self, zh: str, en: str) -> str: ...
    def tell(self, *lines: str) -> None: ...
    def asked(self, question: str, *, secret: bool = False) -> str: ...
    def own(self, said: words.Said) -> str: ...
    def reread(self) -> Place: ...
    def claimed(self, said: words.Said) -> None: ...


class Login:
    """One login over `session`.  `mono_s()` monotonic, `now_s()` the system's clock, which a certificate is held against."""

    def __init__(self, session: Talk, place: Place, tries: Tries, *, boot: str, mono_s: Callable[[], float],
                 now_s: Callable[[], float]) -> None:
        self._s, self._place, self._tries, self._boot, self._mono_s, self._now_s = session, place, tries, boot, mono_s, now_s

    def done(self) -> tuple[Challenge, str]:
        """The challenge that was answered, and how: `code` or `ssh`.  Stopped, Ended and LineGone pass through."""
        asked: Challenge | None = None
        born_s, failed = 0.0, 0
        who = level = ""
        while True:
            if not who:
                who = self._first("姓名:", "name:")
                if not WHO.fullmatch(who):
                    if who:
                        self._s.tell(self._s.t("姓名只用字母、数字和 . _ @ -", "a name is letters, digits and . _ @ -"))
                    who = ""
                continue
            if not level:
                level = self._first("级别 look/work/full [work]:", "level look/work/full [work]:") or "work"
                if level not in LEVELS:
                    self._s.tell(self._s.t("级别是 look、work 或 full。", "a level is look, work or full."))
                    level = ""
                continue
            if asked is None or self._mono_s() - born_s > LIFE_S or failed >= WRONG_MAX:
                self._place = self._s.reread()       # a console may have waited for weeks: the box has its name of today
                asked = challenges.fresh(self._place.box, who, level, self._boot, secrets.randbits(50))
                born_s, failed = self._mono_s(), 0
                self._show(asked)
            line = self._first("代码:", "code:")
            if not line:
                self._show(asked)
            elif line.startswith(SIGNATURE_BEGIN):
                lines = self._pasted(line)
                if not self._late(born_s) and self._signed(asked, lines):
                    return asked, "ssh"
                asked = None
            elif not challenges.looks_like_code(line):
                self._s.tell(self._s.t("代码是八个字母或数字；空行再看一次挑战。",
                                 "a code is eight letters and digits; an empty line shows the challenge again."))
            elif self._late(born_s):
                asked = None
            elif self._right(asked, line):
                return asked, "code"
            else:
                failed += 1

    def _first(self, zh: str, en: str) -> str:
        """One line before the login; the few words that need none are answered here."""
        while True:
            line = self._s.asked(self._s.t(zh, en))
            try:
                said = words.parsed(line)
            except words.Wrong:
                return line
            if said.command.name == "enrol" and self._place.unclaimed:
                self._s.claimed(said)                # its one-use code is head office's word, and there is no other yet
            elif said.command.level:
                self._s.tell(self._s.t("先登录。", "That needs a login first."))
            else:
                if (last := self._s.own(said)) != "ok":
                    self._s.tell(last)

    def _show(self, asked: Challenge) -> None:
        t, spoken = self._s.t, asked.spoken()
        self._s.tell(t("请向总部读出：", "Read this to head office:"),
                     t(f"  收银机 {asked.box}   姓名 {asked.who}   级别 {asked.level}",
                       f"  box {asked.box}   name {asked.who}   level {asked.level}"),
                     t(f"  挑战 {spoken}   （30 分钟内有效）", f"  challenge {spoken}   (good for 30 minutes)"))

    def _right(self, asked: Challenge, line: str) -> bool:
        if not self._counted():
            return False
        try:
            key = login_key(self._place)
        except Outside as why:
            self._s.tell(str(why))
            return False
        if challenges.answers(asked, key, line):
            return True
        self._s.tell(self._s.t("代码不对。", "That is not the code."))
        return False

    def _late(self, born_s: float) -> bool:
        """Whether the challenge is over; whoever answered it is told."""
        late = self._mono_s() - born_s > LIFE_S
        if late:
            self._s.tell(self._s.t("挑战已过 30 分钟，换一个新的。",
                                   "the challenge is older than 30 minutes: here is another."))
        return late

    def _pasted(self, first: str) -> list[str]:
        """A signature's lines, read on to the last."""
        lines = [first]
        while lines[-1] != SIGNATURE_END and len(lines) < SIGNATURE_LINES_MAX:
            lines.append(self._s.asked(""))
        return lines

    def _signed(self, asked: Challenge, lines: list[str]) -> bool:
        if not self._place.console.ssh_ca:
            self._s.tell(self._s.t("这台收银机没有 console.ssh_ca。", "this box names no console.ssh_ca."))
            return False
        if not self._counted():
            return False
        from device.console.sshsig import accepted
        try:
            accepted("\n".join(lines), asked, self._place.console.ssh_ca, self._now_s())
        except ValueError as why:
            self._s.tell(self._s.t(f"签名不被接受：{why}", f"The signature is not taken: {why}"))
            return False
        return True

    def _counted(self) -> bool:
        """Take a try, on the card before anything is compared."""
        if self._tries.count():
            return True
        left = self._tries.wait_s()
        self._s.tell(self._s.t(f"试错太多：还要等 {left} 秒。", f"Too many wrong tries: wait {left} s more."))
        return False
