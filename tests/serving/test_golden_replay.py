"""Golden requests replayed through the real server that is up, as the job and the command do."""

from pathlib import Path

import pytest
from tiny_models import copy_bundle, serve_tiny_models

from bigger_boat.automation.control import replay_golden
from bigger_boat.errors import GateRefused, ServerError
from bigger_boat.resources.local_endpoint_host import LocalEndpointHost


class AnotherShouldServe(LocalEndpointHost):
    """It believes that another version is the incumbent."""

    believed: str

    def serving_bundle(self, name: str) -> Path:
        return Path(self.believed)


def test_the_server_that_is_up_answers_as_offline_or_is_told_apart(tmp_path, bundles):
    with serve_tiny_models(tmp_path, api_key="key-of-the-shop") as server:
        where = {"endpoints_dir": str(tmp_path / "endpoints")}
        host = LocalEndpointHost(**where)
        for name in ("recommendation", "intent"):
            said = replay_golden(name, host, "key-of-the-shop")
            assert said.endswith("golden requests are answered as offline.")
        with pytest.raises(GateRefused, match="declines a golden request"):
            replay_golden("intent", host, None)
        other = AnotherShouldServe(**where, believed=str(copy_bundle(bundles["second"], tmp_path / "other")))
        with pytest.raises(GateRefused, match=f"{bundles['second'].version} of recommendation should serve"):
            replay_golden("recommendation", other, "key-of-the-shop")
        assert server.process.poll() is None
    with pytest.raises(ServerError, match="Nothing answers for intent"):
        replay_golden("intent", host, None)
