"""How a box becomes a terminal of the gateway: a one-use code in, an id and the first key out.

Knows the code's secret, which signs both ways, and the device's own key pair.  The key itself is agreed upon and never sent.
The same code from the same device gets the same terminal, however often the answer is lost.  Refuses to know files and
sockets.
"""

from __future__ import annotations

from device.drivers.channels import gateway_key_bytes as keys
from device.drivers.channels.codec_bytes import Reply, Request
from device.drivers.channels.gateway_agreement import Agreement
from device.drivers.channels.gateway_bytes import unproven
from device.drivers.channels.terminal_bytes import Held


class Activation:
    """One attempt to become a terminal.  `device` this box's key pair, kept until it is over; `box` its name; `nonce` fresh."""

    def __init__(self, code: keys.Code, device: Agreement, *, box: str, nonce: str) -> None:
        self._code, self._device, self._box, self._nonce = code, device, box, nonce

    def request(self, at_s: int) -> Request:
        """`at_s` Unix time; a box fresh from its carton may be years off, and the gateway does not mind."""
        key = keys.derived(self._code.secret, self._code.id, "activate request")
        return keys.sealed(keys.activate_call(self._device.public, self._box), {"Tillbox-Code": self._code.id}, key, at_s,
                           self._nonce)

    def read(self, reply: Reply) -> Held:
        """The terminal's first key, and what came with it.  ValueError, one sentence, when there is none."""
        fault = keys.proof_fault(reply, self._nonce, self._code.secret, self._code.id, "activate reply")
        if reply.status == 401:                # unsigned: to whom it does not know it shows nothing
            raise ValueError("the gateway knows no such code, or the code was mistyped too often: ask for a fresh one")
        odd = unproven(reply, fault)
        if odd is not None:
            raise ValueError(odd.detail)
        said = keys.activated(reply.body)
        try:
            shared = self._device.shared(said.theirs)
        except ValueError:
            raise ValueError("the gateway's reply holds no key to agree with") from None
        key = keys.common_key(shared, self._code.secret, self._code.id, f"terminal {said.terminal_id}", self._device.public,
                              said.theirs)
        return Held(key, notes={"terminal": said.terminal_id, "wallets": " ".join(said.wallets)})
