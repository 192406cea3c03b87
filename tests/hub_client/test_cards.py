"""Text in a card shows as it is written, and a card keeps what its owner wrote into it."""

import pytest
import yaml
from markdown_it import MarkdownIt

from cwm_hub.hub_client.cards import BEGIN, END, code, inert, merged, our_block
from cwm_hub.hub_client.errors import HubError

MARKDOWN = MarkdownIt("commonmark").enable("table")

HOSTILE = (
    "<script>alert(1)</script>",
    "a\n\n# heading",
    "a\n---\nb",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    "a | b",
    "**bold** _thin_ ~~gone~~ `code`",
    "[here](https://evil.example) ![picture](x.png)",
    "&amp; <b>",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "back\\slash `tick",
    "<!-- comment",
    "</details>",
)


def text_of(markdown: str) -> str:
    """What a reader sees of one paragraph, which is asserted to hold no markup."""
    (_, inline, _) = tokens = MARKDOWN.parse(markdown)
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"], tokens
    assert {child.type for child in inline.children} <= {"text", "text_special"}, inline.children
    return "".join(child.content for child in inline.children)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_is_shown_and_does_nothing(text):
    assert text_of(inert(text)) == " ".join(text.split())


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("make", [inert, code])
def test_text_stays_in_its_cell_of_a_table(make, text):
    tokens = MARKDOWN.parse(f"| a | b |\n|---|---|\n| {make(text)} | 2 |\n")
    kinds = [token.type for token in tokens]
    assert kinds.count("tr_open") == 2 and kinds.count("td_open") == 2
    assert not {"html_block", "heading_open", "bullet_list_open"} & set(kinds)
    inline = [child.type for token in tokens for child in token.children or ()]
    assert not {"html_inline", "link_open", "image", "em_open", "strong_open"} & set(inline)


def test_plain_words_stay_as_they_are():
    for text in ("plainwm_debug", "metaworld:reach-v3", "2.15.0", "cc-by-4.0", "0.5 - 1.5 (mean), a/b"):
        assert inert(text) == text
    assert inert({"a": [1, None, True, "x*y"]}) == {"a": [1, None, True, r"x\*y"]}


def card(block: str, title: str = "# wm", after: str = "", **header: object) -> str:
    front = yaml.safe_dump({"library_name": "cwm-hub", "license": "mit"} | header, sort_keys=False)
    return f"---\n{front}---\n\n{title}\n\n{BEGIN}\n\n{block}\n\n{END}\n{after}"


def header_of(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_what_the_owner_wrote_around_the_block_stays():
    old = card("old numbers", title="# My model\n\nRead this first.", after="\n## Thanks\n\nto all\n")
    new = merged(old, card("new numbers"), kind="model")
    assert "old numbers" not in new and "new numbers" in new
    assert "# My model\n\nRead this first.\n" in new and new.endswith("\n## Thanks\n\nto all\n")
    assert merged(new, card("new numbers"), kind="model") == new


def test_our_keys_are_replaced_or_taken_away_and_theirs_stay():
    old = card("x", language="en", tags=["mine", "world-model"], base_model="a/b", **{"model-index": [1]})
    new = header_of(merged(old, card("y", license="other", tags=["world-model", "cwm-hub"]), kind="model"))
    assert new == {
        "library_name": "cwm-hub",
        "license": "other",
        "language": "en",
        "tags": ["world-model", "cwm-hub", "mine"],
    }


def test_a_card_of_somebody_elses_gets_the_block_at_its_end():
    new = merged("---\nlanguage: en\n---\n# Mine\n\nwords\n", card("numbers"), kind="model")
    assert "# Mine\n\nwords\n\n" + BEGIN in new and header_of(new)["language"] == "en"


def test_a_generated_card_without_marks_is_replaced():
    old = "# wm\n\nan independent implementation of *Pre-training Contextualized\n\n| PSNR | 99 |\n"
    assert merged(old, card("new"), kind="model") == card("new")
    assert our_block(old) == old and our_block("# mine") == ""


def test_an_edit_here_is_kept_and_two_edits_are_a_question():
    here = card("new", after="\nwritten here\n")
    assert merged(card("old"), here, kind="model") == here
    with pytest.raises(HubError, match="written into both here and in the repository"):
        merged(card("old", after="\nwritten there\n"), here, kind="model")


def test_a_broken_front_matter_is_not_lost():
    assert "key: [" in merged("---\nkey: [\n---\nwords\n", card("new"), kind="model")
