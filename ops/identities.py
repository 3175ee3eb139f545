"""Who acts in which role where IAM is enforced on the laptop: the site's agent and an analyst.

Each is an IAM user who may take up one role and do nothing else. On AWS the agent comes by Roles Anywhere instead,
and analysts by whatever the account's people have; the roles and what they may do are the same.
"""

from __future__ import annotations

import configparser
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import boto3
import botocore.session

from localaws.settings import ACCOUNT, REGION
from ops.aws import Aws

AGENT: Final = "agent"
ANALYST: Final = "analyst"


def user_arn(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:user/laptop-{name}"


def write(aws: Aws, roles: Mapping[str, str], path: Path) -> None:
    """Makes the users, with a key each, and an AWS configuration with a profile a role, as a site would have it."""
    config = configparser.ConfigParser()
    for name, role in roles.items():
        user = user_arn(name).rpartition("/")[2]
        only_this = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [only_this]})
        aws.client("iam").put_user_policy(UserName=user, PolicyName="role", PolicyDocument=policy)
        key = _user_key(aws.client("iam"), user)
        place = {"region": REGION, "endpoint_url": str(aws.endpoint)}
        config[f"profile {name}"] = {"role_arn": role, "source_profile": f"{name}-user", **place}
        config[f"profile {name}-user"] = {
            "aws_access_key_id": key["AccessKeyId"],
            "aws_secret_access_key": key["SecretAccessKey"],
            **place,
        }
    with path.open("w") as file:
        config.write(file)
    path.chmod(0o600)


def make_users(aws: Aws) -> None:
    """The users, which must exist before a role can trust them."""
    iam = aws.client("iam")
    for name in (AGENT, ANALYST):
        try:
            iam.create_user(UserName=user_arn(name).rpartition("/")[2])
        except iam.exceptions.EntityAlreadyExistsException:
            continue


def environment(path: Path, name: str) -> dict[str, str]:
    """What a process needs to act in a role; its credentials renew themselves."""
    return {
        "AWS_CONFIG_FILE": str(path),
        "AWS_SHARED_CREDENTIALS_FILE": str(path.with_name("no-credentials-file")),
        "AWS_PROFILE": name,
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def client(path: Path, name: str, service: str) -> Any:
    """A boto3 client that acts in a role."""
    session = botocore.session.Session(profile=name)
    session.set_config_variable("config_file", str(path))
    session.set_config_variable("credentials_file", str(path.with_name("no-credentials-file")))
    return boto3.Session(botocore_session=session).client(service)


def _user_key(iam: Any, user: str) -> dict[str, str]:
    """A new access key in place of those before: a secret is shown once, and the file may be gone."""
    for old in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=user, AccessKeyId=old["AccessKeyId"])
    found: dict[str, str] = iam.create_access_key(UserName=user)["AccessKey"]
    return found
