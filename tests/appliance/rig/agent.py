"""The rig's agent inside the machine: JSON lines at a virtio port.  Part of tests alone: the image has neither it nor the port.

Standard library only, and nothing of the till is imported: what it says of the till comes over the till's own socket.
"""

import base64
import grp
import json
import os
import pwd
import select
import socket
import subprocess
import sys
import threading
import time

PORT = "/dev/virtio-ports/tillbox.rig"
DAEMON = "/run/tillbox/daemon.sock"
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))


def up(_):
    return float(open("/proc/uptime").read().split()[0])


def sh(ask):
    try:
        done = subprocess.run(["/bin/sh", "-c", ask["script"]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=ask["limit_s"])
        return {"code": done.returncode, "out": done.stdout.decode("utf-8", "replace")}
    except subprocess.TimeoutExpired as late:
        return {"code": 124, "out": (late.stdout or b"").decode("utf-8", "replace") + f"\nlonger than {ask['limit_s']} s"}


def put(ask):
    path = ask["path"]
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fresh = path + ".rig"
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(base64.b64decode(ask["data"]))
        os.fchown(file.fileno(), pwd.getpwnam(ask["owner"]).pw_uid, grp.getgrnam(ask["owner"]).gr_gid)
        os.fchmod(file.fileno(), ask["mode"])
        file.flush()
        os.fsync(file.fileno())
    os.replace(fresh, path)


def get(ask):
    return base64.b64encode(open(ask["path"], "rb").read()).decode()


def daemon(ask):
    with socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(DAEMON)
        line.sendall(json.dumps(ask["question"]).encode() + b"\n")
        answer = b""
        while not answer.endswith(b"\n"):
            part = line.recv(1 << 20)
            if not part:
                raise OSError("the daemon broke off")
            answer += part
    return json.loads(answer)


def clock(ask):
    time.clock_settime(time.CLOCK_REALTIME, ask["unix_s"])


def gadget(ask):
    import gadgets

    return getattr(gadgets, ask["do"])(**ask["with"])


DOES = {"up": up, "sh": sh, "put": put, "get": get, "daemon": daemon, "clock": clock, "gadget": gadget}
_say = threading.Lock()


def answer(fd, line):
    ask = json.loads(line)
    said = {"n": ask["n"]}
    try:
        said["said"] = DOES[ask["what"]](ask)
    except Exception as wrong:                       # noqa: BLE001  whatever it is, the test must hear of it
        said["error"] = f"{type(wrong).__name__}: {wrong}"
    data = json.dumps(said).encode() + b"\n"
    with _say:
        while data:
            try:
                data = data[os.write(fd, data):]
            except BlockingIOError:
                select.select([], [fd], [], 1)


def load(names):
    """Modules that the image does not have; those that it has are there already."""
    for name in names:
        subprocess.run(["/sbin/insmod", f"/run/rig/modules/{name}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main():
    if os.path.exists("/run/rig/modules/port"):
        load(open("/run/rig/modules/port").read().split())
    while not os.path.exists(PORT):
        time.sleep(0.1)
    fd = os.open(PORT, os.O_RDWR | os.O_NONBLOCK)
    held = b""
    while True:
        try:
            part = os.read(fd, 65536)
        except BlockingIOError:
            select.select([fd], [], [], 5)
            continue
        if not part:                                 # nobody is at the other end: between two machines of one snapshot
            held = b""
            time.sleep(0.05)
            continue
        *lines, held = (held + part).split(b"\n")
        for line in lines:
            if line.strip():
                threading.Thread(target=answer, args=(fd, line), daemon=True).start()


if __name__ == "__main__":
    main()
