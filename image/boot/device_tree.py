"""A flattened device tree, read and written: enough to change what a board's own tree says about its serial lines.

Format: Devicetree Specification 0.4, chapter 5 (header version 17).  tests/image/test_device_tree.py holds it against dtc.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

MAGIC, BEGIN, END, PROPERTY, NOP, FINISH = 0xD00DFEED, 1, 2, 3, 4, 9


class Node:
    """A node: its name (the root's is empty), what it says (name to bytes) and the nodes below it, all in order."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.says: dict[str, bytes] = {}
        self.below: list[Node] = []

    def at(self, path: str) -> Node:
        """The node at `path` ("soc/serial@7e201000") from here.  Raises KeyError."""
        node = self
        for name in filter(None, path.split("/")):
            node = next((one for one in node.below if one.name == name), None) or _missing(path)
        return node

    def drop(self, name: str) -> None:
        """Take the node of that name from below this one, if it is there."""
        self.below = [one for one in self.below if one.name != name]

    def add(self, name: str) -> Node:
        """A new node below this one."""
        self.below.append(node := Node(name))
        return node

    def all(self) -> Iterator[Node]:
        """This node and every node below it."""
        yield self
        for one in self.below:
            yield from one.all()


class Tree(NamedTuple):
    """A whole tree: the root, the memory it sets aside (as bytes), the processor that starts."""

    root: Node
    reserved: bytes
    processor: int


def cells(*numbers: int) -> bytes:
    return struct.pack(f">{len(numbers)}I", *numbers)


def numbers(value: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(value) // 4}I", value)


def text(words: str) -> bytes:
    return words.encode() + b"\0"


def parse(blob: bytes) -> Tree:
    """Raises ValueError when `blob` is no device tree of version 17."""
    if len(blob) < 40:
        raise ValueError("too short for a device tree")
    magic, _, at, strings, reserved, version, _, processor, _, size = struct.unpack_from(">10I", blob)
    if magic != MAGIC or version != 17:
        raise ValueError("not a device tree of version 17")
    root, stack, end = Node(""), [Node("above")], at + size
    while at < end:
        (token,) = struct.unpack_from(">I", blob, at)
        at += 4
        if token == BEGIN:
            name, at = _string(blob, at)
            stack.append(stack[-1].add(name))
            root = stack[1]
            at += -at % 4
        elif token == END:
            stack.pop()
        elif token == PROPERTY:
            length, name_at = struct.unpack_from(">II", blob, at)
            stack[-1].says[_string(blob, strings + name_at)[0]] = blob[at + 8:at + 8 + length]
            at += 8 + length + -length % 4
        elif token == FINISH:
            break
        elif token != NOP:
            raise ValueError(f"token {token} is none of a device tree")
    ends = reserved
    while any(blob[ends:ends + 16]):
        ends += 16
    return Tree(root, blob[reserved:ends + 16], processor)


def dump(tree: Tree) -> bytes:
    """The blob of `tree`; what `parse` reads back."""
    names: dict[str, int] = {}
    strings, body = bytearray(), bytearray()

    def write(node: Node) -> None:
        body.extend(cells(BEGIN) + _padded(text(node.name)))
        for name, value in node.says.items():
            if name not in names:
                names[name] = len(strings)
                strings.extend(text(name))
            body.extend(cells(PROPERTY, len(value), names[name]) + _padded(value))
        for one in node.below:
            write(one)
        body.extend(cells(END))
    write(tree.root)
    body += cells(FINISH)
    at = 40 + len(tree.reserved)
    total = at + len(body) + len(strings)
    head = cells(MAGIC, total, at, at + len(body), 40, 17, 16, tree.processor, len(strings), len(body))
    return head + tree.reserved + bytes(body) + bytes(strings)


def handle(root: Node, node: Node) -> int:
    """The number by which other nodes point at `node`; given to it when it has none."""
    if "phandle" not in node.says:
        used = [int.from_bytes(one.says["phandle"], "big") for one in root.all() if "phandle" in one.says]
        node.says["phandle"] = cells(max(used, default=0) + 1)
    return int.from_bytes(node.says["phandle"], "big")


def pointed(root: Node, number: int) -> Node:
    """The node that `number` points at.  Raises KeyError."""
    return next((one for one in root.all() if one.says.get("phandle") == cells(number)), None) or _missing(str(number))


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)


def _string(blob: bytes, at: int) -> tuple[str, int]:
    end = blob.index(b"\0", at)
    return blob[at:end].decode(), end + 1


def _missing(path: str) -> Node:
    raise KeyError(path)
