"""A loopback server that speaks as much of the Hub's protocol as the real `huggingface_hub` client needs of it.

    python -m tests.hub_server DIR [PORT]        # then, in the client's environment, what it prints

Repositories of models and data sets: commits, branches, tags, pull requests, private and gated ones, LFS uploads,
ranged downloads, cards whose front matter is refused; faults on request. They live in memory, and in DIR too where one
is given: an offline Hub for one machine. No pages, and of Xet only so much that an upload goes through. A client that
wants its files back needs `HF_HUB_DISABLE_XET=1`, and reads its environment when `huggingface_hub` is imported, so tests
run it in a process of its own.
"""

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

WRITER, READER = "hf_writer", "hf_reader"
"""Access tokens: both see private repositories, one may write."""

LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc0-1.0", "mit", "other", "unknown")
"""Some of those that the Hub knows; a card with another is refused."""

LFS_SUFFIXES = (".safetensors", ".mp4", ".tar", ".parquet", ".png", ".gif")

REPO = r"/api/(?P<kind>model|dataset)s/(?P<id>[^/]+/[^/]+)"
FILES = r"/(?:(?P<kind>dataset)s/)?(?P<id>[^/]+/[^/]+)"


@dataclass(frozen=True)
class File:
    """One file of a commit."""

    content: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """Git's blob hash."""
        return hashlib.sha1(b"blob %d\0" % len(self.content) + self.content).hexdigest()

    @property
    def sha256(self) -> str:
        """Name in the LFS store."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Repo:
    """Commits by hash, each a whole tree, and the names that point at them."""

    private: bool
    gated: bool = False
    """Everybody sees that it is there; only `WRITER` may download."""
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pull_requests: dict[str, str] = field(default_factory=dict)
    """`refs/pr/1` and so on to the commit that is proposed."""

    def __post_init__(self) -> None:
        if not self.commits:
            self.commit("main", {})

    def commit(self, branch: str, files: dict[str, File]) -> str:
        """Makes `files` the tree of `branch`."""
        self.branches[branch] = sha = self.add(files)
        return sha

    def propose(self, files: dict[str, File]) -> str:
        """Makes `files` the tree of a new pull request; returns its name."""
        name = f"refs/pr/{len(self.pull_requests) + 1}"
        self.pull_requests[name] = self.add(files)
        return name

    def add(self, files: dict[str, File]) -> str:
        """A commit that nothing points at yet."""
        listing = "".join(f"{path} {file.oid}\n" for path, file in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[sha] = files
        return sha

    def resolve(self, revision: str) -> str | None:
        """Commit hash of a branch, tag, pull request or commit."""
        known = {**{sha: sha for sha in self.commits}, **self.pull_requests, **self.tags, **self.branches}
        return known.get(revision)


@dataclass
class Fault:
    """What goes wrong with the next requests whose line ("GET /path") a pattern matches."""

    pattern: str
    """Regular expression, found anywhere in the line."""
    how: int | Literal["drop", "short", "flip"]
    """A status in place of the answer; the connection closed before it, or in the middle of it; one bit of it flipped."""
    times: int = 1
    """How many requests."""


class Refusal(Exception):
    """An HTTP error and the code by which the client knows which one it is."""

    def __init__(self, status: int, code: str = "", *, commit: str | None = None):
        super().__init__(status, code)
        self.status, self.code, self.commit = status, code, commit


class HubServer(ThreadingHTTPServer):
    """The server, as a context manager that runs it in a thread.

    `requests` lists what was asked ("GET /path"); `before` is called with each such line before it is answered, and the
    `faults` that match it happen. With a folder, what is published is kept there and found again.
    """

    daemon_threads = True

    def __init__(self, port: int = 0, folder: Path | None = None):
        super().__init__(("127.0.0.1", port), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.store: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.before: Callable[[str], None] = lambda line: None
        self.folder = folder
        self.saving = threading.Lock()
        if folder is not None:
            self.load(folder)

    @property
    def url(self) -> str:
        """What HF_ENDPOINT is set to."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def environment(self, home: object, token: str | None = WRITER) -> dict[str, str]:
        """Environment variables that make a client process use this server, and `home` for its cache."""
        variables = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
        }
        return variables | ({"HF_TOKEN": token} if token else {})

    def fault(self, line: str) -> Fault | None:
        """The fault that happens to a request, used up by it."""
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.pattern, line):
                fault.times -= 1
                return fault
        return None

    def load(self, folder: Path) -> None:
        """Takes over what another server kept in the folder."""
        for path in folder.glob("blobs/*"):
            self.store[path.name] = path.read_bytes()
        for path in folder.glob("repos/*.json"):
            saved = json.loads(path.read_text())
            saved["commits"] = {
                sha: {name: File(self.store[blob], lfs) for name, (blob, lfs) in tree.items()}
                for sha, tree in saved["commits"].items()
            }
            key = saved.pop("kind"), saved.pop("id")
            self.repos[key] = Repo(**saved)

    def save(self) -> None:
        """Keeps everything in the folder, where there is one; a reader of it sees the old state or the new one."""
        if self.folder is None:
            return
        for name in ("blobs", "repos"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        blobs = dict(self.store)
        for (kind, id), repo in list(self.repos.items()):
            trees = {}
            for sha, files in repo.commits.items():
                blobs |= {file.sha256: file.content for file in files.values()}
                trees[sha] = {name: [file.sha256, file.lfs] for name, file in files.items()}
            state = vars(repo) | {"kind": kind, "id": id, "commits": trees}
            self._write(f"repos/{kind}--{id.replace('/', '--')}.json", json.dumps(state).encode())
        for sha256, content in blobs.items():
            if not (self.folder / "blobs" / sha256).exists():
                self._write(f"blobs/{sha256}", content)

    def _write(self, name: str, content: bytes) -> None:
        assert self.folder is not None
        temporary = self.folder / f".{name.replace('/', '-')}"
        temporary.write_bytes(content)
        temporary.replace(self.folder / name)

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Finds the route of a request and answers with what its method returns."""

    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_any(self) -> None:
        self.body = self._read_body()
        parts = urlsplit(self.path)
        self.query = parse_qs(parts.query)
        line = f"{self.command} {parts.path}"
        self.server.requests.append(line)
        self.server.before(line)
        self.fault = self.server.fault(line)
        if self.fault is not None and self.fault.how == "drop":
            self.close_connection = True
            return
        try:
            if self.fault is not None and isinstance(self.fault.how, int):
                raise Refusal(self.fault.how)
            for method, pattern, answer in ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, parts.path)):
                    arguments = {name: unquote(value or "") for name, value in match.groupdict().items()}
                    answer(self, **arguments)
                    if self.command not in ("GET", "HEAD"):
                        with self.server.saving:
                            self.server.save()
                    return
            raise Refusal(404)
        except Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            if refusal.commit:
                headers["X-Repo-Commit"] = refusal.commit
            self.reply(
                json.dumps({"error": refusal.code or "refused"}).encode(),
                status=refusal.status,
                headers=headers,
            )

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_any

    def log_message(self, *_: object) -> None:
        """Quiet: `requests` is the log."""

    def reply(self, content: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault is not None and self.fault.how == "short":
            self.wfile.write(content[: len(content) // 2])
            self.close_connection = True
        elif self.fault is not None and self.fault.how == "flip":
            middle = len(content) // 2
            self.wfile.write(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        else:
            self.wfile.write(content)

    def reply_json(self, content: Any, **options: Any) -> None:
        self.reply(json.dumps(content).encode(), **options)

    def repo(self, kind: str, id: str) -> Repo:
        """The repository, which an outsider cannot tell from none at all when it is private."""
        found = self.server.repos.get((kind or "model", id))
        if found is None or (found.private and self._token() not in (WRITER, READER)):
            raise Refusal(404 if self._token() else 401, "RepoNotFound")
        return found

    def commit_of(self, repo: Repo, revision: str) -> str:
        sha = repo.resolve(revision)
        if sha is None:
            raise Refusal(404, "RevisionNotFound")
        return sha

    def check_writer(self, *, proposal: bool = False) -> None:
        """Who may write; whoever is logged in may propose."""
        if self._token() != WRITER and not (proposal and self._token() == READER):
            raise Refusal(403 if self._token() else 401)

    # --- routes

    def create_repo(self) -> None:
        self.check_writer()
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'someone'}/{wanted['name']}"
        key = (wanted.get("type") or "model", name)
        status = 409 if key in self.server.repos else 200
        self.server.repos.setdefault(key, Repo(private=wanted.get("visibility") == "private"))
        self.reply_json({"url": f"{self.server.url}/{name}"}, status=status)

    def settings(self, kind: str, id: str) -> None:
        self.check_writer()
        repo, wanted = self.repo(kind, id), json.loads(self.body)
        repo.gated = bool(wanted.get("gated", repo.gated))
        repo.private = wanted.get("visibility", "private" if repo.private else "public") == "private"
        self.reply_json({})

    def validate_yaml(self) -> None:
        wrong = complaints(json.loads(self.body)["content"])
        answer = {"errors": [{"message": words} for words in wrong], "warnings": []}
        self.reply_json(answer, status=400 if wrong else 200)

    def whoami(self) -> None:
        if self._token() not in (WRITER, READER):
            raise Refusal(401)
        self.reply_json({"type": "user", "name": "someone", "orgs": []})

    def preupload(self, kind: str, id: str, revision: str) -> None:
        self.check_writer(proposal="create_pr" in self.query)
        repo = self.repo(kind, id)
        present = repo.commits[self.commit_of(repo, revision)]
        answers = []
        for file in json.loads(self.body)["files"]:
            old = present.get(file["path"])
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            oid = {} if old is None else {"oid": old.sha256 if old.lfs else old.oid}
            answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False} | oid)
        self.reply_json({"files": answers})

    def lfs_batch(self, kind: str, id: str) -> None:
        self.check_writer(proposal=True)
        self.repo(kind, id)
        objects = [
            {"oid": wanted["oid"], "size": wanted["size"]} for wanted in json.loads(self.body)["objects"]
        ]
        for wanted in objects:
            if wanted["oid"] not in self.server.store:
                wanted["actions"] = {"upload": {"href": f"{self.server.url}/lfs/{wanted['oid']}"}}
        self.reply_json({"transfer": "basic", "objects": objects})

    def xet_token(self, kind: str, id: str, revision: str) -> None:
        """Sends a Xet client's chunks to its own memory: its commit arrives here, with empty files."""
        self.check_writer()
        self.commit_of(self.repo(kind, id), revision)
        self.reply_json({"casUrl": "memory://", "accessToken": "none", "exp": 9_999_999_999})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refusal(400)
        self.server.store[oid] = self.body
        self.reply(b"")

    def commit(self, kind: str, id: str, revision: str) -> None:
        proposal = "create_pr" in self.query
        self.check_writer(proposal=proposal)
        repo = self.repo(kind, id)
        head = self.commit_of(repo, revision)
        files = dict(repo.commits[head])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header" and value.get("parentCommit", head) != head:
                raise Refusal(412)
            if operation["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif operation["key"] == "lfsFile":
                files[value["path"]] = File(self.server.store.get(value["oid"], b""), lfs=True)
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "deletedFolder":
                files = {path: file for path, file in files.items() if not path.startswith(value["path"])}
        extra = {}
        if proposal:
            name = repo.propose(files)
            sha = repo.pull_requests[name]
            extra["pullRequestUrl"] = f"{self.server.url}/{id}/discussions/{name.rpartition('/')[2]}"
        else:
            sha = repo.commit(revision, files)
        url = f"{self.server.url}/{id}/commit/{sha}"
        self.reply_json({"commitOid": sha, "commitUrl": url, "success": True} | extra)

    def merge(self, kind: str, id: str, number: str) -> None:
        """Puts a pull request's tree in the place of main's."""
        self.check_writer()
        repo = self.repo(kind, id)
        repo.branches["main"] = self.commit_of(repo, f"refs/pr/{number}")
        self.reply_json({})

    def info(self, kind: str, id: str, revision: str = "main") -> None:
        repo = self.repo(kind, id)
        sha = self.commit_of(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        facts = {"id": id, "sha": sha, "private": repo.private, "gated": repo.gated and "manual"}
        self.reply_json(facts | {"siblings": siblings, "tags": []})

    def list_models(self) -> None:
        """Models of an author, with a tag where one is asked for; private ones only to whom may see them."""
        (author,), wanted = self.query.get("author", [""]), set(self.query.get("filter", []))
        found = []
        for (kind, id), repo in self.server.repos.items():
            seen = not repo.private or self._token() in (WRITER, READER)
            if kind == "model" and id.startswith(f"{author}/") and seen:
                card = repo.commits[repo.branches["main"]].get("README.md", File(b"", lfs=False))
                header = header_of(card.content.decode())
                if wanted <= set(header.get("tags", [])):
                    facts = {"id": id, "private": repo.private, "tags": header.get("tags", [])}
                    found.append(facts | {"pipeline_tag": header.get("pipeline_tag")})
        self.reply_json(found)

    def refs(self, kind: str, id: str) -> None:
        repo = self.repo(kind, id)
        lists = {"heads": repo.branches, "tags": repo.tags, "pr": repo.pull_requests}
        heads, tags, proposals = (
            [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha}
                for name, sha in names.items()
            ]
            for folder, names in lists.items()
        )
        answer = {"branches": heads, "tags": tags, "converts": []}
        self.reply_json(answer | ({"pullRequests": proposals} if "include_prs" in self.query else {}))

    def tag(self, kind: str, id: str, revision: str) -> None:
        self.check_writer()
        repo = self.repo(kind, id)
        name = json.loads(self.body)["tag"]
        if name in repo.tags:
            raise Refusal(409)
        repo.tags[name] = self.commit_of(repo, revision)
        self.reply_json({})

    def untag(self, kind: str, id: str, revision: str) -> None:
        self.check_writer()
        if self.repo(kind, id).tags.pop(revision, None) is None:
            raise Refusal(404, "RevisionNotFound")
        self.reply_json({})

    def branch(self, kind: str, id: str, name: str) -> None:
        self.check_writer()
        repo = self.repo(kind, id)
        if name in repo.branches:
            raise Refusal(409)
        repo.branches[name] = self.commit_of(
            repo, json.loads(self.body or b"{}").get("startingPoint", "main")
        )
        self.reply_json({})

    def tree(self, kind: str, id: str, revision: str, folder: str = "") -> None:
        repo = self.repo(kind, id)
        sha = self.commit_of(repo, revision)
        entries: dict[str, dict[str, Any]] = {}
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        for path, file in sorted(repo.commits[sha].items()):
            if folder and not path.startswith(f"{folder}/"):
                continue
            depth = len(PurePosixPath(folder).parts)
            for parent in list(PurePosixPath(path).parents)[-2 - depth :: -1]:
                entries.setdefault(
                    str(parent), {"type": "directory", "path": str(parent), "oid": "0" * 40, "size": 0}
                )
            entries[path] = entry_of(path, file)
        inside = {
            path for path in entries if recursive or PurePosixPath(path).parent == PurePosixPath(folder)
        }
        if folder and not entries:
            raise Refusal(404, "EntryNotFound", commit=sha)
        self.reply_json([entry for path, entry in entries.items() if path in inside])

    def paths_info(self, kind: str, id: str, revision: str) -> None:
        repo = self.repo(kind, id)
        files = repo.commits[self.commit_of(repo, revision)]
        wanted = parse_qs(self.body.decode())["paths"]
        self.reply_json([entry_of(path, files[path]) for path in wanted if path in files])

    def resolve(self, kind: str, id: str, revision: str, path: str) -> None:
        repo = self.repo(kind, id)
        if repo.gated and self._token() != WRITER:
            raise Refusal(403 if self._token() else 401, "GatedRepo")
        sha = self.commit_of(repo, revision)
        file = repo.commits[sha].get(path)
        if file is None:
            raise Refusal(404, "EntryNotFound", commit=sha)
        headers = {
            "X-Repo-Commit": sha,
            "ETag": f'"{file.sha256 if file.lfs else file.oid}"',
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
        }
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self.reply(file.content, headers=headers)
            return
        start, stop = int(wanted[1]), min(int(wanted[2] or len(file.content)) + 1, len(file.content))
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(file.content)}"
        self.reply(file.content[start:stop], status=206, headers=headers)

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ").strip()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)


def entry_of(path: str, file: File) -> dict[str, Any]:
    """A file as listings have it."""
    entry = {"type": "file", "path": path, "oid": file.oid, "size": len(file.content)}
    lfs = {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}
    return entry | ({"lfs": lfs} if file.lfs else {})


def header_of(card: str) -> dict[str, Any]:
    """Front matter of a README.md, {} where there is none."""
    found = re.match(r"\A---\r?\n(.*?)\r?\n---", card, flags=re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


def complaints(card: str) -> list[str]:
    """What the Hub would say against the front matter of a README.md."""
    found = re.match(r"\A---\r?\n(.*?)\r?\n---", card, flags=re.DOTALL)
    try:
        header = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return [f"the front matter is no yaml: {error}"]
    if not isinstance(header, dict):
        return ["the front matter is no mapping"]
    wrong = []
    if header.get("license", "mit") not in LICENCES:
        wrong.append(f'"license" must be one of {", ".join(LICENCES)}')
    for key in ("tags", "datasets"):
        if not isinstance(header.get(key, []), list) or not all(
            isinstance(x, str) for x in header.get(key, [])
        ):
            wrong.append(f'"{key}" must be a list of strings')
    for key in ("pipeline_tag", "library_name", "pretty_name"):
        if not isinstance(header.get(key, ""), str):
            wrong.append(f'"{key}" must be a string')
    for model in header.get("model-index") or []:
        for result in model.get("results", []):
            if not {"task", "dataset", "metrics"} <= result.keys():
                wrong.append('"model-index" has a result without task, dataset or metrics')
            if not all({"type", "value"} <= metric.keys() for metric in result.get("metrics", [])):
                wrong.append('"model-index" has a metric without type or value')
    return wrong


ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("POST",), r"/api/repos/create", Handler.create_repo),
    (("POST",), r"/api/validate-yaml", Handler.validate_yaml),
    (("GET",), r"/api/whoami-v2", Handler.whoami),
    (("POST",), rf"{REPO}/preupload/(?P<revision>[^/]+)", Handler.preupload),
    (("POST",), rf"{FILES}\.git/info/lfs/objects/batch", Handler.lfs_batch),
    (("PUT",), r"/lfs/(?P<oid>[0-9a-f]{64})", Handler.lfs_put),
    (("GET",), rf"{REPO}/xet-write-token/(?P<revision>[^/]+)", Handler.xet_token),
    (("POST",), rf"{REPO}/commit/(?P<revision>[^/]+)", Handler.commit),
    (("POST",), rf"{REPO}/tag/(?P<revision>[^/]+)", Handler.tag),
    (("DELETE",), rf"{REPO}/tag/(?P<revision>[^/]+)", Handler.untag),
    (("PUT",), rf"{REPO}/settings", Handler.settings),
    (("POST",), rf"{REPO}/discussions/(?P<number>\d+)/merge", Handler.merge),
    (("POST",), rf"{REPO}/paths-info/(?P<revision>[^/]+)", Handler.paths_info),
    (("POST",), rf"{REPO}/branch/(?P<name>[^/]+)", Handler.branch),
    (("GET",), rf"{REPO}/refs", Handler.refs),
    (("GET",), rf"{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", Handler.tree),
    (("GET",), rf"{REPO}/revision/(?P<revision>[^/]+)", Handler.info),
    (("GET",), r"/api/models", Handler.list_models),
    (("GET",), REPO, Handler.info),
    (("GET", "HEAD"), rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: python -m tests.hub_server DIR [PORT]")
    server = HubServer(int(sys.argv[2]) if len(sys.argv) > 2 else 0, Path(sys.argv[1]))
    for variable, setting in server.environment(Path(sys.argv[1]).resolve() / "client").items():
        print(f"export {variable}={setting}", flush=True)
    server.serve_forever()
