"""A person's wish for another record key: `tillbox key rotate`, and the next start that fulfils it.

The wish is one small file that names the key to be left.  A start under that key hands it to the core; a start under another one
takes it away, so that a wish counts once, whenever the power fails.
"""

from __future__ import annotations

from pathlib import Path

from device.config import Config
from device.drivers import private_file
from device.drivers.registry import signer_of

NAME = "key.leave"


def wish(config: Config) -> str:
    """Keep the wish; the `kid` that will be left.  Outside when there is no key, or it cannot be reached; OSError."""
    kid = signer_of(config, make=False).kid
    private_file.replace(_file(config), kid.encode())
    return kid


def wished(config: Config, kid: str) -> str:
    """The key that a person wants to leave, where it is `kid`, the journal's; "" otherwise."""
    try:
        leave = _file(config).read_text()
    except OSError:
        return ""
    if leave != kid and kid:
        _file(config).unlink(missing_ok=True)
    return leave if leave == kid else ""


def _file(config: Config) -> Path:
    return Path(config.state_dir) / ("training" if config.training else "") / NAME
