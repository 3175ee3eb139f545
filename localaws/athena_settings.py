"""What the laptop's Athena can be told when it is installed."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class AthenaSettings:
    """One engine's settings; all queries share the memory and the threads."""

    parallel_queries: int = 4  # more wait in the queue
    threads: int = 2  # of the engine, for all queries together
    memory_limit_mib: int = 1024
    remembered_results: int = 20  # results kept in memory beside their objects on S3
    spill_folder: Path | None = None  # where the engine spills; None: it does not

    def problems(self) -> list[str]:
        """Every setting that cannot work, each with what is expected."""
        return [
            f"{name}: expected at least 1, got {getattr(self, name)}"
            for name in ("parallel_queries", "threads", "memory_limit_mib", "remembered_results")
            if getattr(self, name) < 1
        ]
