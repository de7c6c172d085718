"""Which keys WeChat may sign replies with: public keys that a person brought, certificates that WeChat sends.

Knows when the certificates are worth asking for, and what proves a list of them: it opens with the merchant's APIv3 key, and a
key held or one in it signed it.  A list is kept as it came, still sealed, so that what lies on the card vouches for itself.
Refuses to know sockets, and any call but that one.

*Rotation.*  WeChat lists the old certificate and the new one side by side, and signs with the new from some hour on: the first
reply under a serial nobody knows makes us ask.  The newest list replaces the one before, so that a certificate which WeChat
withdrew is not believed.
Source: WeChat Pay API v3 (platform certificates, AEAD_AES_256_GCM, public-key mode).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

from device.drivers.channels import wechat_bytes as wire
from device.drivers.channels import wechat_word_bytes as words
from device.drivers.channels.codec_bytes import Reply
from device.drivers.channels.wechat_proof_bytes import Signer, certificate_signer, held_signer, proof_fault
from device.drivers.private_file import KeyFile
from device.errors import Outside

ASK_EVERY_S, ASK_AGAIN_S = 600, 20       # after a list that was proven; after a question that brought none
LIST_BYTES_MAX = 256 * 1024


class PlatformKeys:
    """`held` from serial or PUB_KEY_ID to PEM, a public key or a certificate; `api_v3_key` 32 ASCII characters, empty: no
    certificate is ever asked for; `file` where the list of certificates is kept, public material.  ValueError, one sentence, for a
    key that is none.  A kept list that cannot be read is none: it is asked for again.
    """

    def __init__(self, held: Mapping[str, bytes], *, api_v3_key: str = "", file: KeyFile | None = None) -> None:
        if api_v3_key and not (api_v3_key.isascii() and len(api_v3_key) == 32):
            raise ValueError("the APIv3 key has 32 characters")
        self._api_v3_key, self._file = api_v3_key.encode(), file
        self._held = {serial.upper(): held_signer(serial, pem) for serial, pem in held.items()}
        self.asked_serial = next((serial for serial in held if serial.startswith(wire.PUBLIC_KEY_PREFIX)), "")
        self._asked_s, self._pause_s = 0.0, 0.0
        self._sent: dict[str, Signer] | None = None   # the newest list; None: the kept one is not read yet (50 ms of a start)

    def fault(self, reply: Reply, now_s: float) -> str:
        """As `wire.proof_fault`, by the keys known now."""
        return proof_fault(self._known(), reply, now_s)

    def worth_asking(self, serial: str, now_s: float) -> bool:
        """True when WeChat's list may name `serial`, unknown here, and was not asked for just now.  Counts as asking."""
        if not self._api_v3_key or serial.startswith(wire.PUBLIC_KEY_PREFIX):
            return False
        if self._asked_s <= now_s < self._asked_s + self._pause_s:       # a clock that went back must not forbid it for hours
            return False
        self._asked_s, self._pause_s = now_s, ASK_AGAIN_S
        return True

    def take(self, reply: Reply, now_s: float) -> str:
        """The certificates in `reply` instead of those before, when it is proven; else why not, one sentence."""
        sent = self._opened(reply.body) if reply.status == 200 else {}
        if words.certificates_of(reply.body) and not sent:
            return "WeChat's certificates do not open: check the APIv3 key"
        if doubt := proof_fault(self._known() | sent, reply, now_s):
            return f"WeChat's list of certificates is not proven: {doubt}"
        self._pause_s = ASK_EVERY_S
        if words.no_certificates(reply):
            return "WeChat has no certificates for this merchant: bring its public key from the merchant portal"
        if not sent:
            return f"WeChat answered {reply.status} to the question for its certificates"
        self._sent = sent
        if self._file is not None:
            try:
                self._file.write(reply.body)
            except (OSError, Outside):
                pass                         # the next start asks for them again
        return ""

    def _known(self) -> dict[str, Signer]:
        if self._sent is None:
            try:
                kept = self._file.read() if self._file is not None and self._api_v3_key else b""
            except (OSError, Outside):
                kept = b""
            self._sent = self._opened(kept)
        return self._held | self._sent

    def _opened(self, body: bytes) -> dict[str, Signer]:
        """What opens of a list, by serial.  Whoever sealed it holds the merchant's APIv3 key: nobody else could have."""
        signers: dict[str, Signer] = {}
        for sent in words.certificates_of(body) if len(body) <= LIST_BYTES_MAX else ():
            sealed = sent.encrypt_certificate
            try:
                pem = open_sealed(api_v3_key=self._api_v3_key, nonce=sealed.nonce, associated_data=sealed.associated_data,
                                  ciphertext=sealed.ciphertext)
                signers[sent.serial_no.upper()] = certificate_signer(sent.serial_no, pem)
            except ValueError:
                continue                     # one we cannot use does not take the others away
        return signers


def open_sealed(*, api_v3_key: bytes, nonce: str, associated_data: str, ciphertext: str) -> bytes:
    """What WeChat sealed: a platform certificate or a notice.  `api_v3_key` 32 bytes, `ciphertext` base64, tag last.

    ValueError when it does not open.  Source: WeChat Pay API v3, AEAD_AES_256_GCM.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(api_v3_key).decrypt(nonce.encode(), base64.b64decode(ciphertext), associated_data.encode())
    except InvalidTag:
        raise ValueError("the sealed text does not open with this key") from None
