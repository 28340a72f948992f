"""Names of files and of their copies."""

from __future__ import annotations

import pytest

from consumers.replica_catalog import what_is_wrong_with_lfn, what_is_wrong_with_pfn


@pytest.mark.parametrize("lfn", ["/vo/a", "/vo.example.org/user/a/b c/ä.dat", "/vo/..."])
def test_logical_names(lfn: str) -> None:
    assert not what_is_wrong_with_lfn(lfn)


@pytest.mark.parametrize(
    "lfn", ["", "/", "/vo", "vo/a", "/vo/", "/vo//a", "/vo/../a", "/vo/./a", "/vo/a\n", "/.vo/a", "LFN:/vo/a"]
)
def test_what_is_no_logical_name(lfn: str) -> None:
    assert what_is_wrong_with_lfn(lfn)


@pytest.mark.parametrize(
    "pfn",
    [
        "file:///data/a",
        "root://se.example.org:1094//data/a",
        "https://se.example.org/data/a",
        "srm://se.example.org:8443/srm/managerv2?SFN=/data/a",
    ],
)
def test_places(pfn: str) -> None:
    assert not what_is_wrong_with_pfn(pfn)


@pytest.mark.parametrize(
    "pfn",
    [
        "/data/a",
        "ftp://se.example.org/a",
        "javascript:alert(1)",
        "https://me:secret@se.example.org/a",
        "https:///a",
        "https://se.example.org",
        "https://se.example.org/",
        "file:///data/../etc/passwd",
        "file:///data/a b",
        "https://[se/a",
        "FILE:a",
    ],
)
def test_no_places(pfn: str) -> None:
    assert what_is_wrong_with_pfn(pfn)
