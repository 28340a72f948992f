"""Installs this checkout into the virtual environment that runs it, without a build: a path file, metadata, scripts.

What an editable installation does, in a tenth of a second, with nothing to download and no import hook that would slow
every start of the command line. `pip uninstall pilotage` removes it again. Uses the standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import sys
import sysconfig
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """\
#!{python}
import sys

from {module} import {function}

sys.exit({function}())
"""


def install(root: Path, libraries: Path, scripts: Path) -> list[Path]:
    """Write the files and return them.

    Args:
        root: the checkout, with its pyproject.toml.
        libraries: the environment's site-packages.
        scripts: the environment's folder of programs.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    name, version = project["name"], project["version"]
    for old in libraries.glob(f"{name}-*.dist-info"):
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    information = libraries / f"{name}-{version}.dist-info"
    information.mkdir()
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in project["dependencies"]]
    entries = [f"{script} = {target}" for script, target in project["scripts"].items()]
    texts = {
        libraries / f"{name}.pth": f"{root}\n",
        information / "METADATA": "\n".join(metadata) + "\n",
        information / "INSTALLER": "pip\n",
        information / "entry_points.txt": "\n".join(["[console_scripts]", *entries]) + "\n",
    }
    for script, target in project["scripts"].items():
        module, function = target.split(":")
        texts[scripts / script] = SCRIPT.format(python=sys.executable, module=module, function=function)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
        if file.parent == scripts:
            file.chmod(0o755)
    record = information / "RECORD"
    record.write_text("".join(_record_line(file, libraries) for file in texts) + _shown(record, libraries) + ",,\n")
    return [*texts, record]


def _record_line(file: Path, libraries: Path) -> str:
    content = file.read_bytes()
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
    return f"{_shown(file, libraries)},sha256={digest},{len(content)}\n"


def _shown(file: Path, libraries: Path) -> str:
    return file.relative_to(libraries).as_posix() if file.is_relative_to(libraries) else str(file)


if __name__ == "__main__":
    if sys.prefix == sys.base_prefix:
        sys.exit("pilotage: run this with the Python of a virtual environment")
    install(ROOT, Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("scripts")))
