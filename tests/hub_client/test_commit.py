"""A publish is one commit, by the client's default way too."""

import pytest
from hub_process import run_python
from huggingface_hub.utils import httpx

from cwm_hub.hub_client.errors import HubError, hub_errors

PUBLISH = """
import sys
from pathlib import Path
from cwm_hub.hub_client.commit import Target, publish_files
folder = Path(sys.argv[1])
files = {f"data/{path.name}": path for path in folder.glob("data/*")}
done = publish_files(Target("someone/clips", "dataset", tag="v1"), files, stale=lambda path, card: True, message="m")
print(done.commit)
"""


def test_a_connection_that_breaks_off_in_an_upload_is_no_fault_of_the_client():
    """The client wraps it once more."""
    with (
        pytest.raises(
            HubError, match=r"^someone/wm: the connection to the Hub broke off, before all was through"
        ),
        hub_errors("someone/wm", unreached="was not pushed"),
    ):
        raise RuntimeError("Error while uploading") from httpx.RemoteProtocolError("Server disconnected")


@pytest.mark.slow
@pytest.mark.parametrize("disable_xet", ["0", "1"])
def test_hundreds_of_files_are_one_commit(disable_xet, server, tmp_path):
    """The client's own upload of a folder commits in batches of about 250."""
    (tmp_path / "data").mkdir()
    for number in range(300):
        (tmp_path / "data" / f"train-{number:05d}.tar").write_bytes(b"%d" % number)
    environment = {"HF_HUB_DISABLE_XET": disable_xet}
    (commit,) = run_python(server, tmp_path, "-c", PUBLISH, tmp_path, environment=environment)
    repo = server.repos["dataset", "someone/clips"]
    assert [len(files) for files in repo.commits.values()] == [0, 300]
    assert repo.tags == {"v1": commit} and repo.branches["main"] == commit
