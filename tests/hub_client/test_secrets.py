"""What must not be published is taken out where it is known, and found where it is not."""

from pathlib import Path

import pytest

from cwm_hub.hub_client.commit import check_files
from cwm_hub.hub_client.errors import HubError
from cwm_hub.hub_client.secrets import secret_in, without_secrets

TOKEN = "hf_" + "a1B2" * 9


def test_users_signatures_and_homes_are_taken_out(monkeypatch):
    monkeypatch.setenv("HOME", "/srv/anna")
    content = {
        "command": "pretrain.py --data https://anna:geh@im@example.org/clips?a=1 --run /srv/anna/runs/x",
        "roots": [
            "s3://key@bucket/x",
            "/home/anna/clips",
            "/Users/anna/clips",
            "/data/clips",
            "/srv/annabel",
        ],
        "signed": "https://b.example/x?X-Amz-Signature=abc123&X-Amz-Date=now&plain=1",
        "number": 3,
        "hub": "hf://datasets/anna/clips@v1",
        "asked": "https://example.org?to=anna@example.org",
    }
    assert without_secrets(content) == {
        "command": "pretrain.py --data https://example.org/clips?a=1 --run ~/runs/x",
        "roots": ["s3://bucket/x", "~/clips", "~/clips", "/data/clips", "/srv/annabel"],
        "signed": "https://b.example/x?X-Amz-Signature=...&X-Amz-Date=...&plain=1",
        "number": 3,
        "hub": "hf://datasets/anna/clips@v1",
        "asked": "https://example.org?to=anna@example.org",
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"token: {TOKEN}", "a Hugging Face token"),
        ("ghp_" + "x" * 36, "a GitHub token"),
        ("AKIA" + "Q" * 16, "an AWS access key"),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "a private key"),
        ("https://anna:geheim@example.org", "a password in a URL"),
        ("a hf_short word, sha256 " + "ab" * 32, None),
    ],
)
def test_what_looks_like_a_secret_is_found(text, words, tmp_path):
    (tmp_path / "README.md").write_text(text)
    assert secret_in(tmp_path / "README.md") == words


def test_the_token_in_use_is_found_whatever_it_looks_like(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "plain-old-token")
    (tmp_path / "train.json").write_text('{"x": "plain-old-token"}')
    assert secret_in(tmp_path / "train.json") == "the access token in use"


def test_a_link_out_of_the_directory_is_refused(tmp_path):
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inside.json").write_text("{}")
    (folder / "also.json").symlink_to(folder / "inside.json")
    (folder / "train.json").symlink_to(tmp_path / "secret.json")
    check_files({"also.json": folder / "also.json"})
    with pytest.raises(
        HubError, match=r"train\.json is a link to .*secret\.json, out of the published directory"
    ):
        check_files({"train.json": Path(folder, "train.json")})
