"""The whole smoke run, rehearsed on the laptop's AWS. It takes minutes: HEADRACE_REHEARSAL=1 asks for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from localaws.process import running
from ops import glue_bundle, terraform

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.environ.get("HEADRACE_REHEARSAL") != "1", reason="minutes long: set HEADRACE_REHEARSAL=1"),
    pytest.mark.skipif(terraform.missing() is not None, reason=str(terraform.missing())),
]
_SPARK = {"SPARK_LOCAL_IP": "127.0.0.1", "PYSPARK_PYTHON": sys.executable}


def test_a_rehearsal_passes_every_check_that_the_laptop_can_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """IAM is enforced, everything is applied, checked and destroyed, and nothing counts as proven."""
    for name, value in _SPARK.items():
        monkeypatch.setenv(name, value)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # PostgreSQL, started by root, runs as nobody
    glue_bundle.build(tmp_path / "glue", with_wheels=False)
    root = Path(__file__).resolve().parents[2]
    words = ["--artefacts", str(tmp_path / "glue"), "--load-seconds", "30", "--json"]
    with running(tmp_path / "aws", auth=True, seconds_per_minute=6) as aws:
        environment = {**os.environ, **aws.environment(), "PYTHONPATH": str(root)}
        done = subprocess.run(
            [sys.executable, "-m", "ops.aws_smoke", *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["counts"] == {"proven": 0, "rehearsed": 7, "not proven": 2, "failed": 0}
        assert aws.client("kinesis").list_streams()["StreamNames"] == []
        assert aws.client("s3").list_buckets()["Buckets"] == []
        assert aws.client("glue").get_databases()["DatabaseList"] == []
