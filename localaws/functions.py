"""Lambda functions run as ministack's child processes; this gives their errors the type that the handler raised."""

import logging
import re
import threading
from typing import Any

from .log_groups import RoleMay, role_may_write

logger = logging.getLogger("localaws.lambda")

_seen = threading.local()


def error_type(trace: str) -> str | None:
    """The class name of the exception that a Python traceback ends with."""
    for line in reversed(trace.splitlines()):
        if matched := re.match(r"([A-Za-z_][\w.]*)(:|$)", line):
            return matched[1].rpartition(".")[2]
    return None


def install(role_may: RoleMay) -> None:
    """Report `ValueError` and the trace, as the service does, where ministack says Runtime.HandlerError.

    A function's logs are written with its role: without the permission there are none.
    """
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

    emit = lambda_svc._emit_lambda_logs

    def emit_allowed(function: Any, *more: Any, **named: Any) -> None:
        config = function.get("config") or function
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{config['FunctionName']}"
        account, region = lambda_runtime._account_region_from_function_config(config)
        if role_may_write(role_may, str(config.get("Role", "")), group, "*", region, account):
            emit(function, *more, **named)
        else:
            logger.warning("the role of %s may not write to %s: its logs are not kept", config["FunctionName"], group)

    lambda_svc._emit_lambda_logs = emit_allowed
    lambda_runtime.Worker.invoke = remembering
    lambda_svc._execute_function_warm = typed
