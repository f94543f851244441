"""The packaging check finds what it is there for."""

from tests.packaging import breaches

_PROJECT = '[project]\ndependencies = ["django>=6.1,<6.2"]\noptional-dependencies = {dev = ["Ruff>=0.1"]}\n'
_HASH = "    --hash=sha256:" + "0" * 64 + "\n"
_LOCK = f"django==6.1.2 \\\n{_HASH}ruff==0.17.0 ; python_version >= '3.12' \\\n{_HASH}"


def _found(*, lock: str = _LOCK, **files: str) -> list[str]:
    return list(breaches(files, _PROJECT, lock))


def test_a_lock_that_fits_is_fine():
    assert _found(text="see the package index") == []


def test_an_address_of_an_index_is_found_wherever_it_stands():
    said = _found(
        readme="one\nget it from https://" + "py" + "pi.org/simple", make="pip --index-url " + "https://x/y"
    )

    assert [line.split(" ")[0] for line in said] == ["readme:2:", "make:1:"]


def test_a_package_that_is_missing_from_the_lock_is_found():
    assert _found(lock=_LOCK.split("ruff")[0]) == [
        "requirements.lock: lacks Ruff, which pyproject.toml wants; run `make lock`"
    ]


def test_a_version_that_pyproject_does_not_allow_is_found():
    [said] = _found(lock=_LOCK.replace("6.1.2", "6.2"))

    assert "has django 6.2, not django>=6.1,<6.2" in said


def test_a_line_that_pins_nothing_is_found():
    [said] = _found(lock=_LOCK + "thing @ https://example.org/thing.whl\n")

    assert "requirements.lock:5: neither a pinned package nor a hash" in said
