from __future__ import annotations

from tests.support import effort

effort.use()
