"""The page of the manual that lists every key: `python -m device.config > docs/config.md`."""

from __future__ import annotations

from typing import Any

from device.config_keys import CARD_KEYS, CHANNELS, MUST, NEEDS, SECTIONS, Key, needed


def docs_page() -> str:
    """`docs/config.md`: every key, section by section."""
    lines = ["# Configuration", "", "The file is `/etc/tillbox/box.toml`.  This page is made from the table in "
             "`device/config_keys.py` by `python -m device.config > docs/config.md`.", "",
             "A configuration with any fault is refused whole, and every fault is named.  A key that nobody reads is a "
             "fault.  Amounts are whole fen, times whole seconds.  A relative file counts from `state_dir`.", ""]
    for name, keys in SECTIONS.items():
        title = {"": "Top of the file", "channel.*": f"[channel.NAME], NAME one of {', '.join(CHANNELS)}",
                 "template[]": "[[template]], one for each kind of in-store label",
                 "scanner": "[scanner], or [[scanner]] for each of several",
                 "display": "[display], or [[display]] for each of several, the customer's first"}.get(name, f"[{name}]")
        lines += [f"## {title}", "", "| key | type | unit | bounds | default | a change restarts | what |",
                  "|---|---|---|---|---|---|---|"]
        for key in keys:
            default = "must be given" if key.default is MUST else f"`{_toml(key.default)}`"
            says = key.says + (" (secret: never shown)" if key.secret else "")
            cells = [f"`{key.name}`", key.type, key.unit, _bounds(key), default, key.restarts, says]
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        lines.append("")
    lines += ["What a channel cannot do without:", ""]
    lines += [f"- {name}: {', '.join(f'`{key}`' for key in needed(name))}" for name in NEEDS]
    lines += ["", f"The card terminal reads {', '.join(f'`{key}`' for key in CARD_KEYS)}, and wants `path` (serial), or `host` and "
              "`secret` (tcp). No other channel reads the last five.", "", "WeChat's replies are proven by `platform_key_id` and "
              "`platform_key_file`, or by `api_v3_key` (here or sealed), or by both."]
    return "\n".join([*lines, ""])


def _bounds(key: Key) -> str:
    if key.choices:
        return " ".join(key.choices)
    if key.pattern:
        return f"`{key.pattern}`"
    if key.type == "int":
        return f"{key.low} to {key.high}"
    return f"{key.low} to {key.high} characters" if key.type in ("text", "file") else ""


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return str(value)
