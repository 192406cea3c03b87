"""Every way to write a repository, and what none is."""

import pytest

from cwm_hub.hub_client.errors import HubError
from cwm_hub.hub_client.names import HubName, check_ref, hub_name


@pytest.mark.parametrize(
    ("text", "revision"),
    [
        ("someone/wm", None),
        ("someone/wm@v1", "v1"),
        ("hf://someone/wm", None),
        ("hf://models/someone/wm@trial", "trial"),
        ("someone/wm@refs/pr/1", "refs/pr/1"),
        ("https://huggingface.co/someone/wm", None),
        ("https://huggingface.co/someone/wm/", None),
        ("https://huggingface.co/someone/wm/tree/v1", "v1"),
        ("https://huggingface.co/someone/wm/blob/v1/config.json?x=1", "v1"),
    ],
)
def test_names(text, revision):
    assert hub_name(text) == HubName("someone/wm", revision)


def test_data_sets_may_say_so_and_their_addresses_do():
    for text in (
        "someone/clips",
        "hf://datasets/someone/clips",
        "hf://someone/clips",
        "https://huggingface.co/datasets/someone/clips",
    ):
        assert hub_name(text, kind="dataset") == HubName("someone/clips")
    with pytest.raises(HubError, match="names a dataset repository, expected a model's"):
        hub_name("hf://datasets/someone/clips")
    with pytest.raises(HubError, match="names a model repository, expected a dataset's"):
        hub_name("https://huggingface.co/someone/clips", kind="dataset")


@pytest.mark.parametrize("text", ["model", "./a/b", "a/b/c", "/a/b", "~/a", "../b", "a/b@", ""])
def test_other_words_name_no_repository(text):
    assert hub_name(text) is None


@pytest.mark.parametrize(
    "text", ["hf://model", "hf://a/b/c", "https://example.org/a/b", "https://huggingface.co/a", "hf://"]
)
def test_what_says_hub_and_names_none_is_refused(text):
    with pytest.raises(HubError) as error:
        hub_name(text)
    assert text in str(error.value)


def test_two_revisions_contradict():
    assert HubName("a/b").at("v1") == HubName("a/b", "v1") == HubName("a/b", "v1").at(None)
    with pytest.raises(HubError, match="a/b@v1 and revision 'v2' contradict each other"):
        HubName("a/b", "v1").at("v2")


@pytest.mark.parametrize("name", [None, "v1", "v1.0-rc_2", "trial/a+b", "2026.11", "x"])
def test_names_of_tags(name):
    check_ref(name, what="tag")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a..b",
        "a//b",
        "/a",
        "a/",
        ".a",
        "a.",
        "-a",
        "a/.b",
        "a.lock",
        "a~1",
        "a:b",
        "@",
        "a@{b",
        "v1\n",
        "ü",
    ],
)
def test_what_git_refuses_is_refused_here(name):
    with pytest.raises(HubError, match="cannot be the name of a tag"):
        check_ref(name, what="tag")
