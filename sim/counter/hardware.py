"""Which device of each kind stands on the counter, and its cable: pty, TCP or file.  They change between two customers.

Knows cables and the sections of `box.toml` that name them; what a device does is its model's.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from pathlib import Path
from typing import Any

from sim.devices.pole import Adm788, Aedex, Cd5220, Dsp800, EpsonDmd, Led8, Pole, PolePort
from sim.devices.printer import MODEL, PrinterModel
from sim.devices.printer_ports import PtyPort, TcpPort
from sim.devices.scanner import ScannerModel, open_fifo

POLES: dict[str, type[Pole]] = {"cd5220": Cd5220, "epson": EpsonDmd, "aedex": Aedex, "adm788": Adm788, "dsp800": Dsp800,
                                "led8": Led8}


class FilePort:
    """The printer behind a FIFO: bytes go in, and no answer ever comes."""

    def __init__(self, model: PrinterModel, path: Path) -> None:
        self.model, self.path = model, path
        path.unlink(missing_ok=True)
        self._fd = open_fifo(path)
        self._end_r, self._end_w = os.pipe()
        model.say = lambda data: None
        self._thread = threading.Thread(target=self._serve, name="printer-file", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.write(self._end_w, b".")
        self._thread.join(5)
        self.path.unlink(missing_ok=True)
        for fd in (self._fd, self._end_r, self._end_w):
            os.close(fd)

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._fd, self._end_r], [], [])
            if self._end_r in ready:
                return
            with contextlib.suppress(BlockingIOError):
                self.model.receive(os.read(self._fd, 4096))


Port = TcpPort | PtyPort | FilePort


class Hardware:
    """The devices of one counter in `folder`/dev.  `sections` of box.toml are {} until something else than usual was chosen."""

    def __init__(self, folder: Path, printer: PrinterModel) -> None:
        self._dev, self._model = folder / "dev", printer
        self.sections: dict[str, Any] = {}
        self.pole: PolePort | None = None

    def scanner(self, kind: str) -> ScannerModel:
        """A scanner of `kind`, plugged in."""
        path = self._dev / "scanner"
        self.sections["scanner"] = {"kind": kind, "path": str(path)}
        return ScannerModel(path, mode=kind)

    def printer(self, kind: str) -> Port:
        """The printer behind another cable."""
        path = self._dev / "printer"
        if kind == "tcp":
            port: Port = TcpPort(self._model)
            self.sections["printer"] = {"kind": "tcp", "host": "127.0.0.1", "port": port.port, "model": MODEL}
        elif kind == "file":
            port = FilePort(self._model, path)
            self.sections["printer"] = {"kind": "file", "path": str(path)}
        else:
            port = PtyPort(self._model, path)
            self.sections["printer"] = {"kind": kind, "path": str(path), **({"baud": 115_200} if kind == "serial" else {})}
        return port

    def display(self, kind: str) -> None:
        """A pole of that command set on a serial port; `file` takes it away."""
        self.unplug()
        self.sections.pop("display", None)
        if kind in POLES:
            self.pole = PolePort(POLES[kind](), str(self._dev / "pole"))
            self.sections["display"] = {"kind": "pole", "path": str(self._dev / "pole"), "dialect": kind}

    def sound(self, kind: str) -> None:
        path = self._dev / ("wire" if kind == "wire" else "sound.wav")
        if kind == "wire":
            path.touch()
        self.sections["sound"] = {"kind": kind, **({"path": str(path)} if kind in ("wire", "file") else {})}

    def plugged(self, on: bool) -> None:
        """The pole's cable."""
        if self.pole is not None:
            self.pole.plug() if on else self.pole.unplug()

    def shown(self) -> list[str]:
        """What the pole's glass says."""
        return [row.strip() for row in self.pole.pole.rows()] if self.pole is not None else []

    def unplug(self) -> None:
        if self.pole is not None:
            with contextlib.suppress(OSError):
                self.pole.unplug()
            self.pole = None
