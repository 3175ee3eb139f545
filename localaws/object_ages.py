"""S3 objects made older than they are, so that what waits for days can be seen at once: `POST /_local/s3/age`.

The request is `{"bucket": B, "prefix": P, "seconds": S}`; the answer says how many objects are S seconds older now.
"""

from datetime import datetime, timedelta

import orjson

from .settings import ACCOUNT

Response = tuple[int, dict[str, str], bytes]
_FORM = "%Y-%m-%dT%H:%M:%S.%fZ"


def answer(method: str, path: str, body: bytes) -> Response:
    if method != "POST" or path != "age":
        return _json(404, {"message": "expected POST age"})
    try:
        request = orjson.loads(body)
        older = age(str(request["bucket"]), str(request["prefix"]), float(request["seconds"]))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return _json(400, {"message": 'expected {"bucket": NAME, "prefix": KEYS, "seconds": NUMBER}'})
    return _json(200, {"objects": older})


def age(bucket: str, prefix: str, seconds: float) -> int:
    """Moves back the time at which objects were written; how many they are. KeyError where there is no such bucket."""
    from ministack.services import s3

    aged = 0
    for key, record in s3._buckets._data[ACCOUNT, bucket]["objects"].items():
        if key.startswith(prefix):
            written = datetime.strptime(record["last_modified"], _FORM) - timedelta(seconds=seconds)
            record["last_modified"] = written.strftime(_FORM)[:-4] + "Z"
            aged += 1
    return aged


def _json(status: int, content: object) -> Response:
    return status, {"Content-Type": "application/json"}, orjson.dumps(content)
