"""One AWS for the tests of the command, provisioned once."""

from collections.abc import Iterator

import pytest

from localaws.process import LocalAws, running
from ops.aws import Aws
from ops.provision import Deployment, provision


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAws]:
    """Its minutes last an hour, so that schedules fire at their creation and then not again."""
    with running(tmp_path_factory.mktemp("ops-aws"), seconds_per_minute=3600) as found:
        yield found


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    """The jobs are provisioned and started by the schedule; a schedule in the far future starts none here."""
    return Deployment(schedule="cron(0 0 1 1 ? 2099)", settings={"headrace-stream": {"trigger_seconds": "1"}})


@pytest.fixture(scope="session")
def aws(server: LocalAws, deployment: Deployment) -> Aws:
    aws = Aws(server.endpoint)
    provision(aws, deployment)
    return aws
