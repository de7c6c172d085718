"""A channel's line on virtual time: what `Lines` is to a real channel, over the local server's `exchange`.

Knows what a bad line does to a request and to its answer.  Refuses to know what either says.  A request that has left arrives,
whatever becomes of the box that sent it.
"""

from __future__ import annotations

import asyncio
import contextvars
from typing import NamedTuple

from device.drivers.channels.codec_bytes import Reply, Request
from device.drivers.channels.https import REPLY_BYTES_MAX, NoAnswer
from sim.channels.server import LOST, Answer, ChannelServer
from sim.virtual.fate import Fate

READ_S, WHOLE_S = 15.0, 35.0           # as HttpsChannel is set up on a box
WAYS_S = (.02, .05, .1, .4, 1.5)       # how long a request, or its answer, is on the line
LATE_S = (16, 240)                     # of a request stuck on its way: its sender has given up by then
AWAY_S = (5, 150)                      # how long a line is dead when it dies


ONCE = "/checkin"                      # a key that comes of it twice, unseen, leaves the terminal without any
LINE = ("line_dead", "late_request", "told_twice", "other_amount", "deaf")


class About(NamedTuple):
    """Whose order a call is about, and whether it is only watched."""

    order_no: str = ""
    watch: bool = False


NOBODY = About()
ABOUT: contextvars.ContextVar[About] = contextvars.ContextVar("about", default=NOBODY)


class Exchange:
    """One server's side of the line, for all boots of a box: its faults by `fate`, and what is on its way to it.

    `filed` is the call that brings a bill's rows.
    """

    def __init__(self, name: str, server: ChannelServer, fate: Fate, *, client: str, filed: str) -> None:
        self.name, self.server, self.fate, self._client, self._filed = name, server, fate, client, filed
        fate.known(name, (*server.faults, *LINE))
        self.away_until_s = 0.0        # nothing gets through
        self.deaf: tuple[str, ...] = ()    # calls that nobody there answers; bills lie on another machine
        self._about = NOBODY
        server.choose = self._choose

    def carry(self, request: Request, about: About) -> Answer:
        """The request arrives."""
        self._about = about
        return self.server.exchange(request.method, request.path, request.headers, request.body, self._client)

    def _choose(self, call: str) -> str:
        no, watch = self._about
        if call in self.deaf:
            return "down"
        kinds, named = self.kinds(call), "watch" if watch else "bill_file" if call == self._filed else call
        return self.fate.choose(self.name, named, kinds, no, [k for k in kinds if k in RARE or k.startswith("bill_")])

    def kinds(self, call: str) -> list[str]:
        """The faults that mean something for `call`."""
        return [kind for kind in self.server.faults if self._matters(kind, call)]

    def _matters(self, kind: str, call: str) -> bool:
        if kind in ONLY:
            return call in ONLY[kind]
        return call == self._filed or not kind.startswith("bill_")


# Kinds that change nothing but these calls.
UNDOS = ("close", "cancel", "undo", "reverse", "codepay_reverse")
ASKING = ("query", "refund_query")
CHARGES = ("pay", "charge", "micropay", "codepay")
MONEY = (*ASKING, *CHARGES, "refund")
RARE: dict[str, tuple[str, ...]] = {
    "paying": CHARGES, "bill_soon": ("bill",), "bill_elsewhere": ("bill",), "retry_flag": ("cancel",), "no_action": ("cancel",),
    "unmoved": ("refund",), "beaten": ("cancel", "close")}
ONLY = RARE | {"unclear": ("query",), "half_booked": ("query",), "wrong_amount": MONEY}


class Wire:
    """The box's end of it, for one boot."""

    handshakes = resumed = 0

    def __init__(self, exchange: Exchange) -> None:
        self._exchange, self._fate = exchange, exchange.fate

    async def ask(self, request: Request, bytes_max: int = REPLY_BYTES_MAX) -> Reply:
        """As Lines.ask."""
        loop, far, about = asyncio.get_running_loop(), self._exchange, ABOUT.get()
        random, name = self._fate.random, far.name
        if loop.time() >= far.away_until_s and self._fate.strikes(name, "line_dead", about.order_no):
            far.away_until_s = loop.time() + random.uniform(*AWAY_S)
        if loop.time() < far.away_until_s:
            await asyncio.sleep(random.choice((.01, 5)))
            raise NoAnswer("gone", f"no connection to {name} in time")
        if not request.path.endswith(ONCE) and self._fate.strikes(name, "late_request", about.order_no):
            loop.call_later(random.uniform(*LATE_S), far.carry, request, about)
            await asyncio.sleep(READ_S)
            raise NoAnswer("slow", f"{name} did not answer in time")
        arrived: asyncio.Future[Answer] = loop.create_future()
        loop.call_later(random.choice(WAYS_S), lambda: _settle(arrived, far.carry(request, about)))
        answer = await arrived
        if answer.kind == "slow":
            late_s = random.choice((4.0, 12.0, 40.0))
            await asyncio.sleep(min(late_s, READ_S))
            if late_s > READ_S:
                raise NoAnswer("slow", f"{name} did not answer in time")
        if answer.kind in LOST:
            cut = random.random() < .5
            await asyncio.sleep(.1 if cut else READ_S)
            if answer.kind == "truncated":
                raise NoAnswer("lying", "the reply broke off half way")
            raise NoAnswer("gone", "the line was closed before an answer came") if cut else \
                NoAnswer("slow", f"{name} did not answer in time")
        await asyncio.sleep(random.choice(WAYS_S))
        if len(answer.body) > bytes_max:
            raise NoAnswer("lying", f"the reply is far longer than any {name} sends")
        return Reply(answer.status, {n.lower(): v for n, v in answer.headers.items()}, answer.body)

    async def close(self) -> None:
        """Nothing is held open."""


def _settle(arrived: asyncio.Future[Answer], answer: Answer) -> None:
    if not arrived.done():                            # else the box is dead, or asks no more
        arrived.set_result(answer)
