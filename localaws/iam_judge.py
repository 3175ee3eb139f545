"""IAM's judgement of every request: ministack's evaluator, asked for what AWS asks, and remembered.

A request may need several permissions: a Glue table also its database and catalog, a role that is passed on, the key
that encrypts an object. Each is judged by itself, and what allowed it is kept by statement (`iam_decisions`).
"""

import contextvars
import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any

from . import iam_deployment, iam_existing, iam_passed_roles, iam_resources, roles
from .iam_decisions import Decision, Decisions, Statement
from .iam_existing import StreamKey
from .iam_requests import Check, Request, operation_of_path

_NOT_ALLOWED = "no statement allows it"
_LOOPBACK = ("127.0.0.1", "::1")

_action: contextvars.ContextVar[str] = contextvars.ContextVar("iam_action", default="")
_request: contextvars.ContextVar[Request | None] = contextvars.ContextVar("iam_request", default=None)
_caller: contextvars.ContextVar[str] = contextvars.ContextVar("iam_caller", default="")
_refused: contextvars.ContextVar[Check | None] = contextvars.ContextVar("iam_refused", default=None)
_matches: contextvars.ContextVar[list[tuple[str, Any]] | None] = contextvars.ContextVar("iam_matches", default=None)


class Judge:
    """Asks ministack's evaluator; `decisions` holds what it said. Made before ministack's functions are replaced."""

    def __init__(self, stream_key: StreamKey) -> None:
        from ministack.core import iam_evaluator

        self.decisions = Decisions()
        self._stream_key = stream_key
        self._evaluator = iam_evaluator
        self._enforce = iam_evaluator.enforce

    def judge(
        self, access_key: str, action: str, service: str, region: str, resource: str, context: Mapping[str, Any] | None
    ) -> Any:
        """In place of ministack's `enforce`: None when all that the request needs is allowed."""
        _caller.set(access_key)
        request = _request.get()
        given = Check(action, resource, context or {})
        if request is None or (request.service, request.action) != (service, action):
            return self._all(access_key, [given], service, region, None)
        _request.set(None)
        return self._all(access_key, _checks(request, given), service, region, request)

    def refusal(self, action: str, resource: str, headers: Mapping[str, str] | None = None) -> str | None:
        """Why a service may not do this for the caller of the request at hand; None when it may, or IAM is off."""
        from ministack import app
        from ministack.core.responses import get_account_id, get_region

        if not app.AUTH:
            return None
        service, region = action.partition(":")[0], get_region()
        check = Check(action, resource, {"aws:viaawsservice": "true"})
        request = Request(service, action, "", "", region, get_account_id(), headers or {})
        denied = self._all(_caller.get(), [check], service, region, request)
        return _sentence(denied) if denied else None

    def role_may(self, role: str, action: str, resource: str) -> bool:
        """Whether a service's own call in a role is allowed; every role may do everything while IAM is off."""
        return contextvars.copy_context().run(self._role_may, role, action, resource)

    def _role_may(self, role: str, action: str, resource: str) -> bool:
        _caller.set(roles.service_session(role).access_key)
        return self.refusal(action, resource) is None

    def _all(self, access_key: str, checks: list[Check], service: str, region: str, request: Request | None) -> Any:
        for check in checks:
            owner = "iam" if check.action.startswith("iam:") else service
            if denied := self._one(access_key, check, owner, region):
                return denied
            for use in self._key_checks(access_key, check, region, request):
                if denied := self._one(access_key, use, "kms", region):
                    return denied
        return None

    def _key_checks(self, access_key: str, check: Check, region: str, request: Request | None) -> Iterator[Check]:
        from ministack.core.responses import get_account_id

        for use in iam_existing.key_uses(check, request, self._stream_key):
            keys = {
                "kms:viaservice": f"{use.via}.{region}.amazonaws.com",
                "kms:calleraccount": get_account_id(),
                "aws:viaawsservice": "true",
                **{f"kms:encryptioncontext:{name}".lower(): value for name, value in use.encryption_context.items()},
            }
            yield from (Check(action, use.key, keys) for action in use.actions)

    def _one(self, access_key: str, check: Check, service: str, region: str) -> Any:
        matches: list[tuple[str, Any]] = []
        token = _matches.set(matches)
        try:
            denied = self._enforce(
                access_key, check.action, service, region, resource_arn=check.resource, service_context=check.context
            )
        finally:
            _matches.reset(token)
        if isinstance(denied, self._evaluator.AuthError):
            return denied
        if denied is not None:
            _refused.set(check)
            self.decisions.remember(_denied(check, denied))
        elif matches:  # the account's root is asked no policy
            self.decisions.remember(_allowed(check, matches))
        return denied


def principal_name(arn: str) -> str:
    """A role's name from its session's ARN; `user/NAME` for a user."""
    resource = arn.rpartition(":")[2]
    kind, _, rest = resource.partition("/")
    return rest.partition("/")[0] if kind == "assumed-role" else resource


def _denied(check: Check, denied: Any) -> Decision:
    refusal = _NOT_ALLOWED
    if denied.decision == "Deny":
        refusal = f"denied by {denied.resource_policy_arn or 'a policy'} {denied.matched_sid}".rstrip()
    return Decision(principal_name(denied.principal_arn), check.action, check.resource, refusal=refusal)


def _allowed(check: Check, matches: list[tuple[str, Any]]) -> Decision:
    """By the first statement of the caller's own policies, or by the resource's policy when none matched."""
    own = next((statement.origin for _, statement in matches if hasattr(statement, "origin")), None)
    principal, first = matches[0]
    statement = own or Statement("", f"policy of {check.resource}", first.sid)
    return Decision(principal_name(principal), check.action, check.resource, statement)


def _checks(request: Request, given: Check) -> list[Check]:
    """All that must be allowed for a request, in the order in which it is refused."""
    found = iam_existing.resources(request) or iam_deployment.resources(request) or iam_resources.resources(request)
    keys = {**given.context, **iam_resources.context(request), **iam_existing.context(request)}
    checks = [
        Check(given.action, resource, {**keys, **iam_deployment.context(request, resource)})
        for resource in found or (given.resource,)
    ]
    return [*checks, *iam_passed_roles.checks(request)]


def _sentence(denied: Any) -> str:
    from ministack.core.iam_actions import identity_denial_message

    check = _refused.get()
    if check is None:
        return str(denied.message)
    explicit = getattr(denied, "decision", "") == "Deny"
    return str(identity_denial_message(check.action, getattr(denied, "principal_arn", ""), check.resource, explicit))


@functools.lru_cache(maxsize=1024)
def _parsed(role: str, policy: str, document: str) -> list[Any]:
    """A policy's statements, each with its origin."""
    from ministack.core.iam_evaluator import parse_policy_document

    statements = json.loads(document).get("Statement", [])
    found = []
    for position, statement in enumerate(statements if isinstance(statements, list) else [statements]):
        for parsed in parse_policy_document({"Statement": [statement]}):
            parsed.origin = Statement(role, policy, parsed.sid or str(position))
            found.append(parsed)
    return found


def _role_policies(role: str, account: str) -> list[list[Any]]:
    """In place of ministack's: the same statements, which know where they stand."""
    from ministack.core.iam_evaluator import _resolve_managed_policy_document
    from ministack.services import iam

    stored = iam._roles.get_scoped(account, None, role)
    if stored is None:
        return []
    documents = dict(stored.get("InlinePolicies") or {})
    documents |= {arn: _resolve_managed_policy_document(arn, account) for arn in stored.get("AttachedPolicies", [])}
    texts = {name: each if isinstance(each, str) else json.dumps(each) for name, each in documents.items() if each}
    return [_parsed(role, policy, text) for policy, text in texts.items()]


def install(judge: Judge) -> None:
    """Put the judge in front of ministack's evaluator."""
    _see_requests(judge)
    _evaluate()
    _name_refusals()


def _see_requests(judge: Judge) -> None:
    """Every request comes to the judge, with what it asks for."""
    from ministack import app
    from ministack.core import iam_actions, iam_evaluator

    extract_action, extract_resource = iam_actions.extract_iam_action, iam_actions.extract_resource_arn
    pin_origin = app.pin_request_origin

    def action_of(service: str, method: str, path: str, headers: Any, body: bytes, query: Any) -> str | None:
        action: str | None = extract_action(service, method, path, headers, body, query)
        namespace = iam_actions.SERVICE_TO_IAM_NAMESPACE.get(service)
        if action is None and namespace and (operation := operation_of_path(path)):
            action = f"{namespace}:{operation}"
        if action is None:
            judge.decisions.remember_unjudged(service, f"{method} {path}")
        _action.set(action or "")
        return action

    def resource_of(
        service: str, method: str, path: str, headers: Any, body: bytes, query: Any, region: str, account: str
    ) -> Any:
        _request.set(Request(service, _action.get(), method, path, region, account, headers, body, query or {}))
        return extract_resource(service, method, path, headers, body, query, region, account)

    def enforce(
        access_key: str,
        action: str,
        service: str,
        region: str,
        resource_arn: str = "*",
        service_context: Mapping[str, Any] | None = None,
    ) -> Any:
        return judge.judge(access_key, action, service, region, resource_arn, service_context)

    def origin(address: str, secure: bool) -> None:
        pin_origin(address, secure or address in _LOOPBACK)

    iam_actions.extract_iam_action, iam_actions.extract_resource_arn = action_of, resource_of
    iam_evaluator.enforce, app.pin_request_origin = enforce, origin


def _evaluate() -> None:
    """Statements know where they stand, those that allow are remembered, and keys say what they say on AWS."""
    from ministack.core import iam_evaluator

    evaluate, condition_key = iam_evaluator.evaluate, iam_evaluator._resolve_condition_key

    def remembering(context: Any, policies: Any, *limits: Any) -> Any:
        result = evaluate(context, policies, *limits)
        matches = _matches.get()
        if matches is not None and result.decision == "Allow":
            every = [statement for statements in policies for statement in statements]
            matches.append((context.principal_arn, iam_evaluator._first_match(context, every, "Allow")))
        return result

    def resolve(key: str, context: Any) -> Any:
        """A session's aws:PrincipalArn is its role's ARN; callers are no services unless a check says so."""
        name = key.lower()
        if name == "aws:principalarn" and ":assumed-role/" in context.principal_arn:
            return _role_arn(context.principal_arn)
        found = condition_key(key, context)
        if found is None and name in ("aws:viaawsservice", "aws:principalisawsservice"):
            return "false"
        return found

    iam_evaluator.evaluate, iam_evaluator._resolve_condition_key = remembering, resolve
    iam_evaluator._gather_role_policies = _role_policies


def _name_refusals() -> None:
    from ministack.core import iam_actions

    answer_denied = iam_actions.access_denied_response

    def denied_answer(service: str, action: str, principal: str, request_id: str, **more: Any) -> Any:
        """Name what was refused, which may be another action than the request's: a key's, a role's."""
        check = _refused.get()
        if check is not None and not more.get("error_code") and not more.get("resource_policy_arn"):
            explicit = bool(more.get("explicit_deny"))
            message = iam_actions.identity_denial_message(check.action, principal, check.resource, explicit)
            more |= {"message": message, "resource_arn": check.resource}
            if service == "kinesis" and check.action.startswith("kms:"):
                more["error_code"] = "KMSAccessDeniedException"
            action = check.action
        return answer_denied(service, action, principal, request_id, **more)

    iam_actions.access_denied_response = denied_answer


def _role_arn(session_arn: str) -> str:
    from ministack.services import iam

    account, name = session_arn.split(":")[4], principal_name(session_arn)
    stored = iam._roles.get_scoped(account, None, name) or {}
    return str(stored.get("Arn") or f"arn:aws:iam::{account}:role/{name}")
