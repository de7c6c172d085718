"""`python -m bench [WORD …]`: one JSON object a line; exits 1 when a goal is missed.

With words, only the benches whose name has one of them.  A bench that is not there or breaks is a line with `error`.
"""

from __future__ import annotations

import importlib
import json
import sys

# module:function, each gives a list of rows
BENCHES = ["bench.display:rows", "bench.sale:rows", "bench.append:rows", "bench.paid:rows", "bench.boot:rows",
           "bench.link:rows", "bench.link_bytes:rows", "bench.collect:rows", "bench.signer:rows", "bench.scan:rows",
           "bench.receipt:rows", "bench.console:rows"]


def main(words: list[str]) -> int:
    missed = 0
    for bench in BENCHES:
        if words and not any(word in bench for word in words):
            continue
        module, function = bench.split(":")
        try:
            rows = getattr(importlib.import_module(module), function)()
        except (ImportError, AttributeError, OSError, RuntimeError) as error:
            rows = [{"name": bench, "error": f"{type(error).__name__}: {error}", "holds": False}]
        for row in rows:
            print(json.dumps(row, ensure_ascii=False), flush=True)
            missed += not row["holds"]
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
