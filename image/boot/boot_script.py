"""boot.scr: boot.cmd as U-Boot takes it, without its comments."""

from __future__ import annotations

from pathlib import Path

from image.boot import u_boot

SOURCE = Path(__file__).with_name("boot.cmd")


def build(epoch: int = 0) -> bytes:
    """The file `boot.scr` of the first partition."""
    return u_boot.script(text(), "Tillbox", epoch)


def text() -> str:
    """The script as it runs.  A comment is a line that begins with #; U-Boot's shell reads a quote in one as a quote."""
    lines = SOURCE.read_text(encoding="ascii").splitlines()
    return "\n".join(line for line in lines if line and not line.lstrip().startswith("#")) + "\n"
