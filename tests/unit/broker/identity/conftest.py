from __future__ import annotations

from pathlib import Path

import pytest

from broker.identity import TrustStore, VomsDir
from tests.support.pki import Pki, make_pki

GRID = Path(__file__).parents[3] / "fixtures" / "grid"


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("trust"))


@pytest.fixture(scope="session")
def grid() -> Path:
    return GRID


@pytest.fixture(scope="session")
def grid_trust() -> TrustStore:
    return TrustStore.load(GRID / "certificates")


@pytest.fixture(scope="session")
def grid_vomsdir() -> VomsDir:
    return VomsDir.load(GRID / "vomsdir")
