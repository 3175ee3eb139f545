"""What a job run is called with, what it says of itself, and when another may start: the pure part."""

import pytest

from localaws import glue_runs
from localaws.glue_runs import JobRun
from localaws.roles import trusts

RUN = JobRun("jr_1", "job", "000000000000", "us-east-1", {"--a": "run"}, started_on=100.0)


def test_arguments_of_the_run_overlay_the_jobs_and_some_cannot_be_overridden() -> None:
    job = {"DefaultArguments": {"--a": "job", "--b": "job"}, "NonOverridableArguments": {"--c": "fixed"}}
    merged = glue_runs.merged_arguments(job, {"--a": "run", "--c": "run"})
    assert merged == {"--a": "run", "--b": "job", "--c": "fixed"}


def test_script_gets_words_as_glue_passes_them() -> None:
    """Name and value are two words, whatever is in the value; name and id of the run come first."""
    words = glue_runs.script_words(RUN, {"--a": "two words", "--b": ""})
    assert words == ["--JOB_NAME", "job", "--JOB_RUN_ID", "jr_1", "--a", "two words", "--b", ""]


def test_conf_with_several_settings_reaches_spark() -> None:
    """Glue has one --conf; the further ones stand in its value."""
    arguments = {"--conf": "spark.a=b --conf spark.c=d e"}
    assert glue_runs.submit_arguments(arguments) == "--conf spark.a=b --conf spark.c=d e pyspark-shell"
    assert glue_runs.submit_arguments({}) is None


def test_extra_py_files_keep_their_order() -> None:
    assert glue_runs.extra_zips({"--extra-py-files": "s3://b/a.zip, s3://b/b.zip,"}) == ["s3://b/a.zip", "s3://b/b.zip"]


@pytest.mark.parametrize(
    ("stderr", "code", "message"),
    [
        ("Traceback\n  File x\nValueError: boom\n", 1, "ValueError: boom"),
        (
            "pyspark.errors.AnalysisException: [X] no\nline two\n",
            1,
            "pyspark.errors.AnalysisException: [X] no\nline two",
        ),
        ("usage: job\njob: missing --x\n", 2, "job: missing --x"),
        ("", 3, "The job's process ended with exit code 3"),
        ("INFO all is well\n", -9, "The job's process was ended by signal 9"),
    ],
)
def test_error_message_is_the_last_exception(stderr: str, code: int, message: str) -> None:
    assert glue_runs.error_message(stderr, code) == message


@pytest.mark.parametrize(
    ("job", "request_", "minutes"),
    [
        ({"Command": {"Name": "glueetl"}}, {}, 2880),
        ({"Command": {"Name": "glueetl"}, "Timeout": 10}, {"Timeout": 5}, 5),
        ({"Command": {"Name": "gluestreaming"}}, {}, 0),
        ({"Command": {"Name": "gluestreaming"}, "Timeout": 2880}, {}, 0),
        ({"Command": {"Name": "gluestreaming"}, "Timeout": 60}, {}, 60),
    ],
)
def test_timeout(job: dict[str, object], request_: dict[str, object], minutes: int) -> None:
    """48 hours unless something else is said; a streaming job runs for ever."""
    assert glue_runs.timeout_minutes(job, request_) == minutes


def test_run_survives_its_file() -> None:
    ended = RUN.ended("FAILED", 160.0, "boom")
    assert JobRun.from_json(ended.to_json()) == ended
    shown = ended.describe(now=999.0)
    assert (shown["JobRunState"], shown["ExecutionTime"], shown["ErrorMessage"]) == ("FAILED", 60, "boom")


def statement(**more: object) -> dict[str, object]:
    allowed = {"Effect": "Allow", "Principal": {"Service": "glue.amazonaws.com"}, "Action": "sts:AssumeRole"}
    return {"Statement": [{**allowed, **more}]}


@pytest.mark.parametrize(
    ("document", "trusted"),
    [
        (statement(), True),
        (statement(Principal={"Service": ["x.amazonaws.com", "glue.amazonaws.com"]}), True),
        (statement(Principal={"Service": "states.amazonaws.com"}), False),
        (statement(Principal={"AWS": "*"}), False),
        (statement(Effect="Deny"), False),
        (statement(Action="sts:TagSession"), False),
        (statement(Condition={"StringEquals": {"aws:SourceAccount": "000000000000"}}), True),
        (statement(Condition={"StringEquals": {"aws:SourceAccount": "111111111111"}}), False),
        ({"Statement": [statement()["Statement"][0], statement(Effect="Deny")["Statement"][0]]}, False),  # type: ignore[index]
        ({}, False),
    ],
)
def test_trust_policy_must_name_the_service(document: dict[str, object], trusted: bool) -> None:
    assert trusts(document, "glue.amazonaws.com", "000000000000") is trusted
