"""What strangers may write into texts, where it could end a consumer's thread: NUL characters, on both databases."""

from __future__ import annotations

import json

import pytest

from broker.refusal import RefusalError
from broker.signing import b64url, peek
from consumers.job_monitor import JobMonitor
from consumers.outcome import ACK
from consumers.store import chains, sessions
from schemas.messages.service import JobListing
from schemas.messages.user import QueryJobs
from tests.support.messages import admitted, tell, user

pytestmark = pytest.mark.integration


def test_no_nul_in_a_thumbprint():
    header = {
        "alg": "ES256", "typ": "job.kill.v1", "jti": "1", "iss": "/CN=x", "x5t#S256": "a\0b", "cli": "c", "aud": "a",
        "iat": 1.0, "exp": 2.0, "b64": False, "crit": ["b64"],
    }  # fmt: skip
    with pytest.raises(RefusalError, match="cannot be read"):
        peek(f"{b64url(json.dumps(header).encode())}..AAAA")


def test_a_nul_finds_nothing(store):
    with store.reading() as tx:
        assert chains.get(tx, ["a\0b"]) == {}
        assert sessions.get(tx, "a\0b") is None


def test_a_question_with_a_nul_is_answered(store, directory):
    asked = [
        QueryJobs(site="a\0"),
        QueryJobs(owner="\0", jobs=(1,)),
        QueryJobs(job_group="\0x"),
    ]
    for question in asked:
        heard = tell(store, JobMonitor(directory), [admitted(question, user("olga", "Operator", group="vo_admin"))])
        assert heard.outcomes == [ACK]
        assert heard.said == [JobListing(jobs=(), more=False)]
