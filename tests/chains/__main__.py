"""Make every chain anew: `python -m tests.chains`, then look at the diff."""

from __future__ import annotations

import shutil

from tests.chains import FILES
from tests.chains.cases import CASES
from tests.store_forward.test_chains import found, keys_text, text_of

shutil.rmtree(FILES, ignore_errors=True)
expected = []
for error, cases in CASES.items():
    (FILES / error).mkdir(parents=True)
    for what in cases:
        path = FILES / error / f"{what}.txt"
        path.write_bytes(text_of(error, what))
        expected += [f"{error}/{what}.txt: {said}" for said in found(path.read_bytes()) or ["whole"]]
(FILES / "keys.json").write_text(keys_text())
(FILES / "expected.txt").write_text("\n".join(expected) + "\n")
