"""`python -m tests.push_kills [--seed N] [--rounds N] [--json]`: power cuts at random moments of pushes to the real daemon.

Each round pushes a configuration with a wrong broker address, kills the daemon at a moment drawn from one seed, and waits until the
box is back; then a good one, killed likewise, and waits until it stays.  Exit status 1 when a round does not end so, or when the
chain in the collector's store is not whole and does not tell each round once.
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

from fleet.records.proof import defects
from fleet.records.store import Store
from sim.broker import Broker
from tests.pushed_box import doc
from tests.pushed_shop import Shop, tale, until

ENDS = ("active", "rolled_back")


def played(seed: int, rounds: int, folder: Path) -> list[str]:
    """What went wrong, nothing if all is well."""
    draw, wrong = random.Random(seed), []
    with Broker(folder / "broker") as broker, socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        shop = Shop(folder, broker)
        try:
            shop.daemon.start()
            shop.await_state(0, "active")
            for version in range(1, 2 * rounds + 1):
                poison = version % 2 == 1
                told = {"mqtt": {"port": nobody.getsockname()[1]}} if poison else {"printer": {"columns": 30 + version % 30}}
                shop.patience(5 if poison else 60)
                shop.push(doc(version, told))
                time.sleep(draw.uniform(0, 7 if poison else 4))
                shop.daemon.cut(draw.uniform(0, 0.5))
                try:
                    if poison:                     # only the trial is short: the way back may take a busy machine longer
                        until(lambda version=version: shop.phase(version) in ("fallback", "rolled_back"), 60)
                        shop.patience(60)
                    shop.await_state(version, "rolled_back" if poison else "active")
                except AssertionError as why:
                    wrong.append(f"push {version}: {why}; {(folder / 'state/config/state.json').read_text()}; "
                                 f"{(folder / 'daemon.log').read_text()[-3_000:]}")
                    break
            store = Store(folder / "store.db", json.loads((folder / "keys.jwks").read_text())["keys"])
            try:
                until(lambda: not wrong and len([1 for _, word in tale(store) if word in ENDS]) >= 2 * rounds)
                ends = [one for one in tale(store) if one[1] in ENDS]
                if ends != [(n, "rolled_back" if n % 2 else "active") for n in range(1, 2 * rounds + 1)]:
                    wrong.append(f"the chain tells {ends}")
                wrong += [str(defect) for defect in defects(store)]
            except AssertionError:
                wrong.append(f"the chain tells {tale(store)} and no more")
            finally:
                store.close()
        finally:
            shop.close()
    return wrong


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.push_kills", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        wrong = played(args.seed, args.rounds, Path(folder))
    print(json.dumps({"seed": args.seed, "kills": 2 * args.rounds, "wrong": len(wrong), "holds": not wrong}) if args.json else
          f"{2 * args.rounds} kills in {args.rounds} rounds from seed {args.seed}: {len(wrong) or 'nothing'} wrong")
    for one in wrong:
        print(f"  {one}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
