"""Commands about what the box is set to: the configuration, where each value comes from, and who the box is in the fleet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from device.config import show
from device.console.asking import printed
from device.console.session import Call, Failed
from device.errors import ConfigError
from device.push.layers import Layers


def show_all(c: Call) -> Iterator[str]:
    for key, value in show(_layers(c).config()):
        if c.args in key:
            yield f"{key} = {value}"


def diff(c: Call) -> Iterator[str]:
    layers = _layers(c)
    for key, value in show(layers.config()):
        if (layer := layers.why(key)) != "default":
            yield f"{key} = {value}   ({layer})"


def why(c: Call) -> Iterator[str]:
    layers = _layers(c)
    try:
        yield f"{c.args} = {dict(show(layers.config())).get(c.args)}   ({layers.why(c.args)})"
    except ConfigError as fault:
        raise Failed("KEY", "; ".join(fault.reasons)) from None


def enrol(c: Call) -> Iterator[str]:
    from device.identity.enrol import main

    code = c.ask(c.t("一次性码（不回显）:", "one-use code (not shown):"), secret=True)
    if not code or code.startswith("-"):             # the tool would take that for an option, or read its own input
        raise Failed("STOPPED", c.t("没有码，什么也没做", "no code: nothing was done"))
    status, lines = printed(main, [code, "--broker", c.args, "--config", c.place.path])
    yield from (line.replace(code, "***") for line in lines)
    if status:
        raise Failed("ENROL", c.t("没有入网，原因见上", "not enrolled: see above"))


def _layers(c: Call) -> Layers:
    try:
        return Layers(Path(c.place.path).read_text(encoding="utf-8"), which=c.place.path)
    except ConfigError as fault:
        raise Failed("CONFIG", "; ".join(fault.reasons)[:600]) from None
    except (OSError, UnicodeDecodeError) as fault:
        raise Failed("CONFIG", str(fault)) from None

