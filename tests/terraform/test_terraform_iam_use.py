"""The report of unused statements over a real IAM: what roles may do, what was asked, what is left."""

import json
from typing import Any

import pytest

from localaws.process import LocalAws, running
from ops import iam_use


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running(tmp_path_factory.mktemp("aws"), auth=True) as server:
        yield server


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(sid: str, *actions: str) -> dict[str, Any]:
    return {"Sid": sid, "Effect": "Allow", "Action": list(actions), "Resource": "*"}


def test_report_names_what_a_run_left_unused(
    aws: LocalAws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inline and managed policies of the deployment's roles; exit status 1 while something has no reason."""
    iam = aws.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
    for name in ("headrace-job", "payments-job"):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
        iam.put_role_policy(
            RoleName=name, PolicyName="own", PolicyDocument=policy(allow("Queues", "sqs:ListQueues", "sqs:SendMessage"))
        )
    managed = iam.create_policy(PolicyName="more", PolicyDocument=policy(allow("Topics", "sns:ListTopics")))
    iam.attach_role_policy(RoleName="headrace-job", PolicyArn=managed["Policy"]["Arn"])
    aws.as_role("headrace-job", "sqs").list_queues()
    assert iam_use.main(["--endpoint", aws.endpoint]) == 1
    said = capsys.readouterr().out
    assert "headrace-job: Queues in own: nothing used sqs:SendMessage\n" in said
    assert f"headrace-job: Topics in {managed['Policy']['Arn']}: nothing used it\n" in said
    assert "payments" not in said
    monkeypatch.setattr(iam_use, "REASONS", {"job/Queues/sqs:Send*": "rarely", "job/Topics": "rarely"})
    assert iam_use.main(["--endpoint", aws.endpoint]) == 0
    assert "2 unused, 0 of them without a reason" in capsys.readouterr().out
