"""Records a second from a signer behind PKCS#11 (SoftHSM2), beside bare CKM_ECDSA signatures over one open session.

What the driver adds is a hash, a header, base64 and a hand-over to its thread and back; what it must never add is a login.  A chip
takes 10 to 700 ms for a signature, and then none of this is seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from device.drivers.signer.pkcs11 import Pkcs11Signer
from device.txn.effects import SignRecord

MODULE, PIN = "/usr/lib/softhsm/libsofthsm2.so", "bench-only"
BLOCKS, SIGNATURES = 16, 200
PAYLOAD = b"x" * 450
RATIO_MIN = 0.25


def rows() -> list[dict[str, Any]]:
    """None on a machine without SoftHSM2."""
    if not os.path.exists(MODULE) or shutil.which("softhsm2-util") is None:
        return []
    with tempfile.TemporaryDirectory() as folder:
        return _rows(Path(folder))


def _rows(folder: Path) -> list[dict[str, Any]]:
    import pkcs11
    (folder / "tokens").mkdir()
    (folder / "softhsm2.conf").write_text(f"directories.tokendir = {folder}/tokens\nobjectstore.backend = file\n")
    (folder / "pin").touch(0o600)
    (folder / "pin").write_text(PIN)
    os.environ["SOFTHSM2_CONF"] = str(folder / "softhsm2.conf")
    subprocess.run(["softhsm2-util", "--init-token", "--free", "--label", "till", "--so-pin", PIN, "--pin", PIN], check=True,
                   stdout=subprocess.DEVNULL)
    signer = Pkcs11Signer(MODULE, "till", "bench", str(folder / "pin"))
    private, hashed = signer._pair().private, hashlib.sha256(PAYLOAD).digest()

    async def records() -> None:
        for seq in range(SIGNATURES):
            await signer.do(SignRecord(seq, PAYLOAD))
    bare_s, driver_s = [], []
    for _ in range(BLOCKS):
        began = time.perf_counter()
        for _ in range(SIGNATURES):
            private.sign(hashed, mechanism=pkcs11.Mechanism.ECDSA)
        bare_s.append(time.perf_counter() - began)
        began = time.perf_counter()
        asyncio.run(records())
        driver_s.append(time.perf_counter() - began)
    floor, value = SIGNATURES / statistics.median(bare_s), SIGNATURES / statistics.median(driver_s)
    return [{"name": "signer.pkcs11", "value": round(value), "unit": "records/s", "floor": round(floor),
             "ratio": round(value / floor, 3), "goal": f"ratio >= {RATIO_MIN}: no login a signature",
             "holds": value / floor >= RATIO_MIN}]
