"""One value of the configuration read by its key: taken, or refused with the sentence that says what to write instead.

What only a file with a fault in it needs, the guess at what was meant among it, is loaded when there is one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from device.config_keys import MUST, SECTIONS, Key

if TYPE_CHECKING:
    from decimal import Decimal


def read_section(name: str, data: dict[str, Any], at: str, faults: list[str], also: tuple[str, ...] = ()) -> dict[str, Any]:
    keys = {key.name: key for key in SECTIONS[name]}
    for given in data:
        if given not in keys and given not in also:
            faults.append(_unknown(given, at, keys, also))
    values = {}
    for key in keys.values():
        if key.name in data:
            values[key.name] = read_value(key, data[key.name], at + key.name, faults)
        elif key.default is MUST:
            faults.append(f"{at}{key.name} is missing: {key.says}")
            values[key.name] = ""
        else:
            values[key.name] = key.default
    return values


def read_table(data: dict[str, Any], name: str, faults: list[str]) -> dict[str, Any]:
    table = data.get(name, {})
    if isinstance(table, dict):
        return table
    faults.append(f"{name} is {said_kind(table)}; it is a section: write [{name}] and its keys below")
    return {}


_UNIT_TAILS = re.compile(r"_(s|ms|sec|seconds|m|min|minutes|h|hours|fen|yuan|cents|px|days)$")


def nearest(*asked: Any) -> list[str]:
    import difflib  # only for a file with a fault in it

    return difflib.get_close_matches(*asked)


def _unknown(given: str, at: str, keys: dict[str, Key], also: tuple[str, ...]) -> str:
    stem = _UNIT_TAILS.sub("", given)
    for key in keys.values():
        if key.unit and stem == _UNIT_TAILS.sub("", key.name):
            return f"{at}{given} is no key; did you mean {at}{key.name}, which counts {_UNITS.get(key.unit, key.unit)}?"
    near = nearest(given.lower(), [*keys, *also], 1, 0.6)
    if near:
        return f"{at}{given} is no key; did you mean {at}{near[0]}?"
    for section, others in SECTIONS.items():
        if any(key.name == given for key in others) and section != at.rstrip("."):
            return f"{at}{given} is no key here; there is one in {f'[{section}]' if section else 'the top of the file'}"
    return f"{at}{given} is no key; docs/config.md lists them all"


# -- one value --------------------------------------------------------------------------------------------------------

_UNITS = {"s": "seconds", "ms": "milliseconds", "fen": "fen", "px": "pixels", "h": "hours", "days": "days",
          "degrees": "degrees", "baud": "baud"}
_QUANTITY = re.compile(r"\s*([¥￥]?)\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([^\W\d_]*|°|¥|￥)\s*")


def read_value(key: Key, raw: Any, at: str, faults: list[str]) -> Any:
    """The value of one key; when it is wrong, a sentence in `faults` and the default or a neutral value instead."""
    value, fault = _READERS[key.type](key, raw)
    if fault:
        faults.append(f"{at} {fault}")
        return key.default if key.default is not MUST else ""
    return value


def _int(key: Key, raw: Any) -> tuple[Any, str]:
    unit = _UNITS.get(key.unit, "")
    wanted = f"a whole number{f' of {unit}' if unit else ''}"
    if isinstance(raw, str):
        number = _quantity(raw, key.unit)
        return None, f"is {raw!r}, but it is {wanted}" + (f": write {number}, without quotes" if number is not None else "")
    if isinstance(raw, float):
        if key.unit == "fen":
            from decimal import Decimal

            return None, f"is {raw}, but money is counted in whole fen: write {round(Decimal(str(raw)) * 100)} for {raw} yuan"
        return None, f"is {raw}, but it is {wanted}: write it without a point"
    if isinstance(raw, bool) or not isinstance(raw, int):
        return None, f"is {said_kind(raw)}, but it is {wanted}"
    if key.choices and str(raw) not in key.choices:
        return None, f"is {raw}; it is one of {', '.join(key.choices)}"
    if not key.low <= raw <= key.high:
        return None, f"is {raw}; it is between {key.low} and {key.high}{f' {unit}' if unit else ''}"
    return raw, ""


def _quantity(text: str, unit: str) -> int | None:
    # "5m" for a key in seconds: the number to write instead, or None when the text is nothing of the kind.
    from decimal import Decimal

    match = _QUANTITY.fullmatch(text)
    if match is None:
        return None
    name = match[1] or match[3].lower()
    factor = _factors(unit).get(name) if name else Decimal(1)
    number = Decimal(match[2]) * factor if factor is not None else Decimal("0.5")
    return int(number) if number == int(number) else None


def _factors(unit: str) -> dict[str, Decimal]:
    # What one of each name is in `unit`.
    from decimal import Decimal

    seconds = {"ms": "0.001", "s": "1", "sec": "1", "秒": "1", "m": "60", "min": "60", "分": "60", "分钟": "60", "h": "3600",
               "小时": "3600", "d": "86400", "day": "86400", "days": "86400", "天": "86400"}
    times = {"s": Decimal(1), "ms": Decimal("0.001"), "h": Decimal(3600), "days": Decimal(86400)}
    if unit in times:
        return {name: Decimal(factor) / times[unit] for name, factor in seconds.items()}
    if unit == "fen":
        return {name: Decimal(1 if name in ("fen", "分") else 100) for name in ("fen", "分", "yuan", "元", "rmb", "cny", "¥", "￥")}
    return {name: Decimal(1) for name in {"px": ("px",), "degrees": ("deg", "°"), "baud": ("baud",)}.get(unit, ())}


def _flag(key: Key, raw: Any) -> tuple[Any, str]:
    return (raw, "") if isinstance(raw, bool) else (None, f"is {said_kind(raw)}, but it is true or false, without quotes")


def _text(key: Key, raw: Any) -> tuple[Any, str]:
    if not isinstance(raw, str):
        return None, f"is {said_kind(raw)}, but it is text in double quotes"
    if not raw.isprintable():
        return None, "holds control or invisible characters; type it anew"
    if not key.low <= len(raw) <= key.high:
        return None, f"has {len(raw)} characters; it has {key.low} to {key.high}"
    return raw, ""


def _word(key: Key, raw: Any) -> tuple[Any, str]:
    value, fault = _text(key, raw)
    if fault:
        return value, fault
    if key.choices and raw not in key.choices:
        near = nearest(raw, key.choices, 1)
        return None, f"is {raw!r}; it is one of {', '.join(key.choices)}" + (f"; did you mean {near[0]!r}?" if near else "")
    if key.pattern and not re.fullmatch(key.pattern, raw):
        return None, f"is {raw!r}, which does not have the form {key.pattern}"
    return raw, ""


def _words(key: Key, raw: Any) -> tuple[Any, str]:
    if not isinstance(raw, list) or not all(isinstance(word, str) for word in raw):
        return None, f"is {said_kind(raw)}, but it is a list of texts such as [\"a\", \"b\"]"
    odd = [word for word in raw if key.choices and word not in key.choices]
    if odd:
        return None, f"names {', '.join(odd)}; known are {', '.join(key.choices)}"
    if len(set(raw)) < len(raw):
        return None, "names one twice"
    return tuple(raw), ""


def _pairs(key: Key, raw: Any) -> tuple[Any, str]:
    fine = isinstance(raw, list) and raw and all(
        isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and 1 <= n <= 86_400 for n in pair) for pair in raw
    )
    if not fine:
        return None, "is a list of pairs of whole seconds, [until, every], such as [[60, 2], [300, 5]]"
    untils = [until for until, _ in raw]
    if sorted(set(untils)) != untils:
        return None, "has pairs that do not rise: each holds until a later second than the one before"
    return tuple((until, every) for until, every in raw), ""


def _dict(key: Key, raw: Any) -> tuple[Any, str]:
    if isinstance(raw, dict) and all(isinstance(value, str) and value.isprintable() for value in raw.values()):
        return dict(sorted(raw.items())), ""
    return None, f"is {said_kind(raw)}, but it is a table of texts"


def _url(key: Key, raw: Any) -> tuple[Any, str]:
    value, fault = _text(key, raw)
    if fault or not raw:
        return value, fault
    match = re.fullmatch(r"(https?)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?(/[^\s?#]*)?", raw)
    if match is None:
        return None, f"is {raw!r}, which is no address such as https://api.example.com"
    if match[1] == "http" and not (match[2] in ("localhost", "[::1]") or re.fullmatch(r"127\.[0-9.]+", match[2])):
        return None, f"is {raw!r}; money travels by https, http is for loopback only"
    return raw.rstrip("/"), ""


_READERS = {"int": _int, "flag": _flag, "text": _text, "file": _text, "word": _word, "words": _words, "pairs": _pairs,
            "table": _dict, "url": _url}


def said_kind(raw: Any) -> str:
    # What was given, by its TOML name and never by its value: it may be a secret.
    names = {bool: "true or false", int: "a number", float: "a number with a point", str: "text", list: "a list", dict: "a table"}
    return names.get(type(raw), "a date")
