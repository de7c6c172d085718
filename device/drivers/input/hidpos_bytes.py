"""Reports of a scanner in HID-POS mode, both ways: what a report descriptor says of them, and the symbols in them.  Opens nothing.

Source: USB HID Point of Sale Usage Tables 1.02, page 8C; Device Class Definition for HID 1.11, section 6.2.2.  Two formats that are
common in shops stand for devices whose descriptor says nothing of use.
"""

from __future__ import annotations

import msgspec

from device.drivers.input.scanner_keys import GS, QUIET_MS, SYMBOL_LEN_MAX, Read, chinese, symbol_fault, without_aim

PAGE_SCANNER, PAGE_DESKTOP = 0x8C, 0x01
USAGE_AIM = (0x8C00FB, 0x8C00FC, 0x8C00FD)      # symbology identifier 1 to 3: "]", "E", "0"
USAGE_DATA, USAGE_MORE, USAGE_LENGTH = 0x8C00FE, 0x8C00FF, 0x01003B
USAGE_SCANNED = 0x8C0012                        # the collection of a scanned data report
REPORT_LEN_MAX = 64 * 1024


class Form(msgspec.Struct, frozen=True):
    """Where things lie in one input report, as byte offsets behind its id.  `aim` and `length` -1 when it has none.

    `more` is the byte, and `more_bit` the bit in it, that says that the symbol goes on in another report.
    """

    report_id: int
    size: int
    data: int
    data_len: int
    length: int = -1
    aim: int = -1
    more: int = -1
    more_bit: int = 0


# By id.  The first is Honeywell's and Zebra's, from their manuals; the second is of readers that send length and data alone.
COMMON = {2: Form(2, 63, 4, 56, length=0, aim=1, more=62), 1: Form(1, 63, 1, 62, length=0)}


def forms_of(descriptor: bytes) -> dict[int, Form]:
    """Input reports with scanned data, by id (0: reports carry none).  COMMON when the descriptor names none, or is broken."""
    try:
        return _forms(descriptor) or COMMON
    except (IndexError, ValueError):
        return COMMON


def is_scanner(descriptor: bytes) -> bool:
    """Whether the descriptor is of a HID-POS scanner at all."""
    try:
        return any(tag == 0x04 and value == PAGE_SCANNER for tag, value in _items(descriptor))
    except IndexError:
        return False


def _items(descriptor: bytes):
    """(tag with type, value) of each short item; long ones are skipped.  IndexError for one that is cut."""
    at = 0
    while at < len(descriptor):
        head = descriptor[at]
        if head == 0xFE:
            at += 3 + descriptor[at + 1]
            continue
        size = (0, 1, 2, 4)[head & 3]
        if at + 1 + size > len(descriptor):
            raise IndexError("a cut item")
        yield head & 0xFC, int.from_bytes(descriptor[at + 1:at + 1 + size], "little")
        at += 1 + size


def _forms(descriptor: bytes) -> dict[int, Form]:
    page, size, count, report, usages, low = 0, 0, 0, 0, [], 0
    bits: dict[int, int] = {}                   # how much of each report is told so far
    fields: dict[int, dict[int, tuple[int, int]]] = {}           # usage to (bit, bits) of each report
    for tag, value in _items(descriptor):
        if tag == 0x04:
            page = value
        elif tag == 0x74:
            size = value
        elif tag == 0x94:
            count = value
        elif tag == 0x84:
            report = value
        elif tag == 0x08:
            usages.append(value if value > 0xFFFF else page << 16 | value)
        elif tag == 0x18:
            low = page << 16 | value
        elif tag == 0x28:
            usages += range(low, min(page << 16 | value, low + 255) + 1)
        elif tag == 0x80:                       # Input
            if size * count > REPORT_LEN_MAX * 8:
                raise ValueError("a report too long")
            at = bits.setdefault(report, 0)
            if len(usages) > 1 and not value & 1:
                for n, usage in enumerate(usages[:count]):
                    fields.setdefault(report, {}).setdefault(usage, (at + n * size, size))
            elif usages and not value & 1:
                fields.setdefault(report, {}).setdefault(usages[0], (at, size * count))
            bits[report] += size * count
        if tag & 0x0C == 0:                     # a main item ends what was said for it alone
            usages, low = [], 0
    found = {}
    for number, said in fields.items():
        data = said.get(USAGE_DATA)
        if data is None or data[0] % 8 or data[1] < 8:
            continue
        length, more = said.get(USAGE_LENGTH), said.get(USAGE_MORE)
        aim = said.get(USAGE_AIM[0])
        found[number] = Form(number, (bits[number] + 7) // 8, data[0] // 8, data[1] // 8,
                             length=length[0] // 8 if length else -1, aim=aim[0] // 8 if aim else -1,
                             more=more[0] // 8 if more else -1, more_bit=more[0] % 8 if more else 0)
    return found


class HidReports:
    """Reports in, symbols out.  Never raises.

    `feed` takes what one read gave: a report, or several whole ones or parts of them, where a pipe stands for the device.
    A report whose id no form names is none of a scan, and is skipped whole where it came alone.
    """

    def __init__(self, forms: dict[int, Form] | None = None, *, gs: str = "") -> None:
        self.dropped = 0
        self._forms, self._gs = forms or COMMON, gs
        self._torn, self._text, self._aim, self._why = b"", b"", "", ""

    @property
    def quiet_ms(self) -> int | None:
        """After how long a silence `quiet` is due: the end of a symbol whose next report never comes."""
        return QUIET_MS * 4 if self._text or self._torn or self._why else None

    def feed(self, data: bytes) -> list[Read]:
        """Every symbol that `data` completes, oldest first."""
        data, reads = self._torn + data, []
        while data:
            form = self._forms.get(data[0] if 0 not in self._forms else 0)
            if form is None:
                data = b""                      # nobody can say where the next one begins
                break
            size = form.size + (form.report_id != 0)
            if len(data) < size:
                break
            read = self._report(form, data[size - form.size:size])
            reads += [read] if read else []
            data = data[size:]
        self._torn = data
        return reads

    def quiet(self) -> Read | None:
        """The line fell silent in the middle: what is half said is dropped, and told."""
        if self.quiet_ms is None:
            return None
        self._torn, self._text, self._why = b"", b"", ""
        self.dropped += 1
        return Read(why="the scan broke off before its end: scan it again")

    def _report(self, form: Form, report: bytes) -> Read | None:
        size = report[form.length] if form.length >= 0 else form.data_len
        if size > form.data_len:
            self._why = "the scan broke off in the middle: scan it again"      # a length that no report has room for
        part = report[form.data:form.data + min(size, form.data_len)]
        self._text += part if form.length >= 0 else part.rstrip(b"\0")
        if len(self._text) > 4 * SYMBOL_LEN_MAX:
            self._text = self._text[:4 * SYMBOL_LEN_MAX]                     # it is refused for its length, and stays bounded
        if form.aim >= 0 and report[form.aim:form.aim + 1] == b"]":
            self._aim = report[form.aim:form.aim + 3].decode("latin-1")
        if form.more >= 0 and report[form.more] >> form.more_bit & 1:
            return None
        text, aim, why = chinese(self._text.decode("latin-1").rstrip("\r\n\t"), "latin-1"), self._aim, self._why
        self._text, self._aim, self._why = b"", "", ""
        bare = without_aim(text)
        aim = aim or text[:len(text) - len(bare)]
        bare = bare.replace(self._gs, GS) if self._gs else bare
        if not bare and not why:
            return None
        why = why or symbol_fault(bare)
        self.dropped += bool(why)
        return Read(why=why) if why else Read(symbol=bare, aim=aim)


def reports_of(text: bytes, aim: str = "", form: Form = COMMON[2]) -> list[bytes]:
    """The reports that a scanner sends for `text`."""
    parts = [text[at:at + form.data_len] for at in range(0, max(1, len(text)), form.data_len)]
    reports = []
    for n, part in enumerate(parts):
        report = bytearray(form.size)
        report[form.data:form.data + len(part)] = part
        if form.length >= 0:
            report[form.length] = len(part)
        if form.aim >= 0:
            report[form.aim:form.aim + 3] = (aim or "\0\0\0").encode("latin-1")
        if form.more >= 0 and n < len(parts) - 1:
            report[form.more] |= 1 << form.more_bit
        reports.append((bytes([form.report_id]) if form.report_id else b"") + bytes(report))
    return reports
