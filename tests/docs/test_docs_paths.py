"""The documents about AWS name files, variables and targets that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("solution.md", "security.md", "first-run-on-aws.md")
VARIABLES = re.findall(r'^variable "(\w+)"', (ROOT / "terraform" / "variables.tf").read_text(), re.MULTILINE)


def text(document: str) -> str:
    return (ROOT / "docs" / document).read_text()


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_a_document_links_to_is_there(document: str) -> None:
    """No link leads nowhere, and none leads to a website."""
    for target in re.findall(r"\]\(([^)]+)\)", text(document)):
        assert "://" not in target, target
        assert (ROOT / "docs" / target.split("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_settings_that_a_document_names_are_terraform_s(document: str) -> None:
    """`agent.only_from_vpc` and its like are fields of a variable of that name."""
    variables = (ROOT / "terraform" / "variables.tf").read_text()
    for name in VARIABLES:
        block = re.split(rf'^variable "{name}" \{{', variables, flags=re.MULTILINE)[1].split("\nvariable ")[0]
        for field in re.findall(rf"`{name}\.(\w+)", text(document)):
            if field not in ("tf", "py", "toml"):
                assert re.search(rf"^\s+{field}\s*=", block, re.MULTILINE), f"{document}: {name}.{field}"


def test_the_solution_s_table_of_parts_names_files_that_are_there() -> None:
    """A reader who begins with a named file finds it in the named folder."""
    chapter = text("solution.md").split("## C.")[1].split("\n## ")[0]
    for row in re.findall(r"^\| [^|]+ \| (`[^|]+`) \| ([^|]+) \|$", chapter, re.MULTILINE):
        folders = re.findall(r"`([a-z_]+/)(?:[a-z_]+/)?`", row[0])
        assert folders, row
        for name in re.findall(r"`([^`]+)`", row[1]):
            places = [ROOT / folder / name for folder in folders] + [ROOT / name]
            assert any(place.exists() for place in places), f"{name} is not in {', '.join(folders)}"


def test_every_terraform_file_is_in_the_solution() -> None:
    """One file a moving part: none is left out of the reader's list."""
    chapter = text("solution.md").split("## C.")[1]
    missing = [path.name for path in (ROOT / "terraform").glob("*.tf") if f"`{path.name}`" not in chapter]
    assert not missing
