"""Chains made by the real grid tools are judged as recorded beside them."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from broker.identity import IdentityError, TrustStore, VomsDir, verify_chain

GRID = Path(__file__).parents[3] / "fixtures" / "grid"
EXPECTED = json.loads((GRID / "expected.json").read_text())
# The day after the fixtures were made: their chains live until late 2027 and 2031, whatever today is.
NOW = dt.datetime(2026, 11, 24, tzinfo=dt.UTC)
# What the list of expectations calls a reason → how we say it.
WORDS = {
    "EEC not issued by a trusted CA": "legacy proxies are refused",
    "subject is not issuer+CN": "is not its issuer and one CN",
    "CA:TRUE in proxy": "CA:TRUE in a proxy",
    "issuer lacks digitalSignature": "lacks digitalSignature",
    "proxy below a non-proxy": "certificates of several end entities",
    "path length exceeded": "path length exceeded",
    "alt name in proxy": "alternative name in a proxy",
    "weak key": "weak key",
    "expired": "expired",
    "not yet valid": "not yet valid",
    "policy language not understood": "policy language not understood",
    "revoked": "revoked",
}
# Where they say only that no chain could be built, we say what is wrong with it.
BETTER = {
    "o_same_subject": "is not its issuer and one CN",
    "rfc_bad_signature": "bad signature",
    "rfc_wrong_key": "bad signature",
    "rfc_chain_gap": "a proxy whose issuer is missing",
    "rfc_chain_missing_eec": "no end entity's certificate",
}


@pytest.mark.parametrize("name", [name for name, item in EXPECTED.items() if item["valid"]])
def test_valid_chain(name: str, grid_trust: TrustStore, grid_vomsdir: VomsDir) -> None:
    expected = EXPECTED[name]
    chain = verify_chain((GRID / "proxies" / f"{name}.pem").read_bytes(), grid_trust, grid_vomsdir, NOW)
    assert chain.identity == expected["identity"]
    assert chain.limited == expected["limited"]
    assert chain.depth == expected["depth"]
    assert str(chain.not_after) == expected["not_after"]
    assert [ac.valid for ac in chain.acs] == [ac["ok"] for ac in expected["acs"]]
    for ac, wanted in zip(chain.acs, expected["acs"], strict=True):
        if wanted["ok"]:
            assert (ac.vo, list(ac.fqans)) == (wanted["vo"], wanted["fqans"])
            assert [[item.name, item.value, item.qualifier] for item in ac.generic] == wanted["ga"]
        else:
            assert " ".join(wanted["err"].split(":")[0].split()[:4]).removeprefix("AC ") in ac.reason
            assert ac.fqans == ()


@pytest.mark.parametrize("name", [name for name, item in EXPECTED.items() if not item["valid"]])
def test_invalid_chain(name: str, grid_trust: TrustStore, grid_vomsdir: VomsDir) -> None:
    with pytest.raises(IdentityError) as caught:
        verify_chain((GRID / "proxies" / f"{name}.pem").read_bytes(), grid_trust, grid_vomsdir, NOW)
    why = EXPECTED[name]["why"]
    words = BETTER.get(name) or next(words for start, words in WORDS.items() if why.startswith(start))
    assert words in caught.value.reason
    if "identity" in EXPECTED[name]:
        assert caught.value.identity == EXPECTED[name]["identity"]


def test_every_fixture_is_expected() -> None:
    assert {path.stem for path in (GRID / "proxies").glob("*.pem")} == set(EXPECTED)


def test_without_vomsdir_no_attribute_counts(grid_trust: TrustStore) -> None:
    chain = verify_chain((GRID / "proxies" / "voms_ga.pem").read_bytes(), grid_trust, None, NOW)
    assert chain.fqans == ()
    assert [ac.valid for ac in chain.acs] == [False]
