"""A till whose printer's line can be cut at any byte: the real box and the real driver, with nothing between them that waits."""

from __future__ import annotations

from collections.abc import Callable

from device.drivers.printer import escpos_bytes as escpos
from device.drivers.printer.driver import Limits, Printer
from device.errors import DriverBusy, DriverGone, PrintUnproven
from device.txn.effects import Effect
from device.txn.inputs import DrawerKicked, PrintRefused
from sim.devices.printer import PrinterModel
from tests.counter import Counter

NEVER_SLOW = Limits(slow_s=0.0, proof_s=0.0, line_s=0.0)


class BrokenLine:
    """A line straight into the model, which breaks for good after `left` bytes were written and is whole when opened again.

    `cut` breaks it so many bytes into the next job; with `silent` the writer is not told, as a kernel that has taken the bytes
    does not; `broke` is called then.
    """

    name, byte_s = "here", 0.0

    def __init__(self, model: PrinterModel, *, reads: bool = True) -> None:
        self.model, self.reads, self.left, self.is_open = model, reads, 1 << 30, False
        self.cut, self.silent = 0, False
        self.broke: Callable[[], None] = lambda: None
        self._heard = bytearray()
        model.say = self._heard.extend

    async def open(self) -> None:
        self.is_open, self.left = True, 1 << 30

    async def write(self, data: bytes) -> None:
        if not self.left and not self.silent:
            raise DriverGone("broken", which="printer")
        if self.cut and data.startswith(escpos.INIT + escpos.CHINESE_ON):
            self.left, self.cut = self.cut, 0
        taken, self.left = data[:self.left], max(0, self.left - len(data))
        self.model.receive(taken)
        if len(taken) < len(data):
            self.broke()
        if len(taken) < len(data) and not self.silent:
            raise PrintUnproven("broken", which="printer")

    async def read(self, wait_s: float) -> bytes:
        if not self.left:
            raise DriverGone("broken", which="printer")
        heard = bytes(self._heard)
        self._heard.clear()
        return heard

    async def close(self) -> None:
        self.is_open = False


class PaperTill(Counter):
    """A counter whose papers go through a real driver into `model`.  `serve` lets it work until nothing is left to do."""

    def __init__(self, model: PrinterModel, *, reads: bool = True) -> None:
        self.model, self.reads, self.work = model, reads, []
        self.line = BrokenLine(model, reads=reads)
        self.driver = Printer(self.line, limits=NEVER_SLOW)
        super().__init__(printer=False)

    def start_up(self) -> None:
        """A box that starts knows nothing of the line it had."""
        self.work = []
        self.line = BrokenLine(self.model, reads=self.reads)
        self.driver = Printer(self.line, limits=NEVER_SLOW)
        super().start_up()

    def _answer(self, effect: Effect) -> None:
        super()._answer(effect)
        if effect.part == "printer":
            self.work.append(effect)

    async def serve(self) -> None:
        """As the runner does; what the printer says of its health is said to the box as well."""
        while self.work:
            effect = self.work.pop(0)
            try:
                answer = await self.driver.do(effect)
            except (DriverGone, DriverBusy) as why:
                answer = (PrintRefused(effect.job, self.driver.word, why.what) if type(effect).__name__ == "Print"
                          else DrawerKicked(effect.kick))
            self.tell(answer)

    async def look(self) -> None:
        """The printer's own look at itself, and whatever follows from it."""
        await self.driver._look()
        while self.driver._news:
            self.tell(self.driver._news.popleft())
        await self.serve()
