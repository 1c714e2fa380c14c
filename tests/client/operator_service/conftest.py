"""The node of the page's tests."""

from tests.client.dashboard.conftest import config, study_of

__all__ = ["config", "study_of"]
