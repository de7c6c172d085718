"""The cloud as an outside thing that answers questions: one effect, one signed question, one proven answer.

Knows ids, patience and signatures; refuses to know the connection (publishing is handed in) and what a sale is.  An answer that
comes when nobody waits for it any more is told all the same: a lease in it must be given back.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import ClassVar

import msgspec

from device.errors import DriverGone
from device.mqtt import ask_wire, wire
from device.txn.effects import AskSale, Effect
from device.txn.inputs import Input, SaleAnswered

log = logging.getLogger("tillbox")

PATIENCE_S = 8.0                         # a cashier and a customer stand there
ASKED_MAX = 64                           # questions whose late answers are still known


class Cloud:
    """`publish(name, payload)` False when the line is down; `verifiers` the cloud's keys by kid.

    `sign` gives 64 raw bytes under the key that `kid` names now; a chip takes its time, and raises DriverGone when it cannot.
    """

    does: ClassVar[frozenset[type[Effect]]] = frozenset({AskSale})
    at_once = 1

    def __init__(self, box: str, kid: Callable[[], str], sign: ask_wire.Sign, verifiers: ask_wire.Verifiers,
                 publish: Callable[[str, bytes], bool], *, patience_s: float = PATIENCE_S) -> None:
        self._box, self._kid, self._sign, self._verifiers = box, kid, sign, verifiers
        self._publish, self._patience_s = publish, patience_s
        self._waits: dict[str, asyncio.Future[ask_wire.Answer]] = {}
        self._asked: dict[str, str] = {}             # id to order number, until its one answer came
        self._late: asyncio.Queue[SaleAnswered | None] = asyncio.Queue(ASKED_MAX)

    async def inputs(self) -> AsyncIterator[Input]:
        """Answers that came too late for `do`, until closed."""
        while (late := await self._late.get()) is not None:
            yield late

    async def do(self, effect: Effect) -> Input:
        """The answer, or one that says why there is none."""
        assert isinstance(effect, AskSale), effect
        return told(await self.ask(ask_wire.Ask(self._box, effect.ask_id, "sale_by_order", effect.order_no)))

    async def ask(self, ask: ask_wire.Ask) -> ask_wire.Answer:
        """The proven answer to any question, or one of our own that says why there is none."""
        none = ask_wire.Answer(self._box, ask.id, ask.order_no)
        try:
            payload = await asyncio.to_thread(ask_wire.ask_encoded, ask, self._kid(), self._sign)
        except DriverGone as why:
            return msgspec.structs.replace(none, why=why.what[:500])
        if not self._publish("ask", payload):
            return msgspec.structs.replace(none, why="the line to the cloud is down")
        while len(self._asked) >= ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[ask.id] = ask.order_no
        wait = self._waits[ask.id] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._patience_s):
                return await wait
        except TimeoutError:
            return msgspec.structs.replace(none, why="the cloud does not answer")
        finally:
            del self._waits[ask.id]

    def came(self, payload: bytes) -> None:
        """A message on `answer`: proven, to this box and to a question of it, once; anything else is logged and dropped."""
        try:
            answer = ask_wire.answer_decoded(payload, self._verifiers)
        except wire.WireError as why:
            log.warning("an answer of the cloud was refused: %s", why.sentence)
            return
        if answer.box != self._box or self._asked.get(answer.id) != answer.order_no:
            log.warning("an answer of the cloud was to no open question of this box")
            return
        del self._asked[answer.id]
        wait = self._waits.get(answer.id)
        if wait is not None and not wait.done():
            wait.set_result(answer)
        elif answer.order_no and not self._late.full():
            self._late.put_nowait(told(answer))

    async def close(self) -> None:
        if not self._late.full():
            self._late.put_nowait(None)


def told(answer: ask_wire.Answer) -> SaleAnswered:
    lease = answer.lease
    if lease is None:
        return SaleAnswered(answer.id, answer.order_no, answer.why or "the cloud does not say why")
    return SaleAnswered(answer.id, answer.order_no, answer.why, lease.id, lease.ms, bytes(answer.sale), answer.at,
                        tuple((left.order_no, left.fen) for left in lease.left), answer.parts)
