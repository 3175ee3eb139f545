"""What Terraform renders for a source is what its agent reads."""

from pathlib import Path

from producer.settings import load

RENDERED = Path(__file__).resolve().parents[2] / "terraform" / "tests" / "agent.toml"


def test_the_rendered_configuration_is_one_that_the_agent_accepts() -> None:
    """The file that the plan's test compares with byte by byte is valid, and leads to the endpoints' own names."""
    settings = load(RENDERED)
    assert settings.source.dsn == "host=db.site dbname=shop user=headrace"
    assert [table.name for table in settings.tables] == ["public.*", "billing.invoices"]
    assert settings.aws.claims.endswith("/claims")
    assert settings.aws.endpoint("s3") == "https://bucket.vpce-3.s3.eu-central-1.vpce.amazonaws.com"
    assert settings.aws.endpoint("dynamodb") is None  # it has no endpoint in this plan: the public address
