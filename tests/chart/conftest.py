from typing import Any

import pytest

from tests.chart import rendering


@pytest.fixture(scope="session")
def default_objects() -> list[dict[str, Any]]:
    return rendering.render()


@pytest.fixture(scope="session", params=["default", "full"])
def objects(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return rendering.render({"default": {}, "full": rendering.FULL}[request.param])
