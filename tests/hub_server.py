"""A loopback server that speaks as much of the Hub's protocol as the real `huggingface_hub` client needs of it.

    python tests/hub_server.py 8420        # then, in the client's environment, what it prints

Repositories of models and data sets live in memory: commits, branches, tags, private and public, LFS uploads and
ranged downloads; no pull requests, no pages, and of Xet only so much that an upload goes through. A client that wants its
files back needs `HF_HUB_DISABLE_XET=1`, and reads its environment when `huggingface_hub` is imported, so tests run it in a process of its own.
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
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""Access tokens: both see private repositories, one may write."""

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
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.commit("main", {})

    def commit(self, branch: str, files: dict[str, File]) -> str:
        """Makes `files` the tree of `branch`."""
        listing = "".join(f"{path} {file.oid}\n" for path, file in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)}\n{listing}".encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def resolve(self, revision: str) -> str | None:
        """Commit hash of a branch, tag or commit."""
        known = {**{sha: sha for sha in self.commits}, **self.tags, **self.branches}
        return known.get(revision)


class Refusal(Exception):
    """An HTTP error and the code by which the client knows which one it is."""

    def __init__(self, status: int, code: str = "", *, commit: str | None = None):
        super().__init__(status, code)
        self.status, self.code, self.commit = status, code, commit


class HubServer(ThreadingHTTPServer):
    """The server, as a context manager that runs it in a thread.

    `requests` lists what was asked ("GET /path"); `before` is called with each such line before it is answered.
    """

    daemon_threads = True

    def __init__(self, port: int = 0):
        super().__init__(("127.0.0.1", port), Handler)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.store: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.before: Callable[[str], None] = lambda line: None

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
        self.server.requests.append(f"{self.command} {parts.path}")
        self.server.before(self.server.requests[-1])
        try:
            for method, pattern, answer in ROUTES:
                if self.command in method and (match := re.fullmatch(pattern, parts.path)):
                    arguments = {name: unquote(value or "") for name, value in match.groupdict().items()}
                    return answer(self, **arguments)
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

    do_GET = do_HEAD = do_POST = do_PUT = do_any

    def log_message(self, *_: object) -> None:
        """Quiet: `requests` is the log."""

    def reply(self, content: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
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

    def check_writer(self) -> None:
        if self._token() != WRITER:
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

    def validate_yaml(self) -> None:
        self.reply_json({"errors": [], "warnings": []})

    def whoami(self) -> None:
        if self._token() not in (WRITER, READER):
            raise Refusal(401)
        self.reply_json({"type": "user", "name": "someone", "orgs": []})

    def preupload(self, kind: str, id: str, revision: str) -> None:
        self.check_writer()
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
        self.check_writer()
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
        self.check_writer()
        repo = self.repo(kind, id)
        files = dict(repo.commits[self.commit_of(repo, revision)])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), lfs=False)
            elif operation["key"] == "lfsFile":
                files[value["path"]] = File(self.server.store.get(value["oid"], b""), lfs=True)
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            elif operation["key"] == "deletedFolder":
                files = {path: file for path, file in files.items() if not path.startswith(value["path"])}
        sha = repo.commit(revision, files)
        self.reply_json(
            {"commitOid": sha, "commitUrl": f"{self.server.url}/{id}/commit/{sha}", "success": True}
        )

    def info(self, kind: str, id: str, revision: str = "main") -> None:
        repo = self.repo(kind, id)
        sha = self.commit_of(repo, revision)
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        self.reply_json({"id": id, "sha": sha, "private": repo.private, "siblings": siblings, "tags": []})

    def refs(self, kind: str, id: str) -> None:
        repo = self.repo(kind, id)
        lists = {"heads": repo.branches, "tags": repo.tags}
        heads, tags = (
            [
                {"name": name, "ref": f"refs/{folder}/{name}", "targetCommit": sha}
                for name, sha in names.items()
            ]
            for folder, names in lists.items()
        )
        self.reply_json({"branches": heads, "tags": tags, "converts": []})

    def tag(self, kind: str, id: str, revision: str) -> None:
        self.check_writer()
        repo = self.repo(kind, id)
        name = json.loads(self.body)["tag"]
        if name in repo.tags:
            raise Refusal(409)
        repo.tags[name] = self.commit_of(repo, revision)
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
            lfs = (
                {"lfs": {"oid": file.sha256, "size": len(file.content), "pointerSize": 134}}
                if file.lfs
                else {}
            )
            entries[path] = {"type": "file", "path": path, "oid": file.oid, "size": len(file.content)} | lfs
        inside = {
            path for path in entries if recursive or PurePosixPath(path).parent == PurePosixPath(folder)
        }
        if folder and not entries:
            raise Refusal(404, "EntryNotFound", commit=sha)
        self.reply_json([entry for path, entry in entries.items() if path in inside])

    def resolve(self, kind: str, id: str, revision: str, path: str) -> None:
        repo = self.repo(kind, id)
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
    (("POST",), rf"{REPO}/branch/(?P<name>[^/]+)", Handler.branch),
    (("GET",), rf"{REPO}/refs", Handler.refs),
    (("GET",), rf"{REPO}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", Handler.tree),
    (("GET",), rf"{REPO}/revision/(?P<revision>[^/]+)", Handler.info),
    (("GET",), REPO, Handler.info),
    (("GET", "HEAD"), rf"{FILES}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", Handler.resolve),
]


if __name__ == "__main__":
    server = HubServer(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for variable, setting in server.environment("~/.cache/loopback-hub").items():
        print(f"export {variable}={setting}", flush=True)
    server.serve_forever()
