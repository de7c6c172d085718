"""A large price book for benches: `python -m sim.data.generate ROWS > FILE`.  Every row says that it is made up.

Numbers stand in 2900000…, which GS1 leaves to shops, so that no generated row can be taken for goods that exist.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator

from device.goods import check_digit
from device.price_file import HEADER

ROWS = 50_000
SOURCE = "generated for benches, no such goods"


def price_book(rows: int = ROWS, *, seed: int = 1) -> bytes:
    """A CSV price list of `rows` rows, the same for the same seed."""
    return "\n".join([",".join(HEADER), *_lines(rows, random.Random(seed)), ""]).encode()


def _lines(rows: int, dice: random.Random) -> Iterator[str]:
    for n in range(rows):
        stem = f"29{n:010d}"
        yield f"{stem}{check_digit(stem)},测试商品{n},Test goods {n},{dice.randrange(50, 20_000)},piece,\"{SOURCE}\""


if __name__ == "__main__":
    sys.stdout.buffer.write(price_book(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
