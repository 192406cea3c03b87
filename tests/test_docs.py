"""The documentation keeps up with the code: every command is parsed, every snippet runs, every quoted error is the code's."""

import ast
import importlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from documents import ROOT, Piece, commands, complaint, pages, pieces, recipe_complaint

PIECES = [piece for page in pages() for piece in pieces(page)]
LANGUAGES = {"bibtex", "dockerfile", "inline", "json", "python", "sh", "text", "yaml"}


def test_every_block_says_its_language() -> None:
    for piece in PIECES:
        assert piece.language in LANGUAGES or piece.page == "README.md", piece


def test_a_page_has_one_title_so_that_its_contents_list_all_of_it() -> None:
    """The table of contents of a page ends where a second heading of the first level begins."""
    for page in pages():
        prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
        assert len(re.findall(r"^# ", prose, re.MULTILINE)) == 1, page


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_is_one(page: Path) -> None:
    wrong = [
        f"{piece}: {' '.join(words)}: {said}"
        for piece in pieces(page)
        for words in commands(piece)
        if (said := complaint(words)) is not None
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("cwm-dataprep foldr VIDEOS", "no sub-command foldr"),
        ("cwm-dataprep folder VIDEOS --out x --validation 0.1", "unrecognized arguments: --validation 0.1"),
        ("cwm-hub bench shards/mine --batch-clip 2", "unrecognized arguments: --batch-clip 2"),
        ("python recipes/pretrain.py --data '[{root: x}]' --udpates 3", "did you mean 'updates'?"),
        (
            "accelerate launch --num_processes 2 recipes/pretrain.py --data '[{rot: x}]'",
            "did you mean 'root'",
        ),
        ("python recipes/pretrain.py --run x", "--data is needed"),
        ("python recipes/pretrian.py --run x", "no file recipes/pretrian.py"),
        ("pip install 'cwm-hub[alll]'", "no extra ['alll']"),
        ("make demos", "no target demos"),
        ("python benchmarks/bench_plan.py --nothing", "no option --nothing"),
        ("conda install cwm-hub", "no known program conda"),
    ],
)
def test_a_stale_command_would_be_seen(command: str, said: str) -> None:
    (words,) = commands(Piece("docs/x.md", 1, "sh", command, None))
    assert said in (complaint(words) or "nothing")


def test_what_a_block_says() -> None:
    text = "for seed in 0 1; do\n    A=1 cwm-hub bench \\\n        shards/$name  # why\ndone; make test > log && make docs\n"
    found = [" ".join(words) for words in commands(Piece("docs/x.md", 1, "sh", text, None))]
    assert found == ["for seed in 0 1", "A=1 cwm-hub bench shards/0", "done", "make test", "make docs"]


def test_settings_in_yaml_are_settings(tmp_path: Path) -> None:
    blocks = [piece for piece in PIECES if piece.language == "yaml"]
    for piece in blocks:
        values = yaml.safe_load(piece.text)
        recipe = re.match(r"# (recipes/\w+\.py)", piece.text)
        if recipe:
            (tmp_path / "c.yaml").write_text(json.dumps(values))
            assert recipe_complaint(ROOT / recipe[1], ["--config", str(tmp_path / "c.yaml")]) is None, piece


def flattened() -> Iterator[str]:
    """Every string of the code on one line, with … for what an f-string fills in."""
    for room in ("cwm_hub", "dataprep", "recipes"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                    yield " ".join("".join(map(str, parts)).split())
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield " ".join(node.value.split())


def test_every_error_of_the_faq_is_the_codes() -> None:
    quoted = re.findall(r"^### `(.+)`$", (ROOT / "docs/faq.md").read_text(), re.MULTILINE)
    assert len(quoted) >= 20
    said = list(flattened())
    gone = [sentence for sentence in quoted if not any(sentence in text for text in said)]
    assert not gone, f"the code no longer says: {gone}"


@pytest.mark.slow
def test_the_snippets_run_as_written(tmp_path: Path) -> None:
    """All of them in one process, page by page, where a small shard set lies."""
    shard = ["folder", str(ROOT / "dataprep/samples"), "--limit", "3", "--out", "shards/mine"]
    subprocess.run([sys.executable, "-m", "dataprep", *shard], cwd=tmp_path, check=True, env=environment())
    programs = {}
    for piece in PIECES:
        if piece.language == "python" and piece.page != "README.md" and not piece.excuse:
            programs.setdefault(piece.page, []).append(piece.text)
    assert len(programs) >= 4
    code = "import os, sys\nfor page, text in PROGRAMS.items():\n    print(page, flush=True)\n    exec(compile(text, page, 'exec'), {'__name__': page})\n"
    texts = {page: "\n".join(parts) for page, parts in programs.items()}
    run = subprocess.run(
        [sys.executable, "-c", f"PROGRAMS = {texts!r}\n{code}"],
        cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "MUJOCO_GL": "egl"}


@pytest.mark.slow
def test_the_site_builds_and_with_a_broken_link_or_anchor_it_does_not(tmp_path: Path) -> None:
    """As `make docs` builds it; with --quiet mkdocs counts no warning, and --strict means nothing."""
    pytest.importorskip("mkdocs", reason="pip install 'cwm-hub[docs]'")
    options = re.search(r"-m (mkdocs build .*)", (ROOT / "Makefile").read_text())
    assert options
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    (tmp_path / "cwm_hub").symlink_to(ROOT / "cwm_hub")
    command = [sys.executable, "-m", *options[1].split()]
    keywords = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True}
    whole = subprocess.run(command, **keywords)
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "build/docs/mkdocs/extra.css").exists()
    with (tmp_path / "docs/index.md").open("a") as page:
        page.write("\n[a](quickstart.md#no-such-place) [b](nowhere.md)\n")
    broken = subprocess.run(command, **keywords)
    assert broken.returncode == 1
    assert "no-such-place" in broken.stderr and "nowhere.md" in broken.stderr


@pytest.mark.parametrize("room", ["", ".clips", ".envs", ".evaluation", ".hub", ".shards"])
def test_every_public_name_is_in_the_reference(room: str) -> None:
    text = "\n".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    described = set(re.findall(r"^::: cwm_hub\.(?:\w+\.)*(\w+)$", text, re.MULTILINE))
    names = set(importlib.import_module(f"cwm_hub{room}").__all__)
    assert names <= described, f"not in docs/api: {sorted(names - described)}"


def reference() -> Iterator[tuple[str, object]]:
    """What the reference describes: every entry, and the public methods of the classes among them."""
    for page in (ROOT / "docs/api").glob("*.md"):
        for place in re.findall(r"^::: ([\w.]+)$", page.read_text(), re.MULTILINE):
            module, _, name = place.rpartition(".")
            entry = getattr(importlib.import_module(module), name)
            yield place, entry
            if inspect.isclass(entry):
                for method, value in vars(entry).items():
                    if not method.startswith("_") and inspect.isfunction(value) and value.__name__ == method:
                        yield f"{place}.{method}", value


def test_the_reference_says_what_each_is_and_what_it_raises() -> None:
    for place, entry in reference():
        assert entry.__doc__, place
        if inspect.isfunction(entry) and re.search(r"\braise \w+Error", inspect.getsource(entry)):
            assert "Raises:" in entry.__doc__, place


@pytest.mark.parametrize(
    ("target", "browser", "opened"), [("docs", "true", 1), ("docs", "", 0), ("check", "true", 0)]
)
def test_make_docs_opens_the_page_where_there_is_a_browser(
    target: str, browser: str, opened: int, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("python", "ruff", "mypy", "lint-imports"):
        (tmp_path / "bin" / name).write_text('#!/bin/sh\necho "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / ".installed").touch()
    run = subprocess.run(
        ["make", f"VENV={tmp_path}", target],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "BROWSER": browser}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.count(f"-m webbrowser file://{ROOT}/build/docs/index.html") == opened
