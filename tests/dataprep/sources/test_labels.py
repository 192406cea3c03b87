"""Labels files: what a row says, numbers told from words, and what is refused before any work."""

import json
import unicodedata
from pathlib import Path

import pytest

from dataprep.sources.folder import list_videos
from dataprep.sources.labels import Label, Labels, number_classes, read_labels


def touch(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_labels_and_splits(tmp_path: Path, suffix: str) -> None:
    rows: list[dict[str, object]] = [
        {"path": "a.mp4", "label": 3, "label_text": "three", "split": "validation"},
        {"path": "b/c.mp4", "label": "", "label_text": "", "split": ""},
    ]
    file = tmp_path / f"labels.{suffix}"
    if suffix == "csv":
        file.write_text(
            "path,label,label_text,split\n" + "".join(",".join(map(str, r.values())) + "\n" for r in rows)
        )
    else:
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_labels(file).by_path == {"a.mp4": Label(3, "three", "validation"), "b/c.mp4": Label()}


def test_labels_that_are_words_are_numbered_in_alphabetical_order(tmp_path: Path) -> None:
    file = touch(tmp_path / "l.csv", b"path,label\na.mp4,walk\nb.mp4,jump\nc.mp4,walk\n")
    assert [(row.label, row.label_text) for row in read_labels(file).by_path.values()] == [
        (1, "walk"),
        (0, "jump"),
        (1, "walk"),
    ]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\na.mp4,1\n", "row 1 has no `path`"),
        ("path,split\na.mp4,holdout\n", "row 1 has split 'holdout', expected train, validation, test"),
        ("a.mp4\n", "lists no video: expected a csv with a header that has `path`"),
        ("path,label\na.mp4," + 200_000 * "x", "damaged csv after line 1: field larger than field limit"),
        (None, "cannot read"),
    ],
)
def test_a_labels_file_that_says_nothing_is_a_sentence(
    tmp_path: Path, text: str | None, sentence: str
) -> None:
    file = tmp_path / "labels.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_labels(file)


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (b"{", "damaged jsonl line"),
        (b"5", "row 2 is no json object"),
        (b'{"path": 5}', "row 2 has no `path`"),
    ],
)
def test_a_damaged_jsonl_is_a_sentence(tmp_path: Path, line: bytes, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_labels(touch(tmp_path / "l.jsonl", b'{"path": "a"}\n' + line))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        ([0.0, 1.0, 10.0, float("nan"), None], [0, 1, 10, -1, -1]),  # pandas, where one is missing
        (["0.0", " 1 ", "1e1", "NaN", ""], [0, 1, 10, -1, -1]),
        ([2, "2", "2.0", -1], [2, 2, 2, -1]),
        ([2**63 - 1], [2**63 - 1]),
        (["10", "9"], [10, 9]),
        (["1_0", "2_0", "b"], [0, 1, 2]),  # words, though Python would take two of them for numbers
        ([True, False], [1, 0]),
    ],
)
def test_numbers_are_told_from_words(values: list[object], classes: list[int]) -> None:
    assert [label for label, _ in number_classes(values)] == classes


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([0, "cat"], "numbers and words are mixed \\(0 and 'cat'\\)"),
        ([0.5], "0.5 is no class"),
        (["99999999999999999999"], "99999999999999999999 is no class"),
        ([10**20], "is no class"),
        (["inf"], "inf is no class"),
        ([-2], "-2 is no class"),
        ([[1, 2]], "neither a number nor a word"),
    ],
)
def test_what_is_no_class_is_refused(values: list[object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        number_classes(values)


@pytest.mark.parametrize("character", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_only_a_newline_ends_a_line(tmp_path: Path, character: str) -> None:
    text = f"one{character}line"
    rows = [{"path": name, "label_text": text} for name in ("a.mp4", "b.mp4")]
    jsonl = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if character >= " ":  # json escapes the others
        assert read_texts(touch(tmp_path / "l.jsonl", jsonl.encode())) == {"a.mp4": text, "b.mp4": text}
    table = f"path,label_text\na.mp4,{text}\nb.mp4,{text}\n"
    assert read_texts(touch(tmp_path / "l.csv", table.encode())) == {"a.mp4": text, "b.mp4": text}


def read_texts(path: Path) -> dict[str, str]:
    return {name: label.label_text for name, label in read_labels(path).by_path.items()}


def test_a_quoted_field_holds_commas_and_line_breaks(tmp_path: Path) -> None:
    file = touch(tmp_path / "l.csv", b'path,label_text\r\na.mp4,"opens the\ndoor, slowly"\r\nb.mp4,b\r\n')
    assert read_texts(file) == {"a.mp4": "opens the\ndoor, slowly", "b.mp4": "b"}


def test_blanks_after_commas_are_no_part_of_a_field(tmp_path: Path) -> None:
    file = touch(tmp_path / "l.csv", b'path, label, label_text\na.mp4, cat, "a, b"\nb.mp4, dog, c\n')
    assert read_labels(file).by_path == {"a.mp4": Label(0, "a, b"), "b.mp4": Label(1, "c")}


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_told_by_the_header(delimiter: str, tmp_path: Path) -> None:
    lines = ["label;path;label_text", "cat;a.mp4;opens, slowly", 'dog;"b;c.mp4";d']
    file = touch(tmp_path / "l.csv", "\n".join(lines).replace(";", delimiter).encode())
    second = f"b{delimiter}c.mp4"
    assert read_labels(file).by_path == {"a.mp4": Label(0, "opens, slowly"), second: Label(1, "d")}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, encoding: str) -> None:
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    for name, text in (("l.csv", "path,label\nä.mp4,1\n"), ("l.jsonl", '{"path": "ä.mp4", "label": 1}\n')):
        file = touch(tmp_path / name, (mark + text).encode(encoding))
        assert read_labels(file).by_path == {"ä.mp4": Label(1)}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,label\na.mp4,3\nb.mp4,1\n./a.mp4,5\n", "rows 1 and 3 say different things of a.mp4"),
        ("path,label_text\na.mp4,opens the door, slowly\n", "row 1 has more fields than the header"),
        ("path,label,label\na.mp4,1,2\n", "names 'label' twice"),
        ("path;label\na.mp4;1;2\n", "more fields than the header .2.: quote a field that holds a ';'"),
        ("datei;label\na.mp4;1\n", "row 1 has no `path`, but 'datei', 'label'"),
        ('path,label_text\na.mp4,"open\nb.mp4,c\n', "damaged csv after line 1: unexpected end"),
        ("path,label\na.mp4,1\nb.mp4,x\n", "column label: numbers and words are mixed"),
    ],
)
def test_rows_that_contradict_or_are_torn_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_labels(touch(tmp_path / "l.csv", text.encode()))


def test_a_json_row_that_names_a_column_twice_is_refused_whatever_the_suffixs_case(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="row 1: 'label' stands twice"):
        read_labels(touch(tmp_path / "l.JSONL", b'{"path": "a.mp4", "label": 1, "label": 2}\n'))


def test_the_same_row_twice_is_one_row(tmp_path: Path) -> None:
    file = touch(tmp_path / "l.csv", b"path,label\na.mp4,3\n./a.mp4,3.0\n")
    assert read_labels(file).by_path == {"a.mp4": Label(3)}


def test_columns_of_the_users_own_are_kept_and_those_of_the_index_are_not(tmp_path: Path) -> None:
    file = touch(tmp_path / "l.csv", b"path,Label,duration,motion\na.mp4,3,4.5,1\n")
    labels = read_labels(file)
    assert labels.by_path["a.mp4"].extra == (("Label", "3"), ("duration", "4.5"))
    assert labels.notes == (
        "l.csv: columns 'Label', 'duration' are kept in the index (`filter --where`)",
        "l.csv: columns 'motion' are not used: the index has columns of these names",
    )


@pytest.mark.parametrize("name", ["val", "valid", "dev", "Val", " validation "])
def test_other_names_of_the_validation_split(tmp_path: Path, name: str) -> None:
    file = touch(tmp_path / "l.jsonl", json.dumps({"path": "a.mp4", "split": name}).encode())
    assert read_labels(file).by_path["a.mp4"].split == "validation"


def test_accents_of_paths_may_be_characters_of_their_own(tmp_path: Path) -> None:
    one, two = (unicodedata.normalize(form, "größe.mp4") for form in ("NFC", "NFD"))
    (tmp_path / "videos").mkdir()
    touch(tmp_path / "videos" / one, b"x")
    given = Labels({two: Label(3)})
    (source,) = list_videos(tmp_path / "videos", labels=given).sources
    assert (source.source_path, source.label) == (one, 3)
    touch(tmp_path / "videos" / two, b"y")  # two files are two videos
    listing = list_videos(tmp_path / "videos", labels=given)
    assert {source.source_path: source.label for source in listing.sources} == {one: -1, two: 3}
