"""What the laptop's AWS can be told when it starts."""

from dataclasses import dataclass
from pathlib import Path

ACCOUNT = "000000000000"
REGION = "us-east-1"
ADMIN_ACCESS_KEY = "test"
ADMIN_SECRET_KEY = "test"


@dataclass(frozen=True, slots=True)
class Settings:
    """One server's settings; the folder is created if it is missing."""

    port: int
    state_folder: Path
    auth: bool = False  # judge every request by the caller's IAM policies
    enforce_kinesis_limits: bool = False
    seconds_per_minute: float = 60.0  # how long a minute of a schedule lasts here
    log_level: str = "WARNING"

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def problems(self) -> list[str]:
        """Every setting that cannot work, each with what is expected."""
        found = []
        if not 1 <= self.port <= 65535:
            found.append(f"port: expected 1 to 65535, got {self.port}")
        if self.seconds_per_minute <= 0:
            found.append(f"seconds_per_minute: expected more than 0, got {self.seconds_per_minute}")
        if self.state_folder.exists() and not self.state_folder.is_dir():
            found.append(f"state_folder: expected a folder, {self.state_folder} is a file")
        return found
