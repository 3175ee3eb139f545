"""A CodeBuild build specification: what is read of it, and what it asks for that the laptop cannot do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PHASES = ("install", "pre_build", "build", "post_build")

_KEYS = {"version", "env", "phases", "artifacts"}
_ENV_KEYS = {"shell", "variables", "parameter-store", "secrets-manager", "exported-variables"}
_PHASE_KEYS = {"commands", "finally", "on-failure", "runtime-versions"}
_ARTIFACT_KEYS = {"files", "base-directory", "name"}


class SpecError(ValueError):
    """A build specification that cannot be run here; the message names the key."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase's commands. `last` are run whatever became of the others."""

    name: str
    commands: Sequence[str]
    last: Sequence[str] = ()
    abort_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class Artifacts:
    """Which files of the source folder are kept."""

    files: Sequence[str]
    base_directory: str = "."


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """A specification of version 0.2."""

    phases: Sequence[Phase]
    artifacts: Artifacts | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)


def parse(text: str) -> BuildSpec:
    """A specification from its YAML. Raises SpecError.

    `runtime-versions` is accepted and not acted on: a build here uses the programs of this machine.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise SpecError(f"the buildspec is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise SpecError("the buildspec is empty, or no mapping")
    _refuse_others(document, _KEYS, "")
    if str(document.get("version")) != "0.2":
        raise SpecError(f"version: expected 0.2, got {document.get('version')!r}")
    env = document.get("env") or {}
    _refuse_others(env, _ENV_KEYS, "env.")
    if env.get("shell", "bash") != "bash":
        raise SpecError(f"env.shell: only bash is run here, got {env['shell']!r}")
    phases = document.get("phases") or {}
    _refuse_others(phases, set(PHASES), "phases.")
    return BuildSpec(
        phases=[_phase(name, phases[name] or {}) for name in PHASES if name in phases],
        artifacts=_artifacts(document["artifacts"]) if document.get("artifacts") else None,
        variables=_texts(env.get("variables")),
        parameters=_texts(env.get("parameter-store")),
        secrets=_texts(env.get("secrets-manager")),
    )


def _phase(name: str, given: Mapping[str, Any]) -> Phase:
    _refuse_others(given, _PHASE_KEYS, f"phases.{name}.")
    on_failure = given.get("on-failure", "CONTINUE")
    if on_failure not in ("ABORT", "CONTINUE"):
        raise SpecError(f"phases.{name}.on-failure: expected ABORT or CONTINUE, got {on_failure!r}")
    return Phase(
        name=name,
        commands=[str(command) for command in given.get("commands") or []],
        last=[str(command) for command in given.get("finally") or []],
        abort_on_failure=on_failure == "ABORT",
    )


def _artifacts(given: Mapping[str, Any]) -> Artifacts:
    _refuse_others(given, _ARTIFACT_KEYS, "artifacts.")
    if not given.get("files"):
        raise SpecError("artifacts.files: expected at least one pattern")
    return Artifacts([str(pattern) for pattern in given["files"]], str(given.get("base-directory", ".")))


def _texts(given: Any) -> dict[str, str]:
    return {str(name): str(value) for name, value in (given or {}).items()}


def _refuse_others(given: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := sorted(set(given) - known):
        raise SpecError(f"the buildspec has keys that are not run here: {', '.join(where + key for key in unknown)}")
