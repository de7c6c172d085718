"""The few ways in which the outside fails.  Expected answers are values; our own mistakes are asserts."""


class Outside(Exception):
    """Something outside the box failed.

    `what` one sentence for a person, `which` the part ("printer", "wechat", ...), `hint` what to do, `again` whether a
    retry can help.
    """

    def __init__(self, what: str, *, which: str, hint: str = "", again: bool = True) -> None:
        super().__init__(what)
        self.what, self.which, self.hint, self.again = what, which, hint, again

    def __str__(self) -> str:
        return f"{self.which}: {self.what}" + (f" ({self.hint})" if self.hint else "")


class DriverGone(Outside):
    """The device or the line to it is not there: unplugged, refused, timed out while connecting."""


class PortHeld(DriverGone):
    """The port is there, and another program or box holds it."""


class DriverBusy(Outside):
    """The device is there and cannot take this now."""


class PrintUnproven(Outside):
    """Bytes may have reached paper and nothing proves that all did."""


class JournalHeld(Outside):
    """Another process has the journal or its second copy, and may be a daemon that sells."""


class JournalFull(Outside):
    """The reserve would be touched: nothing was kept."""


class JournalUnreadable(Outside):
    """The journal cannot be read as it stands.  Nothing was changed: a person has to look, see docs/recovery.md."""


class CopyFailed(Outside):
    """The second copy cannot be read or written.  The journal itself is not touched by that."""


class KeyMissing(Outside):
    """The record key is not the one that the journal names: nothing is signed under another in silence."""


class ConfigError(Outside):
    """A configuration that is refused whole; `reasons` names every fault."""

    def __init__(self, reasons: list[str], *, which: str) -> None:
        super().__init__("; ".join(reasons), which=which, again=False)
        self.reasons = reasons
