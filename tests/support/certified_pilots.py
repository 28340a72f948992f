"""Pilots of a test's deployment that have certificates of their own, as sites may give them; they enrol nowhere."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from broker.identity import Authority
from compose.local import configs
from compose.local.configs import PILOTS, Addresses
from compose.local.files import Section, private_folder, toml_text, write_private
from compose.local.layout import Layout


def pilot_dn(number: int) -> str:
    """DN of a pilot."""
    return f"/O=Pilotage/OU=Pilots/CN=pilot-{number}"


def pilot_credential(layout: Layout, number: int) -> Path:
    """Certificate and key of a pilot."""
    return layout.pilots / f"pilot-{number}.pem"


def make_pilots(layout: Layout, count: int, now: dt.datetime) -> None:
    """Make certificates, and enter the pilots into the registry's seed, which is there already."""
    private_folder(layout.pilots)
    authority = Authority.load(layout.authority)
    for number in range(1, count + 1):
        write_private(pilot_credential(layout, number), authority.issue(pilot_dn(number), now=now).to_pem())
    users: list[Section] = [
        {"dn": pilot_dn(number), "nickname": f"pilot-{number}", "groups": [PILOTS]} for number in range(1, count + 1)
    ]
    with layout.registry.open("a", encoding="utf-8") as file:
        file.write("\n" + toml_text({"users": users}, "Pilots with certificates."))


def write_pilot_config(layout: Layout, addresses: Addresses, number: int, slots: int) -> None:
    """As :func:`compose.local.configs.write_pilot_config`, with a certificate in place of an enrolment."""
    configs.write_pilot_config(layout, addresses, number, slots)
    config = layout.pilot_config(number)
    lines = [line for line in config.read_text("utf-8").splitlines() if not line.startswith("enrolment =")]
    lines.insert(lines.index("[pilot]") + 1, f'credential = "{pilot_credential(layout, number)}"')
    config.write_text("\n".join(lines) + "\n", "utf-8")
