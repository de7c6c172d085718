"""A real PostgreSQL on a Unix socket in its own temp folder: started, stopped, killed and brought back with its data.

Knows one server that it made and started itself, as another user when this program is root, as PostgreSQL wants it; refuses to
know what is kept in it.  `durable=False` leaves out every fsync: for tests that kill programs, never for one that cuts power.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from sim import leash

BINARIES = Path("/usr/lib/postgresql/15/bin")
START_MAX_S = 30.0

_CONFIG = """\
listen_addresses = ''
unix_socket_directories = '{folder}'
unix_socket_permissions = 0700
max_connections = 60
shared_buffers = 64MB
max_wal_size = 512MB
autovacuum_naptime = 10s
log_min_messages = warning
logging_collector = off
"""
_NOT_DURABLE = "fsync = off\nfull_page_writes = off\n"


class PostgresFailed(Exception):
    """The server is not there or does not answer; the sentence says which and what to do."""


class Postgres:
    """One server and its data, in a fresh folder that `close` removes."""

    def __init__(self, *, durable: bool = False) -> None:
        if not (BINARIES / "initdb").exists():
            raise PostgresFailed(f"PostgreSQL 15 is missing: no {BINARIES}/initdb (apt-get install postgresql-15)")
        self.folder = Path(tempfile.mkdtemp(prefix="tillbox-pg-"))       # a socket's path must be short
        self._who = _somebody()
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        if self._who:
            shutil.chown(self.folder, *self._who)
        self._ran("initdb", "-D", str(self.folder / "data"), "-U", "tillbox", "-A", "trust", "--locale=C", "-E", "UTF8",
                  "--no-sync")
        with open(self.folder / "data" / "postgresql.conf", "a") as file:
            file.write(_CONFIG.format(folder=self.folder) + ("" if durable else _NOT_DURABLE))

    def start(self) -> None:
        """Start and wait until it answers.  Raises PostgresFailed."""
        assert self._process is None, "the server runs already"
        with open(self.folder / "log", "ab") as file:
            self._process = leash.started([str(BINARIES / "postgres"), "-D", str(self.folder / "data")], cwd="/",
                                          stdin=subprocess.DEVNULL, stdout=file, stderr=file, **self._as())
        until = time.monotonic() + START_MAX_S
        while time.monotonic() < until and self._process.poll() is None:
            ready = subprocess.run([BINARIES / "pg_isready", "-q", "-h", self.folder, "-U", "tillbox", "-d", "postgres"])
            if ready.returncode == 0:
                return
            time.sleep(0.02)
        self.stop()
        raise PostgresFailed(f"PostgreSQL did not start; see {self.folder}/log")

    def stop(self) -> None:
        """End it in order, cutting connections; harmless when it does not run."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """End it at once, as a crash would: it recovers from its log at the next start."""
        self._end(signal.SIGQUIT)

    def close(self) -> None:
        """End it and remove all that it kept."""
        self._end(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Postgres:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def address(self, name: str) -> str:
        return f"postgresql://tillbox@/{name}?host={self.folder}"

    def database(self, like: str = "template0") -> str:
        """The address of a fresh database, a copy of `like`."""
        self._made += 1
        name = f"t{self._made}"
        self.say(f"CREATE DATABASE {name} TEMPLATE {like}")
        return self.address(name)

    def say(self, sql: str) -> None:
        """One statement, by the administrator."""
        import psycopg
        with psycopg.connect(self.address("postgres"), autocommit=True) as db:
            db.execute(sql)

    def _as(self) -> dict[str, object]:
        return {"user": self._who[0], "group": self._who[1], "extra_groups": []} if self._who else {}

    def _ran(self, program: str, *args: str) -> None:
        done = subprocess.run([BINARIES / program, *args], cwd="/", capture_output=True, text=True, **self._as())  # type: ignore[call-overload]
        if done.returncode:
            raise PostgresFailed(f"{program} failed: {done.stderr.strip()[-500:]}")

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _somebody() -> tuple[int, int] | None:
    """(user, group) to run as when this program is root: Debian's own postgres, or nobody."""
    if os.geteuid():
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PostgresFailed("PostgreSQL does not run as root, and there is no user postgres or nobody")
