"""Commands of the cloud at the box: proven, bound to this connection, done once, answered on `cmd/res`.

Knows the order of the doors: signature by a command key, this box, this session, then the core's table and journal; refuses to
know what a command does.  What is not proven gets no answer; what is refused is counted.  An answer leaves after its row is on
the card; one that is lost on the way is asked for again, under the same id.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec

from device.errors import Outside
from device.mqtt import cmd_wire
from device.mqtt.cmd_wire import Cmd, CmdAnswer
from device.mqtt.wire import WireError
from device.txn.desk import Told, Verdict
from device.txn.earlier import told_by
from device.txn.inputs import Asked

log = logging.getLogger("tillbox")

WAITING_MAX = 16                         # commands in line; the cloud sends what is too many after the next hello
REMEMBERED_MAX = 8                       # answers to questions, for whoever asks again under the same id
QUESTION_S_MAX = 120.0


class Commands:
    """`came` takes a payload of `cmd`; `run` does one command after the other, until cancelled.

    `session()` is the nonce of this connection's hello; `ask` puts a command to the core; `publish(name, payload)` False when the
    line is down; `inquiries` by verb; `recalled(order_no)` the journal's rows of a sale; `forward()` ends the pauses of sending;
    `update(args)` takes a wish for a release, or says why it cannot;
    `wall()` gives RFC 3339.
    """

    def __init__(self, box: str, verifiers: cmd_wire.Verifiers, *, session: Callable[[], str],
                 ask: Callable[[Asked], Awaitable[Verdict]], publish: Callable[[str, bytes], bool],
                 inquiries: Mapping[str, Callable[[str], Awaitable[Any]]], recalled: Callable[[str], tuple[bytes, ...]],
                 forward: Callable[[], object], update: Callable[[str], str], wall: Callable[[], str]) -> None:
        self.refused: Counter[str] = Counter()
        self._box, self._verifiers, self._session = box, verifiers, session
        self._ask, self._publish, self._inquiries = ask, publish, inquiries
        self._recalled, self._forward, self._update, self._wall = recalled, forward, update, wall
        self._line: asyncio.Queue[Cmd] = asyncio.Queue(WAITING_MAX)
        self._answers: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def came(self, payload: bytes) -> None:
        try:
            cmd = cmd_wire.cmd_decoded(payload, self._verifiers)
        except WireError as why:
            self._refuse(why.name, why.sentence)
            return
        if cmd.box != self._box:
            self._refuse("CMD_BOX", f"it is for box {cmd.box}")
        elif not self._session() or cmd.session != self._session():
            self._refuse("CMD_SESSION", f"{cmd.id} was for an earlier connection")
            self._tell(cmd, Told(False, "that command was for an earlier connection", "session"))
        elif self._line.full():
            self._refuse("CMD_BUSY", f"{cmd.id} is one too many")
            self._tell(cmd, Told(False, "too many commands wait already", "busy"))
        else:
            self._line.put_nowait(cmd)

    async def run(self) -> None:
        while True:
            cmd = await self._line.get()
            log.info("command %s %s by %s", cmd.id, cmd.verb if cmd.verb in cmd_wire.VERBS else "unknown", cmd.by)
            if cmd.session == self._session():
                await self._do(cmd)

    async def _do(self, cmd: Cmd) -> None:
        answer, answered = None, ""
        inquiry = self._inquiries.get(cmd.verb)
        if inquiry is not None and cmd_wire.fault_of(cmd.verb, cmd.args, cmd.by) is None:
            answer, answered = await self._answer(cmd, inquiry)
        recalled = self._recalled(cmd.args.split()[0]) if cmd.verb == "refund" and cmd.args else ()
        verdict = await self._ask(Asked(cmd.id, cmd.verb, cmd.args, cmd.by, answered, recalled))
        told = verdict.told
        assert told is not None, cmd.verb
        if not told.ok:
            self.refused[f"CMD_{told.name.upper()}"] += bool(verdict.facts)
        elif cmd.verb == "forward now" and verdict.facts:
            self._forward()
        elif cmd.verb == "update" and (fault := self._update(cmd.args)):     # whoever asks again may have been cut before it
            told = Told(False, fault, "slots")
        elif answered == "failed":
            told = Told(False, str(answer), "failed")
        self._tell(cmd, told, answer)

    async def _answer(self, cmd: Cmd, inquiry: Callable[[str], Awaitable[Any]]) -> tuple[Any, str]:
        """The answer to a question, and what its record says became of it."""
        key = (cmd.id, cmd.verb)
        if key in self._answers:
            return self._answers[key], "answered"
        try:
            async with asyncio.timeout(QUESTION_S_MAX):
                answer = await inquiry(cmd.args)
        except TimeoutError:
            return "it took too long", "failed"
        except Outside as why:
            return str(why), "failed"
        except Exception as why:  # noqa: BLE001 - asked again after each start, a fault of ours in it would end every start
            log.exception("the answer to %s failed", cmd.verb)
            return f"a fault of the box's own: {type(why).__name__}", "failed"
        self._answers[key] = answer
        while len(self._answers) > REMEMBERED_MAX:
            self._answers.popitem(last=False)
        return answer, "answered"

    def _tell(self, cmd: Cmd, told: Told, answer: Any = None) -> None:
        if told.ok:
            said = CmdAnswer(self._box, cmd.id, True, fitting(answer if answer is not None else told.said), at=self._wall())
        else:
            said = CmdAnswer(self._box, cmd.id, False, error=told.said[:500], name=told.name, at=self._wall())
        if not self._publish("cmd/res", cmd_wire.answer_encoded(said)):
            log.info("the answer to command %s did not leave; it is asked for again", cmd.id)

    def _refuse(self, name: str, sentence: str) -> None:
        self.refused[name] += 1
        log.warning("a command of the cloud was refused: %s: %s", name, sentence)


def rows_of_sale(recall: Callable[[str], Iterable[bytes]], no: str) -> tuple[bytes, ...]:
    """The journal's rows of the sale that `no` names, its own number or one of its orders'; what went back stands among them."""
    rows = tuple(recall(no))
    sale = told_by(rows, no)[0]
    return rows if sale is None or sale.order_no == no else tuple(recall(sale.order_no))


def fitting(answer: Any) -> msgspec.Raw:
    """`answer` as JSON that fits its topic: a list in it loses its first half until it does, and `cut` says so."""
    told = msgspec.json.encode(answer)
    while len(told) > cmd_wire.ANSWER_MAX_BYTES - 1024:
        longest = max((v for v in answer.values() if isinstance(v, list)), key=len, default=[]) if isinstance(answer, dict) else []
        if not longest:
            return msgspec.Raw(msgspec.json.encode({"cut": True}))
        answer = {name: v[(len(v) + 1) // 2:] if v is longest else v for name, v in answer.items()} | {"cut": True}
        told = msgspec.json.encode(answer)
    return msgspec.Raw(told)
