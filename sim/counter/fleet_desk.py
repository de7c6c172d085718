"""The fleet admin of a counter: pushes, commands and what became of them, by the very programs that a fleet's admin has.

Knows command lines and files; refuses to know what stands in a document.  `tillfleet` writes the collector's database, and a
courier signs and sends.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fleet.keys import SigningKey
from sim.counter.calls import Refusal
from sim.counter.certificates import COURIER, certificate
from sim.counter.files import toml, write

BY = "admin"                              # of the demo, in the history of pushes and in records of commands
TOOL_S_MAX = 30.0
COMMAND_S = 10                            # how long a command's answer is waited for


class FleetDesk:
    """`folder` the counter's, `store` the collector's."""

    def __init__(self, folder: Path, store: str) -> None:
        self._folder, self._store = folder, store

    def box_changed(self, name: str) -> None:
        """Tell the cloud what box `name` says of itself: pushes are checked against it."""
        self._told("config", "base", name, str(self._folder / "box.toml"))

    def push(self, name: str, keys: dict[str, Any], payee_change: bool) -> dict[str, Any]:
        """Lay `keys`, sections and keys as in box.toml, over what box `name` has.  Refusal with every reason."""
        file = self._folder / "push.toml"
        try:
            write(file, toml(keys).encode())
        except TypeError:
            raise Refusal("set holds something that no box.toml can say.") from None
        more = ["--allow-payee-change"] if payee_change else []
        return {"push": self._told("config", "push", str(file), "--box", name, "--soak", "0", *more)[-1]}

    def command(self, name: str, verb: str, args: str) -> dict[str, Any]:
        """Ask box `name`; its answer, or what is known of it after a while."""
        told = self._told("cmd", name, *verb.split(), *args.split(), "--by", f"{BY}:admin", "--wait", str(COMMAND_S), fine=(0, 1))
        return {"command": told[0]}

    def shown(self, name: str) -> dict[str, Any]:
        """`{"config": [...]}`: what is desired and reported of box `name`."""
        return {"config": self._told("config", "status", "--box", name, fine=(0, 1))}

    def _told(self, *words: str, fine: tuple[int, ...] = (0,)) -> list[Any]:
        by = [] if "--by" in words or words[0] == "cmd" else ["--by", BY]
        done = subprocess.run([sys.executable, "-m", "fleet", *words, *by, "--store", self._store, "--json"], capture_output=True,
                              text=True, timeout=TOOL_S_MAX)
        lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        if done.returncode not in fine or not lines and words[1] != "base":
            reasons = "; ".join(line["reason"] for line in lines if "reason" in line)
            raise Refusal(reasons or done.stderr.strip()[-2_000:] or f"tillfleet {words[0]} said nothing.", 409)
        return lines


def keys_given(folder: Path) -> dict[str, str]:
    """What `box.toml` says of the fleet's keys, which are made when they are not there."""
    for use in ("config", "command"):
        key = SigningKey(folder / f"{use}.pem")
        write(folder / f"{use}.jwk", json.dumps({**key.jwk, "kid": key.kid}).encode())
    return {f"{use}_key_file": str(folder / f"{use}.jwk") for use in ("config", "command")}


def courier_argv(folder: Path, clock: Path, broker_port: int, store: str, tenant: str) -> list[str]:
    """How the courier is started, as its own process, on the clock of `clock`."""
    return [sys.executable, "-m", "sim.devices.clock", str(clock), "fleet", "courier", "--broker", f"127.0.0.1:{broker_port}",
            "--store", store, "--tenant", tenant, "--command-key", str(folder / "command.pem"), "--config-key",
            str(folder / "config.pem"), "--tls", str(certificate(folder, COURIER)), "--json"]
