"""What a box is told, made of layers: the fleet's, its groups' and its own.  Pure: layers in, one body out, each key's origin kept.

Knows how layers lie over each other and what of them is a secret; refuses to know the database and how a document is signed.  The
check is the box's own (`device/push/checks.py`), so that what no box would take never leaves.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from device.config import SECTIONS, Config, merged, parse
from device.errors import ConfigError
from device.mqtt.config_wire import CONFIG_MAX_BYTES, Blob, Body
from device.push.checks import Unreadable, effective, judged

SECRETS = frozenset(key.name for keys in SECTIONS.values() for key in keys if key.secret)
STAND_IN = "x" * 16                      # for a secret that this program never saw: it is sealed to the box
EVERYONE = "all"                         # the layer of the whole fleet; in a document its origin reads `group:all`
CONTROL = ("blobs",)
FILE_CHARS_MAX = 2 * CONFIG_MAX_BYTES    # comments and all; the check of a longer one would take minutes


class Layer(msgspec.Struct, frozen=True):
    """`name` is `all`, `group:G` or `box:B`; `n` its version; `set` as in a document, but for a secret `{"sealed": true}`; `blobs`
    digests by name."""

    name: str
    n: int = 0
    set: dict[str, Any] = {}
    blobs: dict[str, str] = {}

    @property
    def origin(self) -> str:
        return "box" if self.name.startswith("box:") else "group:all" if self.name == EVERYONE else self.name


class Given(msgspec.Struct, frozen=True):
    """A file that is pushed: what it sets, the secrets in it by dotted key, and the files of its blobs."""

    set: dict[str, Any]
    secrets: dict[str, str]
    blobs: dict[str, str]


def given(text: str, read: Callable[[str], str], *, which: str) -> Given:
    """The pushed file in `text`, TOML as box.toml with a table `blobs` of file names.  ConfigError with every reason.

    A secret is written plain, or as `file:PATH`, which `read` gives the text of; it leaves this program sealed or not at all.
    """
    if len(text) > FILE_CHARS_MAX:
        raise ConfigError([f"it has {len(text)} characters, more than {FILE_CHARS_MAX}: what a box is told of all layers has at "
                           f"most {CONFIG_MAX_BYTES} bytes; what is larger goes as a blob"], which=which)
    try:
        data = tomllib.loads(text)
        flat(data)
    except tomllib.TOMLDecodeError as why:
        raise ConfigError([f"not TOML: {why}"], which=which) from None
    except RecursionError:
        raise ConfigError(["not TOML that anybody wrote: it is nested without end"], which=which) from None
    reasons: list[str] = []
    blobs = data.pop("blobs", {})
    if not isinstance(blobs, dict) or not all(isinstance(path, str) for path in blobs.values()):
        reasons.append("blobs is a table of file names: prices, rules, \"picture/NAME\"")
        blobs = {}
    secrets: dict[str, str] = {}
    plain = _parted(data, "", secrets, read, reasons)
    if reasons:
        raise ConfigError(reasons, which=which)
    return Given(plain, secrets, blobs)


def _parted(told: Any, at: str, secrets: dict[str, str], read: Callable[[str], str], reasons: list[str]) -> Any:
    if isinstance(told, list):
        return [_parted(one, f"{at}{n}.", secrets, read, reasons) for n, one in enumerate(told)]
    if not isinstance(told, dict):
        return told
    whole: dict[str, Any] = {}
    for name, value in told.items():
        if name in SECRETS and isinstance(value, str) and value:
            try:
                secrets[at + name] = read(value[5:]) if value.startswith("file:") else value
            except OSError as why:
                reasons.append(f"{at}{name}: {why.filename} cannot be read: {why.strerror}")
            value = {"sealed": True}
        whole[name] = _parted(value, f"{at}{name}.", secrets, read, reasons)
    return whole


def composed(layers: Sequence[Layer], sealed: Callable[[Layer, str], str], blob: Callable[[str], Blob], *,
             payee_change: bool = False) -> tuple[Body, list[str]]:
    """The body of `layers`, the last one on top, and what stands against it.

    `sealed(layer, key)` the secret of a layer for this box as a JWE, "" when it was never sealed to it; `blob(sha256)` what a
    document says of a blob.
    """
    reasons: list[str] = []
    whole: dict[str, Any] = {}
    origin: dict[str, str] = {}
    blobs: dict[str, Blob] = {}
    for layer in layers:
        told = _with_jwe(layer.set, "", layer, sealed, reasons)
        for key, _ in flat(told):
            for under in [known for known in origin if known.startswith(key + ".") or key.startswith(known + ".")]:
                del origin[under]                     # a table in place of a value, or the other way round
            origin[key] = layer.origin
        for name, sha256 in layer.blobs.items():
            blobs[name], origin[f"blobs.{name}"] = blob(sha256), layer.origin
        whole = merged(whole, told)
    standing = {key for key, _ in flat(whole)} | {f"blobs.{name}" for name in blobs}
    return Body(whole, blobs, {key: who for key, who in origin.items() if key in standing}, payee_change), reasons


def _with_jwe(told: Any, at: str, layer: Layer, sealed: Callable[[Layer, str], str], reasons: list[str]) -> Any:
    if isinstance(told, list):
        return [_with_jwe(one, f"{at}{n}.", layer, sealed, reasons) for n, one in enumerate(told)]
    if not isinstance(told, dict):
        return told
    if told == {"sealed": True}:
        token = sealed(layer, at[:-1])
        if not token:
            reasons.append(f"{at[:-1]} of {layer.name} was never sealed to this box's key: push that layer again")
        return {"jwe": token}
    return {name: _with_jwe(value, f"{at}{name}.", layer, sealed, reasons) for name, value in told.items()}


def flat(told: Mapping[str, Any], at: str = "") -> list[tuple[str, Any]]:
    """(dotted key, value) of every leaf; a list or a secret is one."""
    pairs: list[tuple[str, Any]] = []
    for name, value in told.items():
        if isinstance(value, dict) and set(value) not in ({"jwe"}, {"sealed"}):
            pairs += flat(value, f"{at}{name}.")
        else:
            pairs.append((f"{at}{name}", value))
    return pairs


def differences(before: Body, after: Body) -> list[tuple[str, str, str, str]]:
    """(key, before, after, origin) of what one body changes of another; a secret is never shown."""
    old, new = ({**dict(flat(body.set)), **{f"blobs.{name}": one.sha256[:12] for name, one in body.blobs.items()}}
                for body in (before, after))
    return [(key, _shown(old.get(key)), _shown(new.get(key)), after.origin.get(key, before.origin.get(key, "")))
            for key in sorted(old.keys() | new.keys()) if old.get(key) != new.get(key)]


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return "***" if isinstance(value, dict) else msgspec.json.encode(value).decode()


# The box's own check, made in the cloud -------------------------------------------------------------------------------

def base_of(box: str, known: str) -> dict[str, Any]:
    """box.toml as the cloud knows it; without one, just enough of a box."""
    if known:
        return tomllib.loads(known)
    return {"box": box, "box_no": "000000", "tenant": "t", "display": {"kind": "none"}, "scanner": {"kind": "none"},
            "keypad": {"kind": "none"}, "mqtt": {"host": "broker.invalid"}}


def reasons_against(box: str, known: str, before: Body, after: Body) -> list[str]:
    """Every reason for which this box would refuse `after`, as far as the cloud can tell; `known` its box.toml, "" when unknown."""
    base = base_of(box, known)

    def made(body: Body) -> Config:
        return effective(base, body, _stand_in, lambda sha256: f"/blobs/{sha256}")
    try:
        runs = made(before)
    except ConfigError:                               # the cloud knows too little of this box, or its rules changed since
        runs = parse(base)
    told = list(judged(after, runs, made))
    if told and not known and any(" is missing" in one or "there is no [channel" in one for one in told):
        told.append(f"the cloud has not seen box.toml of {box}: if that is where these keys are, tillfleet config base tells it")
    return told


def _stand_in(token: str) -> str:
    if not token:
        raise Unreadable("it was never sealed to this box")
    return STAND_IN
