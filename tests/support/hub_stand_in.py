# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A small stand-in of the Hugging Face Hub's HTTP API on loopback, so that the real client code runs.

It knows what `huggingface_hub` asks for when models are uploaded and loaded: who am I, create a repository or
a branch, preupload, LFS batch with upload and verification, commit, model and tree information, and resolve.
Everything is held in memory. One account; a private repository exists only for those who send its token.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml


USER = "tester"
TOKEN = "stand-in-token-for-tests"
REGULAR_MAX_BYTES = 4096  # larger or binary files go the way of LFS


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass
class Entry:
    """A file of a commit."""

    data: bytes
    lfs: bool

    @property
    def etag(self) -> str:
        return hashlib.sha256(self.data).hexdigest() if self.lfs else git_oid(self.data)

    def info(self, path: str) -> dict[str, Any]:
        result = {"type": "file", "path": path, "size": len(self.data), "oid": git_oid(self.data)}
        if self.lfs:
            result["lfs"] = {"oid": self.etag, "size": len(self.data), "pointerSize": 134}
        return result


@dataclass
class Repository:
    """Branches point to commits, commits hold files."""

    private: bool
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.commit("main", {}, "initial commit")

    def commit(self, branch: str, files: dict[str, Entry], message: str) -> str:
        self.messages.append(message)
        oid = hashlib.sha1(repr((branch, len(self.commits), message)).encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        return oid

    def resolve(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubError(Exception):
    """An answer that is not a success, with the Hub's error code."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def not_found(code: str, what: str) -> HubError:
    return HubError(404, code, f"{what} not found")


class HubStandIn:
    """The server; a context manager. `requests` lists (method, path) of what the client asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.verified: set[str] = set()
        self.requests: list[tuple[str, str]] = []
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        port = self.server.server_address[1]
        self.url = f"http://127.0.0.1:{port}"
        self.store = f"http://localhost:{port}/lfs-store"  # large files lie on another host, as on the Hub
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self) -> "HubStandIn":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def files(self, name: str, revision: str = "main") -> dict[str, Entry]:
        """Files of a revision, by path."""
        repository = self.repositories[name]
        oid = repository.resolve(revision)
        assert oid is not None, f"{name} has no revision {revision}"
        return repository.commits[oid]

    def environment(self, home: Any) -> dict[str, str]:
        """What makes a process of the real client talk to this server only."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",  # large files over LFS: Xet's storage is another service
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
        }


class _Handler(BaseHTTPRequestHandler):
    """Routes requests; the first pattern that fits answers."""

    protocol_version = "HTTP/1.1"
    server_hub: HubStandIn

    def log_message(self, *_: Any) -> None:
        """No access log."""

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.server_hub.requests.append((self.command, path))
        self.body = self._read_body()
        self.known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        try:
            for expected, pattern, handle in ROUTES:
                match = re.fullmatch(pattern, path)
                if match and self.command in expected:
                    arguments = {name: unquote(value) for name, value in match.groupdict().items() if value}
                    handle(self, **arguments)
                    return
            raise HubError(501, "NotImplemented", f"The stand-in does not know {self.command} {path}")
        except HubError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": str(error)}
            self._send(error.status, json.dumps({"error": str(error)}).encode(), headers)

    do_HEAD = do_POST = do_PUT = do_GET

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode())

    def _writer(self) -> None:
        if not self.known:
            raise HubError(401, "", "Invalid username or password.")

    def _repository(self, name: str) -> Repository:
        repository = self.server_hub.repositories.get(name)
        if repository is None or (repository.private and not self.known):
            # The Hub tells strangers the same of private and of missing repositories.
            raise HubError(404 if self.known else 401, "RepoNotFound", "Repository not found")
        return repository

    def _commit(self, name: str, revision: str) -> tuple[str, dict[str, Entry]]:
        repository = self._repository(name)
        oid = repository.resolve(revision)
        if oid is None:
            raise not_found("RevisionNotFound", f"Revision {revision}")
        return oid, repository.commits[oid]

    # --- routes ---

    def whoami(self) -> None:
        self._writer()
        self._json({"type": "user", "name": USER, "orgs": [], "auth": {"type": "access_token"}})

    def create_repo(self) -> None:
        self._writer()
        request = json.loads(self.body)
        name = f"{request.get('organization') or USER}/{request['name']}"
        if request.get("type") == "dataset":
            name = f"datasets/{name}"
        if name in self.server_hub.repositories:
            url = json.dumps({"error": "exists", "url": f"{self.server_hub.url}/{name}"})
            self._send(409, url.encode())
            return
        private = request.get("visibility") == "private" or bool(request.get("private"))
        self.server_hub.repositories[name] = Repository(private)
        self._json({"url": f"{self.server_hub.url}/{name}", "name": name.removeprefix("datasets/")})

    def create_branch(self, name: str, branch: str) -> None:
        self._writer()
        repository = self._repository(name)
        if branch in repository.branches:
            raise HubError(409, "", "Reference already exists")
        start = json.loads(self.body or b"{}").get("startingPoint", "main")
        oid = repository.resolve(start)
        if oid is None:
            raise not_found("RevisionNotFound", f"Revision {start}")
        repository.branches[branch] = oid
        self._json({})

    def validate_yaml(self) -> None:
        match = re.match(r"---\n(.*?)\n---", json.loads(self.body)["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(match[1]) if match else {}
        except yaml.YAMLError as error:
            self._send(400, json.dumps({"errors": [{"message": str(error)}]}).encode())
            return
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        self._json({"errors": [], "warnings": warnings})

    def preupload(self, name: str, revision: str) -> None:
        self._writer()
        _, files = self._commit(name, revision)
        answers = []
        for file in json.loads(self.body)["files"]:
            binary = b"\0" in base64.b64decode(file["sample"]) or file["size"] > REGULAR_MAX_BYTES
            answer = {"path": file["path"], "uploadMode": "lfs" if binary else "regular"}
            answer["shouldIgnore"] = False
            if file["path"] in files:
                answer["oid"] = files[file["path"]].etag
            answers.append(answer)
        self._json({"files": answers})

    def lfs_batch(self, name: str) -> None:
        self._writer()
        self._repository(name)
        url = self.server_hub.url
        answers = []
        for item in json.loads(self.body)["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.server_hub.blobs:
                answer["actions"] = {
                    "upload": {"href": f"{self.server_hub.store}/{item['oid']}"},
                    "verify": {"href": f"{url}/{name}.git/info/lfs/objects/verify"},
                }
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def lfs_upload(self, oid: str) -> None:
        self._storage_gets_no_token()
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "", "The content does not fit its SHA-256")
        self.server_hub.blobs[oid] = self.body
        self._send(200, b"")

    def _storage_gets_no_token(self) -> None:
        if "Authorization" in self.headers:
            raise HubError(400, "", "The token was sent to the storage host")

    def lfs_download(self, oid: str) -> None:
        self._storage_gets_no_token()
        self._send(200, self.server_hub.blobs[oid], {"ETag": f'"{oid}"'})

    def lfs_verify(self, name: str) -> None:
        self._writer()
        item = json.loads(self.body)
        if len(self.server_hub.blobs.get(item["oid"], b"")) != item["size"]:
            raise HubError(400, "", "Not uploaded, or of another size")
        self.server_hub.verified.add(item["oid"])
        self._json({})

    def commit(self, name: str, revision: str) -> None:
        self._writer()
        repository = self._repository(name)
        if revision not in repository.branches:
            raise not_found("RevisionNotFound", f"Branch {revision}")
        files = dict(self._commit(name, revision)[1])
        message = ""
        for line in self.body.decode().splitlines():
            operation = json.loads(line)
            kind, value = operation["key"], operation["value"]
            if kind == "header":
                message = value["summary"]
            elif kind == "file":
                files[value["path"]] = Entry(base64.b64decode(value["content"]), lfs=False)
            elif kind == "lfsFile":
                if value["oid"] not in self.server_hub.blobs:
                    raise HubError(400, "", f"{value['path']} was not uploaded before the commit")
                files[value["path"]] = Entry(self.server_hub.blobs[value["oid"]], lfs=True)
            elif kind == "deletedFile":
                files.pop(value["path"], None)
            else:
                raise HubError(501, "NotImplemented", f"The stand-in does not know {kind} in a commit")
        oid = repository.commit(revision, files, message)
        self._json({"commitUrl": f"{self.server_hub.url}/{name}/commit/{oid}", "commitOid": oid})

    def model_info(self, name: str, revision: str = "main") -> None:
        oid, files = self._commit(name, revision)
        self._json(
            {
                "id": name.removeprefix("datasets/"),
                "modelId": name.removeprefix("datasets/"),
                "author": name.split("/")[-2],
                "sha": oid,
                "private": self._repository(name).private,
                "disabled": False,
                "gated": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "siblings": [{"rfilename": path} for path in sorted(files)],
            }
        )

    def tree(self, name: str, revision: str, folder: str = "") -> None:
        _, files = self._commit(name, revision)
        found = [files[path].info(path) for path in sorted(files) if path.startswith(folder)]
        if folder and not found:
            raise not_found("EntryNotFound", folder)
        self._json(found)

    def refs(self, name: str) -> None:
        branches = self._repository(name).branches
        listed = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": oid} for b, oid in branches.items()]
        self._json({"branches": listed, "tags": [], "converts": []})

    def resolve(self, name: str, revision: str, path: str) -> None:
        oid, files = self._commit(name, revision)
        headers = {"X-Repo-Commit": oid}
        if path not in files:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            self._send(404, b"", headers)
            return
        entry = files[path]
        if entry.lfs:  # as on the Hub: the content lies elsewhere
            location = f"{self.server_hub.store}/{entry.etag}"
            headers |= {"X-Linked-Etag": f'"{entry.etag}"', "X-Linked-Size": str(len(entry.data))}
            self._send(302, b"", {**headers, "Location": location})
        else:
            self._send(200, entry.data, {**headers, "ETag": f'"{entry.etag}"'})


# Data sets are kept apart from models as "datasets/user/name"; so they are called in addresses, too.
_NAME = r"(?P<name>(?:datasets/)?[^/]+/[^/]+)"
_MODEL = r"/api/(?:models/(?=[^/]+/[^/]+)|(?=datasets/))(?P<name>(?:datasets/)?[^/]+/[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Any]] = [
    (("GET",), r"/api/whoami-v2", _Handler.whoami),
    (("POST",), r"/api/repos/create", _Handler.create_repo),
    (("POST",), r"/api/validate-yaml", _Handler.validate_yaml),
    (("POST",), rf"{_MODEL}/branch/(?P<branch>[^/]+)", _Handler.create_branch),
    (("POST",), rf"{_MODEL}/preupload/(?P<revision>[^/]+)", _Handler.preupload),
    (("POST",), rf"{_MODEL}/commit/(?P<revision>[^/]+)", _Handler.commit),
    (("GET",), rf"{_MODEL}/refs", _Handler.refs),
    (("GET",), rf"{_MODEL}/revision/(?P<revision>[^/]+)", _Handler.model_info),
    (("GET",), rf"{_MODEL}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", _Handler.tree),
    (("GET",), _MODEL, _Handler.model_info),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("POST",), rf"/{_NAME}\.git/info/lfs/objects/verify", _Handler.lfs_verify),
    (("PUT",), r"/lfs-store/(?P<oid>[0-9a-f]{64})", _Handler.lfs_upload),
    (("GET", "HEAD"), r"/lfs-store/(?P<oid>[0-9a-f]{64})", _Handler.lfs_download),
    (("GET", "HEAD"), rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", _Handler.resolve),
]
