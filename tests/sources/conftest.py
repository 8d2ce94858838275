import pytest

from tests.sources.support import FakeTable


@pytest.fixture
def table(tmp_path):
    return FakeTable(str(tmp_path / "table"))
