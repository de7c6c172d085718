"""A merchant's key file: whole, or refused in one sentence.  A bit that rotted is found even where signing gets round it."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from device.drivers.channels.rsa_bytes import private_key


@pytest.fixture(scope="module")
def numbers():
    return rsa.generate_private_key(65537, 2048).private_numbers()


def pem_of(numbers, **damaged) -> bytes:
    parts = {name: getattr(numbers, name) for name in ("p", "q", "d", "dmp1", "dmq1", "iqmp")} | damaged
    key = rsa.RSAPrivateNumbers(**parts, public_numbers=numbers.public_numbers).private_key(unsafe_skip_rsa_key_validation=True)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def test_a_whole_key_is_taken(numbers):
    assert private_key(pem_of(numbers)).private_numbers() == numbers


def test_the_private_exponent_may_be_of_either_kind(numbers):
    """Of (p-1)(q-1) or of its least common multiple: both are in use."""
    other = pow(numbers.public_numbers.e, -1, (numbers.p - 1) * (numbers.q - 1))
    private_key(pem_of(numbers, d=other))


@pytest.mark.parametrize("part", ["d", "dmp1", "dmq1", "iqmp"])
@pytest.mark.parametrize("bit", [1, 700])
def test_damage_that_signing_gets_round_is_found(numbers, part, bit):
    with pytest.raises(ValueError, match="damaged"):
        private_key(pem_of(numbers, **{part: getattr(numbers, part) ^ 1 << bit}))
