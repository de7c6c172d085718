"""Adapter to python-escpos, for a printer whose profile needs other bytes than ours: `printer.backend = "escpos"`.

Knows the library's profiles, its image encodings, and its traps: parsing that costs a third of a second, a temporary
folder left behind by every import, a root log handler nobody asked for, and a pickle that must not lie where others can
write.  Text stays with our own encoder, since the library's loses Chinese punctuation and passes control characters on.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from device.drivers.printer import escpos_bytes as escpos
from device.errors import ConfigError
from device.txn.effects import PaperPart

PICKLE_DIR_KEY = "ESCPOS_CAPABILITIES_PICKLE_DIR"
FEED_WITHOUT_CUTTER = b"\x1bd\x06"

_importing = threading.Lock()


class LibraryEncoder:
    """`encode` for the printer driver: LibraryEncoder(profile, pickle_dir)(paper, columns) gives one job's bytes.

    `profile` is a name of the library's list ("default", "TM-T88V", "POS-5890", "simple", ...); `pickle_dir` a folder
    of our own, made 0700.  ConfigError for an unknown profile or a folder that others may write.  Blocking: the first
    use imports the library.
    """

    def __init__(self, profile: str, pickle_dir: str | Path) -> None:
        self._profile_name, self._pickle_dir = profile, Path(pickle_dir)
        self._lib: Any = None

    def __call__(self, paper: Iterable[PaperPart], columns: int = escpos.COLUMNS_80MM) -> bytes:
        parts = {"QrCode": self._qr, "Cut": self._cut}
        body = (parts.get(type(part).__name__, escpos.part_bytes)(part, columns) for part in paper)
        return escpos.INIT + escpos.CHINESE_ON + b"".join(body)

    def image_bytes(self, image: Any, columns: int = escpos.COLUMNS_80MM) -> bytes:
        """A Pillow image, centred, scaled down to the paper; as GS v 0 strips, or in the profile's own encoding."""
        from PIL import Image

        dots = columns * escpos.DOTS_A_COLUMN
        if image.width > dots:
            image = image.resize((dots, max(1, image.height * dots // image.width)))
        gray = Image.new("L", (dots, image.height), 255)
        gray.paste(image.convert("L"), ((dots - image.width) // 2, 0))
        if self._supports("bitImageRaster"):
            rows = bytes(b ^ 0xFF for b in gray.convert("1").tobytes())
            return b"".join(escpos.raster_strips(rows, dots // 8))
        page = self._page()
        page.image(gray, impl="bitImageColumn")
        return page.output

    def _qr(self, part: Any, columns: int) -> bytes:
        data = escpos.part_bytes(part, columns)
        if self._supports("qrCode") or b"1Q0" not in data:
            return data
        return self.image_bytes(self._qr_image(part.text, part.module, columns), columns) + b"\n"

    def _qr_image(self, text: str, module: int, columns: int) -> Any:
        import qrcode

        code = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_M, border=4, mask_pattern=0)
        code.add_data(text.encode("utf-8", "replace"))
        code.make(fit=True)
        code.box_size = max(1, min(module, columns * escpos.DOTS_A_COLUMN // (code.modules_count + 8)))
        return code.make_image().get_image()

    def _cut(self, part: Any, columns: int) -> bytes:
        if not (self._supports("paperFullCut") or self._supports("paperPartCut")):
            return FEED_WITHOUT_CUTTER                       # torn by hand, below the last line
        page = self._page()
        page.cut(mode="FULL" if self._supports("paperFullCut") else "PART", feed=True)
        return page.output

    def _supports(self, feature: str) -> bool:
        return bool(self._page().profile.supports(feature))

    def _page(self) -> Any:
        """An empty page of the library with our profile."""
        if self._lib is None:
            self._lib = library(self._pickle_dir)
        try:
            return self._lib.printer.Dummy(profile=self._profile_name)
        except KeyError as error:
            raise ConfigError([f"python-escpos has no profile {self._profile_name!r}"], which="printer") from error


def library(pickle_dir: Path) -> Any:
    """The imported `escpos` package, its profiles cached in `pickle_dir`.  ConfigError when that is not private."""
    pickle_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_private(pickle_dir)
    with _importing, _no_root_handler(), _temporary_folders_in(pickle_dir):
        os.environ[PICKLE_DIR_KEY] = str(pickle_dir)
        import escpos.printer

        return escpos


def _check_private(folder: Path) -> None:
    """What is unpickled is executed, so nobody else may write there."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
        raise ConfigError([f"{folder} must be a folder of our own with mode 0700"], which="printer")


@contextlib.contextmanager
def _no_root_handler() -> Iterator[None]:
    before = list(logging.root.handlers)
    try:
        yield
    finally:
        for handler in [h for h in logging.root.handlers if h not in before]:
            logging.root.removeHandler(handler)


@contextlib.contextmanager
def _temporary_folders_in(folder: Path) -> Iterator[None]:
    """The library makes a temporary folder even when it needs none: let it lie here, and take it away when empty."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        tempfile.tempdir = scratch
        try:
            yield
        finally:
            tempfile.tempdir = before
