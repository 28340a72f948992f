"""Which keys are looked at at all."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from broker.identity import IdentityError
from broker.identity.keys import check_public_key

MODULUS = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key().public_numbers().n


@pytest.mark.parametrize(("exponent", "good"), [(3, True), (65537, True), (2**63 + 1, True), (2**64 + 1, False)])
def test_an_exponent_that_only_costs_time(exponent: int, good: bool) -> None:
    key = rsa.RSAPublicNumbers(exponent, MODULUS).public_key()
    if good:
        assert check_public_key(key) is key
    else:
        with pytest.raises(IdentityError, match="exponent"):
            check_public_key(key)
