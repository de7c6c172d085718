"""USB devices of the machine's own making: a scanner of its own identity and a printer at /dev/usb/lp0, on dummy_hcd's two wires.

Each gadget has one wire: `dummy_udc.0` is the scanner's, `dummy_udc.1` the printer's.  Unbinding is pulling it out.
"""

import fcntl
import os
import select
import subprocess
import threading
import time

CONFIG = "/sys/kernel/config/usb_gadget"
MODULES = "/run/rig/modules"
SCANNER_UDC, PRINTER_UDC = "dummy_udc.0", "dummy_udc.1"
PRINTER_PORT = "/dev/virtio-ports/tillbox.printer"
GET_STATUS, SET_STATUS = 0x80016721, 0xC0016722        # linux/usb/g_printer.h: _IOR and _IOWR 'g', 0x21 and 0x22
NOT_ERROR, SELECTED, PAPER_EMPTY = 0x08, 0x10, 0x20

# A boot keyboard's own: eight modifiers, one reserved byte, five lamps, six keys.
KEYBOARD = bytes.fromhex("05010906a101050719e029e71500250175019508810295017508810395057501050819012905910295017503"
                         "910395067508150025650507190029658100c0")
_RELEASE = bytes(8)
_USAGES = {"\n": (0x28, 0), " ": (0x2C, 0), "-": (0x2D, 0), "=": (0x2E, 0), "[": (0x2F, 0), "]": (0x30, 0), "\\": (0x31, 0),
           ";": (0x33, 0), "'": (0x34, 0), ",": (0x36, 0), ".": (0x37, 0), "/": (0x38, 0), "?": (0x38, 2), ":": (0x33, 2),
           "%": (0x22, 2), "&": (0x24, 2), "(": (0x26, 2), ")": (0x27, 2), "+": (0x2E, 2), "_": (0x2D, 2), "*": (0x25, 2),
           "0": (0x27, 0)}
_USAGES.update({str(n): (0x1D + n, 0) for n in range(1, 10)})
_USAGES.update({chr(97 + n): (4 + n, 0) for n in range(26)})
_USAGES.update({chr(65 + n): (4 + n, 2) for n in range(26)})

_printer = {}


def load():
    """The modules that the image does not have; those that it has are there already."""
    for name in open(f"{MODULES}/order").read().split():
        more = ["num=2"] if name == "dummy_hcd.ko" else []
        done = subprocess.run(["/sbin/insmod", f"{MODULES}/{name}", *more], capture_output=True, text=True)
        if done.returncode and "File exists" not in done.stderr:
            raise OSError(f"insmod {name}: {done.stderr.strip()}")
    if not os.path.ismount("/sys/kernel/config"):
        subprocess.run(["mount", "-t", "configfs", "configfs", "/sys/kernel/config"], check=True)
    until = time.monotonic() + 10
    while not os.path.isdir(CONFIG) and time.monotonic() < until:
        time.sleep(0.05)


def plug_scanner(serial="ZBR0001", vendor=0x05E0, product=0x1200, name="Symbol Bar Code Scanner"):
    """A scanner in keyboard mode, as fast as USB lets it be; the name of its device."""
    load()
    own = f"{CONFIG}/scanner"
    if not os.path.isdir(own):
        function = _made(own, vendor, product, serial, "Symbol Technologies", name, "hid.usb0")
        _say(f"{function}/protocol", "1")
        _say(f"{function}/subclass", "1")
        _say(f"{function}/report_length", "8")
        with open(f"{function}/report_desc", "wb") as file:
            file.write(KEYBOARD)
        os.symlink(function, f"{own}/configs/c.1/hid.usb0")
    _say(f"{own}/strings/0x409/serialnumber", serial)
    _say(f"{own}/UDC", SCANNER_UDC)
    return _await("/dev/hidg0")


def unplug_scanner():
    _say(f"{CONFIG}/scanner/UDC", "\n")


def scan(code, half=False, pace_ms=3):
    """Type `code` and Enter; `half`: break off in the middle, as a cable that is pulled does; `pace_ms` between two keys.
    Milliseconds that it took."""
    keys = code[: len(code) // 2] if half else code + "\n"
    began = time.monotonic()
    with open("/dev/hidg0", "wb", buffering=0) as wire:
        for key in keys:
            usage, modifier = _USAGES[key]
            wire.write(bytes([modifier, 0, usage, 0, 0, 0, 0, 0]))
            wire.write(_RELEASE)
            time.sleep(pace_ms / 1000)
    return int((time.monotonic() - began) * 1000)


def plug_printer(serial="TM0001"):
    """A receipt printer at /dev/usb/lp0; its bytes go to the rig's second port, and what the host says there comes back."""
    load()
    own = f"{CONFIG}/printer"
    if not os.path.isdir(own):
        function = _made(own, 0x04B8, 0x0202, serial, "EPSON", "TM-T88V", "printer.usb0")
        _say(f"{function}/pnp_string", "MFG:EPSON;CMD:ESC/POS;MDL:TM-T88V;CLS:PRINTER;")
        _say(f"{function}/q_len", "10")
        os.symlink(function, f"{own}/configs/c.1/printer.usb0")
    _say(f"{own}/UDC", PRINTER_UDC)
    node = _await("/dev/g_printer0")
    _printer["fd"] = _opened(node)
    fcntl.ioctl(_printer["fd"], SET_STATUS, NOT_ERROR | SELECTED)
    if "thread" not in _printer:
        _printer["port"] = os.open(PRINTER_PORT, os.O_RDWR | os.O_NONBLOCK)
        _printer["thread"] = threading.Thread(target=_carry, daemon=True)
        _printer["thread"].start()
    return node


def unplug_printer():
    """Pull it out, in the middle of a paper if there is one."""
    _say(f"{CONFIG}/printer/UDC", "\n")
    os.close(_printer.pop("fd"))


def printer_status(paper=True):
    """What LPGETSTATUS says: with paper, or empty."""
    return fcntl.ioctl(_printer["fd"], SET_STATUS, NOT_ERROR | SELECTED if paper else SELECTED | PAPER_EMPTY)


def _carry():
    """Bytes between the printer's wire and the host, both ways; none is waited for."""
    while True:
        fd, port = _printer.get("fd"), _printer["port"]
        if fd is None:
            time.sleep(0.05)
            continue
        ready, _, _ = select.select([fd, port], [], [], 0.5)
        for source, sink in ((fd, port), (port, fd)):
            if source in ready:
                try:
                    data = os.read(source, 4096)
                except OSError:
                    continue
                if not data:
                    time.sleep(0.02)
                while data:
                    try:
                        data = data[os.write(sink, data):]
                    except BlockingIOError:
                        select.select([], [sink], [], 1)
                    except OSError:
                        break


def _made(own, vendor, product, serial, maker, name, function):
    os.makedirs(f"{own}/strings/0x409")
    os.makedirs(f"{own}/configs/c.1/strings/0x409")
    for key, value in (("idVendor", f"{vendor:#06x}"), ("idProduct", f"{product:#06x}"), ("bcdUSB", "0x0200"),
                       ("strings/0x409/serialnumber", serial), ("strings/0x409/manufacturer", maker),
                       ("strings/0x409/product", name), ("configs/c.1/strings/0x409/configuration", name)):
        _say(f"{own}/{key}", value)
    os.makedirs(f"{own}/functions/{function}")
    return f"{own}/functions/{function}"


def _say(path, text):
    with open(path, "w") as file:
        file.write(text)


def _opened(path, within_s=15):
    """The node is there before the host has chosen a configuration, and cannot be opened until then."""
    until = time.monotonic() + within_s
    while True:
        try:
            return os.open(path, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def _await(path, within_s=15):
    until = time.monotonic() + within_s
    while not os.path.exists(path):
        if time.monotonic() > until:
            raise OSError(f"{path} did not come")
        time.sleep(0.05)
    return path
