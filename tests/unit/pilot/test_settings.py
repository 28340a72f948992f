"""The pilot's file: right values, and errors that name file and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from pilot.hardware import GpuDevice
from pilot.settings import load
from schemas.errors import ConfigurationError

GOOD = """
[broker]
host = "h"
port = 5671
ca_file = "tls/ca.pem"
name = "vo"
gatekeeper = "/CN=gatekeeper"
[trust]
ca_dir = "/abs/certificates"
[pilot]
credential = "pilot.pem"
site = "S1"
work_dir = "work"
slots = 2
wall_seconds = 600
tags = ["gpu"]
[stores]
"SE1" = "/data/se1"
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "pilot.toml"
    path.write_text(text)
    return path


def test_everything_lands_where_it_belongs(tmp_path: Path) -> None:
    settings = load(written(tmp_path, GOOD))
    assert settings.session.endpoint.ca_file == tmp_path / "tls/ca.pem"
    assert settings.session.trust_dir == Path("/abs/certificates")
    assert settings.session.voms_dir is None
    assert settings.credential == tmp_path / "pilot.pem"
    assert (settings.slots, settings.wall_seconds, settings.memory_mb) == (2, 600.0, None)
    assert (settings.tags, dict(settings.stores)) == (("gpu",), {"SE1": Path("/data/se1")})


@pytest.mark.parametrize(
    ("good", "bad", "named"),
    [
        ('host = "h"', "", "[broker] host is missing"),
        ("port = 5671", 'port = "5671"', "[broker] port must be of type int"),
        ("port = 5671", "port = true", "[broker] port must be of type int"),
        ('site = "S1"', "", "[pilot] site is missing"),
        ("slots = 2", 'slots = "two"', "[pilot] slots must be of type int"),
        ("slots = 2", "slots = -2", "[pilot] slots"),
        ("wall_seconds = 600", "wall_seconds = -1", "[pilot] wall_seconds must be a number, 0 or more"),
        ("wall_seconds = 600", "wall_seconds = nan", "[pilot] wall_seconds must be a number, 0 or more"),
        ("slots = 2", "cpu_power = 0", "[pilot] cpu_power"),
        ("slots = 2", "heartbeat_seconds = 0", "[pilot] heartbeat_seconds"),
        ('tags = ["gpu"]', "tags = [1]", "[pilot] tags must be a list of texts"),
        ('tags = ["gpu"]', 'tags = "gpu"', "[pilot] tags must be of type list"),
        ('"SE1" = "/data/se1"', '"SE1" = 1', "[stores] SE1"),
        ("[stores]", "[[stores]]", "[stores]"),
        ("[broker]", "broker = 1\n[other]", "[broker]"),
        ("[trust]", "[trust", "not TOML"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path: Path, good: str, bad: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(written(tmp_path, GOOD.replace(good, bad)))
    assert named in str(caught.value)
    assert str(tmp_path / "pilot.toml") in str(caught.value)


def test_what_it_offers_and_takes(tmp_path: Path) -> None:
    more = """pool = "big"
job_types = ["Test"]
groups = ["vo_user"]
owners = ["/CN=ada"]
group = "vo_private"
gpus = [{device = "GPU-1", model = "A100", memory_mb = 40000}, {memory_mb = 16e3}]
tags ="""
    settings = load(written(tmp_path, GOOD.replace("tags =", more)))
    assert (settings.pool, settings.job_types, settings.groups) == ("big", ("Test",), ("vo_user",))
    assert (settings.owners, settings.group) == (("/CN=ada",), "vo_private")
    assert settings.gpus == (GpuDevice("GPU-1", "A100", 40_000.0, "GPU-1"), GpuDevice("1", "", 16_000.0, "1"))
    assert load(written(tmp_path, GOOD)).gpus is None
    assert load(written(tmp_path, GOOD.replace("tags =", "gpus = []\ntags ="))).gpus == ()


@pytest.mark.parametrize(
    "gpus",
    ["[1]", "[{}]", "[{memory_mb = 0}]", "[{memory_mb = 1, device = 0}]", '[{memory_mb = 1, device = "0,1"}]',
     '[{memory_mb = "much"}]', "[{memory_mb = 1, colour = 2}]", "3"],
)  # fmt: skip
def test_gpus_that_make_no_sense(tmp_path: Path, gpus: str) -> None:
    with pytest.raises(ConfigurationError, match="gpus"):
        load(written(tmp_path, GOOD.replace("tags =", f"gpus = {gpus}\ntags =")))


def test_no_file_and_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load(tmp_path / "none.toml")
    (tmp_path / "x").write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match="not TOML"):
        load(tmp_path / "x")


def test_a_pilot_enrols_or_has_a_certificate(tmp_path: Path) -> None:
    def said(line: str) -> str:
        return GOOD.replace('credential = "pilot.pem"', line)

    settings = load(written(tmp_path, said('enrolment = "pilot.enrol"')))
    assert (settings.enrolment, settings.credential) == (str(tmp_path / "pilot.enrol"), None)
    for source in ("-", "env"):
        assert load(written(tmp_path, said(f'enrolment = "{source}"'))).enrolment == source
    assert load(written(tmp_path, GOOD)).enrolment == ""
    with pytest.raises(ConfigurationError, match="enrolment is missing"):
        load(written(tmp_path, said("")))
    with pytest.raises(ConfigurationError, match="not both"):
        load(written(tmp_path, said('credential = "pilot.pem"\nenrolment = "-"')))
