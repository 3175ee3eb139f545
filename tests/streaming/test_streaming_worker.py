"""What a Python worker of Spark keeps between its tasks."""

import gc
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from glue_streaming import spark_tasks


@pytest.fixture
def settled() -> Iterator[None]:
    spark_tasks._freeze.cache_clear()
    yield
    gc.unfreeze()
    spark_tasks._freeze.cache_clear()


@pytest.mark.usefixtures("settled")
def test_between_tasks_nothing_is_walked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports are out of the garbage collector's sight, and no zip file's directory is read again; modules in it are
    found all the same."""
    bundle = tmp_path / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as file:
        file.writestr("in_a_bundle.py", "found = True")
        file.writestr("later_in_a_bundle.py", "found = True")
    monkeypatch.syspath_prepend(bundle)
    assert __import__("in_a_bundle").found
    assert str(bundle) in sys.path_importer_cache
    spark_tasks.settle_worker()
    assert str(bundle) not in sys.path_importer_cache
    assert gc.get_freeze_count() > 10_000
    assert __import__("later_in_a_bundle").found
    spark_tasks.settle_worker()
    assert str(bundle) not in sys.path_importer_cache
