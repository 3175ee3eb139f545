"""Which statements of the roles' policies nothing used, from what IAM decided."""

import json
from typing import Any

from ops.unused_statements import Grant, Unused, grants, unexplained, unused

READ = Grant("job", "own", "Read", ("s3:GetObject", "s3:ListBucket"))
WRITE = Grant("job", "own", "1", ("s3:Put*",))


def decision(action: str, statement: str, role: str = "job", policy: str = "own") -> dict[str, Any]:
    allowed_by = [{"role": role, "policy": policy, "statement": statement, "count": 1}]
    return {"principal": role, "action": action, "resource": "r", "allowed": 1, "denied": 0, "allowed_by": allowed_by}


def test_grants_are_named_by_sid_or_place_and_denials_are_none() -> None:
    document = {
        "Statement": [
            {"Sid": "Read", "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": "*"},
            {"Effect": "Allow", "Action": "s3:Put*", "Resource": "*"},
            {"Effect": "Deny", "Action": "*", "Resource": "*"},
        ]
    }
    assert grants("job", {"own": json.dumps(document)}) == [READ, WRITE]
    assert grants("job", {"own": {"Statement": document["Statement"][1]}}) == [
        Grant("job", "own", "0", ("s3:Put*",)),
    ]


def test_statement_without_a_request_is_unused_as_a_whole() -> None:
    found = unused([READ, WRITE], [decision("s3:PutObject", "1")])
    assert found == [Unused(READ, READ.actions)]
    assert str(found[0]) == "job: Read in own: nothing used it"


def test_action_that_nobody_asked_for_is_named_in_a_statement_that_is_used() -> None:
    found = unused([READ], [decision("s3:GetObject", "Read")])
    assert found == [Unused(READ, ("s3:ListBucket",))]
    assert str(found[0]) == "job: Read in own: nothing used s3:ListBucket"


def test_pattern_of_actions_is_used_by_one_of_them() -> None:
    assert unused([WRITE], [decision("s3:PutObject", "1")]) == []


def test_another_roles_or_policys_statement_of_the_same_name_counts_for_nothing() -> None:
    others = [decision("s3:PutObject", "1", role="other"), decision("s3:PutObject", "1", policy="more")]
    assert unused([WRITE], others) == [Unused(WRITE, WRITE.actions)]


def test_denied_request_uses_nothing() -> None:
    refused = {**decision("s3:PutObject", "1"), "allowed": 0, "denied": 1, "allowed_by": []}
    assert unused([WRITE], [refused]) == [Unused(WRITE, WRITE.actions)]


def test_reason_explains_a_statement_or_one_of_its_actions() -> None:
    reasons = {"job/Read/s3:List*": "only on AWS", "other/*": "no"}
    found = unused([READ, WRITE], [decision("s3:GetObject", "Read")], reasons)
    assert found == [Unused(READ, ("s3:ListBucket",), "only on AWS"), Unused(WRITE, WRITE.actions)]
    assert unexplained(found) == [found[1]]
    assert str(found[0]) == "job: Read in own: nothing used s3:ListBucket (only on AWS)"
