"""The worked example of the wire format is true, and can be checked with nothing of ours."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

from jwcrypto import jwk, jws

from broker.login import ASSERTION_SECONDS, MAX_ASSERTION_BYTES, MAX_CHAIN, TYPE
from broker.signing import ChainFacts, open_envelope
from broker.topology import REPLY_EXPIRES, REPLY_TTL
from schemas.envelope import CLOCK_SKEW, JWS_HEADER, MAX_JWS_BYTES, Header
from schemas.messages.user import KillJobs

PAGE = (Path(__file__).parents[3] / "docs" / "wire-format.md").read_text("utf-8")


def block(name: str) -> str:
    found = re.search(rf"^```{name}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert found, name
    return found[1].replace("\n", "")


BODY, PROTECTED, SIGNATURE = block("body").encode(), block("protected"), block("signature")
KEY = jwk.JWK.from_json(block("jwk"))


def test_the_header_is_what_the_page_says() -> None:
    raw = base64.urlsafe_b64decode(PROTECTED + "=" * (-len(PROTECTED) % 4)).decode()
    assert raw == block("header")


def test_a_standard_library_verifies_it() -> None:
    token = jws.JWS()
    token.allowed_algs = ["ES256"]
    token.deserialize(f"{PROTECTED}..{SIGNATURE}")
    token.verify(KEY, detached_payload=BODY)


def test_we_verify_it() -> None:
    header = json.loads(block("header"))
    public = KEY.get_op_key("verify")
    facts = ChainFacts(header["iss"], False, header["iat"], header["exp"], public)
    verified = open_envelope(
        f"{PROTECTED}..{SIGNATURE}",
        BODY,
        resolve={header["x5t#S256"]: facts}.get,
        audiences={"job-manager"},
        now=header["iat"],
        user_id=header["cli"],
    )
    assert verified.message == KillJobs(jobs=(7,))


def test_every_field_of_the_header_is_in_the_table() -> None:
    for name in Header.__struct_encode_fields__:
        assert re.search(rf"^\|.*`{re.escape(name)}`.* \|", PAGE, re.MULTILINE), name


def test_the_numbers_are_the_codes() -> None:
    for text in (
        f"header `{JWS_HEADER}`",
        f"At most {MAX_JWS_BYTES >> 10} KiB.",
        f"`iat` may lie {CLOCK_SKEW} s in the future",
        f"at most {ASSERTION_SECONDS} s apart",
        f"At most {MAX_ASSERTION_BYTES >> 10} KiB; ",
        f"1 to {MAX_CHAIN} certificates",
        f"`{TYPE}`",
    ):
        assert text in PAGE
    assert (REPLY_EXPIRES, REPLY_TTL) == (3_600_000, 600_000), "the page says an hour and ten minutes"
