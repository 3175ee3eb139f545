"""IAM's control endpoints: what was decided, and sessions of roles that trust nobody on this laptop.

`decisions`: GET shows them, POST forgets them. `sessions`: POST `{"role": NAME or ARN}` gives a session's keys.
"""

import orjson

from . import roles
from .iam_judge import Judge
from .settings import ACCOUNT

Response = tuple[int, dict[str, str], bytes]


def answer(judge: Judge, method: str, path: str, body: bytes) -> Response:
    if path == "decisions" and method in ("GET", "POST"):
        if method == "POST":
            judge.decisions.clear()
        return _json(200, judge.decisions.to_json())
    if path == "sessions" and method == "POST":
        return _session(body)
    return _json(404, {"message": "expected GET or POST decisions, or POST sessions"})


def _session(body: bytes) -> Response:
    try:
        role = str(orjson.loads(body)["role"])
        credentials = roles.session(roles.role_arn(role, ACCOUNT), "laptop")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return _json(400, {"message": 'expected {"role": NAME or ARN}'})
    except roles.RoleError as error:
        return _json(404, {"message": str(error)})
    return _json(200, credentials.environment())


def _json(status: int, content: object) -> Response:
    return status, {"Content-Type": "application/json"}, orjson.dumps(content)
