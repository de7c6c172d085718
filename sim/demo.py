"""`python -m sim.demo`: the whole counter on this machine, one URL; or a scripted day without a browser.

    python -m sim.demo [--port 8600] [--state DIR] [--profile all|gateway] [--day FILE] [--record] [--json]

Without `--day` it serves the counter page until Ctrl-C.  With it, the steps go through the same HTTP calls on a free
port; with `--json` every step is a JSON line `{"step", "call", "ok", "answer", ...}` and the last line is the summary,
defined in `sim.counter.sums`.  Exit status: 0 when everything expected came and books, channel, cloud and paper agree;
1 when not; 2 for arguments or a day that cannot be used.
"""

from __future__ import annotations

import argparse
import http.client
import json
import shutil
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from sim.counter.calls import Refusal
from sim.counter.channels import PROFILES
from sim.counter.counter import Counter
from sim.counter.day import DayError, Step, play, read_cloud, read_day, read_scale
from sim.counter.server import CounterServer

QUIET_S_MAX = 120.0            # for records, papers and refunds still on their way when the day is over


class RealClock:
    """The clock of a day that is really played; `stopping` ends every wait."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping

    def now_s(self) -> float:
        return time.monotonic()

    def wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise KeyboardInterrupt


class Caller:
    """Calls over HTTP on one kept connection."""

    def __init__(self, port: int) -> None:
        self._line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, Any]:
        """(status, value): JSON as its value, anything else as `{"bytes": n}`."""
        raw = None if body is None else json.dumps(body).encode()
        try:
            self._line.request(method, path, raw)
            reply = self._line.getresponse()
        except (http.client.HTTPException, ConnectionError):
            self._line.close()                       # the server may end an idle connection; a new one asks again
            self._line.request(method, path, raw)
            reply = self._line.getresponse()
        data = reply.read()
        if reply.headers["Content-Type"].startswith("application/json"):
            return reply.status, json.loads(data)
        return reply.status, {"bytes": len(data)}

    def close(self) -> None:
        self._line.close()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m sim.demo", description="The whole counter on this machine.")
    parser.add_argument("--port", type=_port, default=8600, help="of the counter page (8600); a day takes a free one")
    parser.add_argument("--state", type=Path, metavar="DIR", help="keep everything here; left out: start empty")
    parser.add_argument("--profile", choices=PROFILES, default="all",
                        help="channels of the box: all, or the gateway alone, without any merchant's key")
    parser.add_argument("--day", type=Path, metavar="FILE", help="play this day without a browser")
    parser.add_argument("--record", action="store_true", help="write every message to the cloud and back to payloads.jsonl")
    parser.add_argument("--json", action="store_true", help="one JSON line a step, the summary last")
    args = parser.parse_args(argv)
    try:
        day = args.day
        steps, scale, cloud = (read_day(day), read_scale(day), read_cloud(day)) if day else (None, 1, "sqlite")
    except DayError as wrong:
        return _failed(str(wrong), args.json, 2)
    stopping = threading.Event()
    for which in (signal.SIGTERM, signal.SIGINT):
        signal.signal(which, lambda *_: stopping.set())
    folder = args.state or Path(tempfile.mkdtemp(prefix="tillbox-"))
    counter, server = Counter(folder, profile=args.profile, scale=scale, record=args.record, cloud=cloud), None
    try:
        server = CounterServer(counter, 0 if steps else args.port)
        counter.start()
        server.start()
        if steps is None:
            print(json.dumps({"url": server.url}) if args.json else server.url, flush=True)
            stopping.wait()
            return 0
        return _play(counter, server, steps, stopping, args.json)
    except (OSError, RuntimeError) as why:
        return _failed(_port_taken(args.port) if server is None else str(why), args.json, 2 if server is None else 1)
    except KeyboardInterrupt:
        return 130
    finally:
        if server is not None:
            server.stop()
        counter.stop()
        if args.state is None:
            shutil.rmtree(folder, ignore_errors=True)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"{text[:20]!r} is no port: it is a number from 0 to 65535")
    return int(text)


def _play(counter: Counter, server: CounterServer, steps: list[Step], stopping: threading.Event, as_json: bool) -> int:
    caller, clock, all_ok = Caller(server.port), RealClock(stopping), True
    try:
        for result in play(steps, caller.ask, clock):
            all_ok &= _held(result)
            print(json.dumps(result, ensure_ascii=False) if as_json else _told(result), flush=True)
    finally:
        caller.close()
    until_s = clock.now_s() + QUIET_S_MAX
    while not counter.quiet() and clock.now_s() < until_s:
        clock.wait(0.2)
    try:
        last = counter.summary()
    except Refusal as why:
        return _failed(why.sentence, as_json, 1)
    print(json.dumps(last) if as_json else " ".join(f"{name}={value}" for name, value in last.items()), flush=True)
    return 0 if last["agree"] and all_ok else 1


def _held(result: dict[str, Any]) -> bool:
    held = result.get("expect", [])
    return all(one["held"] for one in (held if isinstance(held, list) else [held]))


def _told(result: dict[str, Any]) -> str:
    expected = f"  {result['expect']}" if "expect" in result else ""
    refused = result["answer"].get("error") if isinstance(result["answer"], dict) else None
    line = f"{result['step']:4}  {'ok  ' if result['ok'] else 'FAIL'}  {result['call']}{expected}"
    return line + (f"  {refused}" if refused else "")


def _failed(sentence: str, as_json: bool, status: int) -> int:
    print(json.dumps({"error": sentence}, ensure_ascii=False) if as_json else sentence, file=sys.stderr, flush=True)
    return status


def _port_taken(port: int) -> str:
    return f"Port {port} on 127.0.0.1 is taken or not allowed: choose another with --port."


if __name__ == "__main__":
    sys.exit(main())
