"""What the packaging must keep: a lock that fits pyproject.toml, and no address of a package index anywhere.

`python -m tests.packaging` (part of `make check`) prints every breach and ends with 1 when there is one.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# Which index serves the packages is the machine's business. The brackets keep this file free of the names.
_HOSTS = re.compile(r"py[p]i\.(?:org|python\.org)|python[h]osted\.org|npm[j]s\.|reg[i]stry\.\w+\.\w+", re.I)
_INDEX = re.compile(
    r"(?:index[-_]url|find[-_]links|trusted[-_]host|\[\[tool\.uv\.ind[e]x)[\s=:\"']+\w+[:.]", re.I
)
_ENTRY = re.compile(r"^(?P<name>[a-z0-9-]+)==(?P<version>\S+)(?: ; (?P<marker>[^\\]+))? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}(?: \\)?$")


def breaches(files: dict[str, str], pyproject: str, lock: str) -> Iterator[str]:
    """Every breach as one line; `files` is text by path, `pyproject` and `lock` are texts."""
    for path, text in files.items():
        for number, line in enumerate(text.splitlines(), start=1):
            if _HOSTS.search(line) or _INDEX.search(line):
                yield f"{path}:{number}: names a package index; leave that to the machine's own settings"
    yield from _lock_breaches(pyproject, lock)


def _lock_breaches(pyproject: str, lock: str) -> Iterator[str]:
    pinned: dict[str, str] = {}
    for number, line in enumerate(lock.splitlines(), start=1):
        if entry := _ENTRY.match(line):
            pinned[entry["name"]] = entry["version"]
        elif not _HASH.match(line):
            yield f"requirements.lock:{number}: neither a pinned package nor a hash: {line.strip()!r}"
    project = tomllib.loads(pyproject)["project"]
    extras = project.get("optional-dependencies", {}).values()
    wanted = [*project["dependencies"], *(text for extra in extras for text in extra)]
    for text in wanted:
        requirement = Requirement(text)
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None:
            yield f"requirements.lock: lacks {requirement.name}, which pyproject.toml wants; run `make lock`"
        elif not requirement.specifier.contains(version, prereleases=True):
            yield f"requirements.lock: has {requirement.name} {version}, not {text}; run `make lock`"


def main() -> int:
    """Check the files that git tracks; the number of breaches decides the exit code."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    files = {}
    for path in filter(None, listed.split("\0")):
        if (ROOT / path).is_file():
            files[path] = (ROOT / path).read_bytes().decode(errors="replace")
    found = list(breaches(files, files["pyproject.toml"], files["requirements.lock"]))
    print("\n".join(found) or f"packaging: {len(files)} files name no package index, and the lock fits")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
