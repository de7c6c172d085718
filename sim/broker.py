"""A real Mosquitto on a free loopback port, in its own folder: started, stopped, killed and brought back on the same port.

Runs the configuration that ships (`fleet/broker/`); only ports, paths and the user are this machine's.  Without an authority
the same limits stand, but the listener asks for no certificate.  Knows processes that it started itself; refuses to know payloads.
"""

from __future__ import annotations

import getpass
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from fleet import broker_files
from fleet.identity.ca import Authority
from sim import leash

MOSQUITTO = "/usr/sbin/mosquitto"
START_MAX_S = 10.0


class BrokerFailed(Exception):
    """The broker is not there or does not accept connections; the sentence says which and what to do."""


class Broker:
    """One Mosquitto.  `folder` is made if needed; `port` 0 takes a free one, kept over stop and start.

    With an `authority` whose broker has a certificate for 127.0.0.1, clients prove themselves by TLS; without, nobody is asked.
    `watcher` is the name of one who may hear everything: not in what ships, for whoever writes messages down.
    """

    def __init__(self, folder: Path | str, port: int = 0, *, authority: Authority | None = None, watcher: str = "") -> None:
        self.folder, self.port, self.authority, self._watcher = Path(folder).resolve(), port, authority, watcher
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> int:
        """Start, wait until it accepts a connection, return the port.  Raises BrokerFailed."""
        assert self._process is None, "the broker runs already"
        program = MOSQUITTO if Path(MOSQUITTO).exists() else shutil.which("mosquitto")
        if program is None:
            raise BrokerFailed(f"Mosquitto is missing: neither {MOSQUITTO} nor one on the PATH (apt-get install mosquitto)")
        self.folder.mkdir(parents=True, exist_ok=True)
        tries = 1 if self.port else 5                # a free port may be taken between asking and listening
        for left in reversed(range(tries)):
            port = self.port or _free_port()
            if _answers(port):
                raise BrokerFailed(f"port {port} on 127.0.0.1 is taken by another program")
            config = self._configured(port)
            # Started as root it becomes another user, who may not write here: so the log is a file that we opened.
            with open(self.folder / "mosquitto.log", "ab") as file:
                self._process = leash.started([program, "-c", str(config)], stdin=subprocess.DEVNULL, stdout=file,
                                              stderr=file)
            if self._accepts(port):
                self.port = port
                return port
            self.stop()
            if not left:
                break
        raise BrokerFailed(f"Mosquitto did not accept a connection on 127.0.0.1:{port}; see {self.folder}/mosquitto.log")

    def refresh(self) -> None:
        """Give it what the authority has revoked and whom it knows by now, as docs/broker.md tells: files, then SIGHUP."""
        assert self.authority is not None, "nothing to refresh"
        if self._process is not None:                # else it reads them when it starts
            broker_files.refreshed(self.authority, self.folder)
            self._watched()
            self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End it in order; harmless when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut would."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze it: connections stay, nothing moves."""
        assert self._process is not None, "the broker does not run"
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        assert self._process is not None, "the broker does not run"
        self._process.send_signal(signal.SIGCONT)

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def __enter__(self) -> Broker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _configured(self, port: int) -> Path:
        config = self.folder / "mosquitto.conf"
        if self.authority is None:
            config.write_text(broker_files.open_listener(port, "127.0.0.1", _user()))
        else:
            broker_files.rendered(self.authority, self.folder, port=port, bind="127.0.0.1", user=_user(), log="stderr")
            self._watched()
        return config

    def _watched(self) -> None:
        if self._watcher:
            with open(self.folder / "acl", "a") as file:
                file.write(f"\nuser {self._watcher}\ntopic read #\n")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
            process.send_signal(signal.SIGCONT)      # a paused one would not hear
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _accepts(self, port: int) -> bool:
        assert self._process is not None
        until = time.monotonic() + START_MAX_S
        while time.monotonic() < until and self._process.poll() is None:
            if _answers(port):
                return self._process.poll() is None
            time.sleep(0.02)
        return False


class EnrolDoor(Broker):
    """The listener of boxes without a certificate: its own Mosquitto, joined to `broker`, which runs and has an authority."""

    def __init__(self, broker: Broker, port: int = 0) -> None:
        super().__init__(broker.folder, port, authority=broker.authority)
        self.broker = broker

    def _configured(self, port: int) -> Path:
        assert self.authority is not None and self.broker.port, "the broker behind the door comes first"
        broker_files.rendered(self.authority, self.folder, port=self.broker.port, enrol_port=port, bind="127.0.0.1", user=_user(),
                              host="127.0.0.1", log="stderr")
        return self.folder / "enrol.conf"


def _user() -> str:
    """Who starts it stays its user: nobody else may read what this machine's folders hold."""
    return getpass.getuser()


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
