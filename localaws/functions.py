"""Lambda functions run as ministack's child processes; this gives their errors the type that the handler raised."""

import re
import threading
from typing import Any

_seen = threading.local()


def error_type(trace: str) -> str | None:
    """The class name of the exception that a Python traceback ends with."""
    for line in reversed(trace.splitlines()):
        if matched := re.match(r"([A-Za-z_][\w.]*)(:|$)", line):
            return matched[1].rpartition(".")[2]
    return None


def install() -> None:
    """Report `ValueError` and the trace, as the service does, where ministack says Runtime.HandlerError."""
    from ministack.core import lambda_runtime
    from ministack.services import lambda_svc

    invoke, execute = lambda_runtime.Worker.invoke, lambda_svc._execute_function_warm

    def remembering(worker: Any, *arguments: Any, **named: Any) -> Any:
        result = invoke(worker, *arguments, **named)
        _seen.trace = result.get("trace") or ""
        return result

    def typed(function: Any, event: Any, *more: Any) -> Any:
        _seen.trace = ""
        result = execute(function, event, *more)
        name = error_type(_seen.trace)
        if result.get("error") and name and isinstance(result.get("body"), dict):
            result["body"] |= {"errorType": name, "stackTrace": _seen.trace.splitlines()}
        return result

    lambda_runtime.Worker.invoke = remembering
    lambda_svc._execute_function_warm = typed
