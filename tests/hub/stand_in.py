"""A stand-in for the Hub on this machine: accounts, repositories, commits and large objects, stored for real.

It speaks the routes that ``huggingface_hub`` uses for pushing and fetching a model. Faults are switched on
over HTTP (``POST /_faults``), every request is remembered (``GET /_log``). Start one in a test with
``StandIn(folder)``, or in a shell with ``python -m tests.hub.stand_in --root FOLDER --port 9000``.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import re
import socket
import threading
import time
from pathlib import Path

import uvicorn
import yaml
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from huggingface_hub import ModelCard

from tests.hub.card_rules import metadata_errors
from tests.hub.stored import LARGE, START, USERS, Refusal, Store, may_write


class Hub:
    """The routes, bound to a store."""

    def __init__(self, store: Store):
        self.store = store

    # -- who asks, and what for ------------------------------------------------------------------

    def user(self, request: Request) -> dict | None:
        header = request.headers.get("authorization", "")
        if not header:
            return None
        user = self.store.users.get(header.removeprefix("Bearer "))
        if user is None:
            message = "Invalid credentials in Authorization header"
            raise Refusal(401, message, headers={"X-Error-Message": message})
        return user

    def signed_in(self, request: Request) -> dict:
        user = self.user(request)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        return user

    def repo(self, request: Request, name: str, write: bool = False, files: bool = False) -> dict:
        user, repo = self.user(request), self.store.repos.get(name)
        mine = user is not None and name.partition("/")[0] in (user["name"], *user["orgs"])
        if repo is None or (repo["private"] and not mine):
            raise Refusal(404 if user else 401, "Repository not found", "RepoNotFound")
        if write and not (mine and may_write(user, name)):
            raise Refusal(403, "You don't have the rights to write to this repository.")
        if files and repo.get("gated") and not mine:
            raise Refusal(403 if user else 401, "Access to this model is restricted.", "GatedRepo")
        return repo

    def revision(self, repo: dict, name: str) -> dict:
        found = [c for c in repo["commits"] if c["oid"] == name]
        if name not in ("main", "") and not found:
            raise Refusal(404, "Invalid rev id", "RevisionNotFound")
        return found[0] if found else repo["commits"][-1]

    # -- routes ----------------------------------------------------------------------------------

    def whoami(self, request: Request):
        user = self.signed_in(request)
        token = {"displayName": "test", "role": user["role"]}
        if "scopes" in user:
            entities = [{"type": "model" if "/" in name else "user", "name": name} for name in user["scopes"]]
            scoped = [{"entity": entity, "permissions": ["repo.write"]} for entity in entities]
            token["fineGrained"] = {"global": [], "scoped": scoped}
        roles = dict.fromkeys(user["orgs"], "write") | dict.fromkeys(user.get("reads", ()), "read")
        orgs = [{"type": "org", "name": org, "roleInOrg": role} for org, role in roles.items()]
        return {
            "type": "user",
            "name": user["name"],
            "orgs": orgs,
            "avatarUrl": "",
            "auth": {"accessToken": token},
        }

    async def create(self, request: Request):
        user, wanted = self.signed_in(request), await request.json()
        owner = wanted.get("organization") or user["name"]
        if not may_write(user, f"{owner}/{wanted['name']}"):
            raise Refusal(403, f"You don't have the rights to create a model under the namespace '{owner}'.")
        name = f"{owner}/{wanted['name']}"
        address = f"{request.base_url}{name}"
        if name in self.store.repos:
            raise Refusal(409, "You already created this model repo")
        repo = {"private": wanted.get("visibility") == "private", "commits": []}
        self.store.repos[name] = repo
        self.store.commit(
            repo, {path: self.store.keep(text) for path, text in START.items()}, "initial commit"
        )
        return {"url": address, "name": name, "id": name}

    async def validate(self, request: Request):
        text = (await request.json())["content"]
        found = metadata_errors(text)
        body = {"errors": [{"message": message} for message in found], "warnings": []}
        return JSONResponse(body, 400 if found else 200)

    async def preupload(self, request: Request, owner: str, name: str, rev: str):
        repo = self.repo(request, f"{owner}/{name}", write=True)
        files = self.revision(repo, rev)["files"]
        answer = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                "shouldIgnore": False,
                "oid": files.get(file["path"], {}).get("digest"),
            }
            for file in (await request.json())["files"]
        ]
        return {"files": answer}

    async def batch(self, request: Request, owner: str, name: str):
        self.repo(request, f"{owner}/{name}", write=True)
        wanted = (await request.json())["objects"]
        if self.store.quota and self.store.used() + sum(o["size"] for o in wanted) > self.store.quota:
            raise Refusal(403, "Private repository storage limit reached, please upgrade your plan.")
        answer = []
        for entry in wanted:
            there = self.store.object(entry["oid"]).exists()
            upload = {"href": f"{request.base_url}_objects/{entry['oid']}", "header": {}}
            answer.append(entry | ({} if there else {"actions": {"upload": upload}}))
        return JSONResponse(
            {"transfer": "basic", "objects": answer}, media_type="application/vnd.git-lfs+json"
        )

    async def put(self, request: Request, oid: str):
        part = self.store.object(oid).with_suffix(f".{threading.get_ident()}-{time.time_ns()}")
        digest = hashlib.sha256()
        with open(part, "wb") as file:
            async for piece in request.stream():
                digest.update(piece)
                file.write(piece)
        if digest.hexdigest() != oid:
            part.unlink()
            raise Refusal(400, "The object's digest is another one.")
        part.rename(self.store.object(oid))
        return Response(status_code=200)

    async def commit(self, request: Request, owner: str, name: str, rev: str):
        repo = self.repo(request, f"{owner}/{name}", write=True)
        lines = [json.loads(line) for line in (await request.body()).splitlines() if line.strip()]
        header, files = lines[0]["value"], dict(repo["commits"][-1]["files"])
        if header.get("parentCommit") not in (None, repo["commits"][-1]["oid"]):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        for line in lines[1:]:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = self.store.keep(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                if not self.store.object(value["oid"]).exists():
                    raise Refusal(400, f"The object of {value['path']} was never uploaded.")
                files[value["path"]] = self.store.large(value["oid"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                raise Refusal(400, f"Unknown operation {line['key']}.")
        oid = self.store.commit(repo, files, header["summary"])
        return {
            "success": True,
            "commitOid": oid,
            "commitUrl": f"{request.base_url}{owner}/{name}/commit/{oid}",
        }

    def info(self, request: Request, owner: str, name: str, rev: str = "main"):
        repo = self.repo(request, f"{owner}/{name}")
        commit = self.revision(repo, rev)
        siblings = []
        for path, entry in commit["files"].items():
            siblings.append({"rfilename": path})
            if request.query_params.get("blobs"):
                siblings[-1] |= {"size": entry["size"], "blobId": entry["oid"]} | _lfs(entry)
        record = {
            "id": f"{owner}/{name}",
            "sha": commit["oid"],
            "private": repo["private"],
            "siblings": siblings,
        }
        record["cardData"] = self.card_data(commit)
        return record | {"gated": repo.get("gated", False), "tags": [], "downloads": 0, "likes": 0}

    def models(self, request: Request, author: str = ""):
        user = self.user(request)
        mine = (user["name"], *user["orgs"]) if user else ()
        names = [n for n, r in self.store.repos.items() if n.partition("/")[0] in mine or not r["private"]]
        return [{"id": name} for name in names if name.partition("/")[0] == author]

    def card_data(self, commit: dict) -> dict:
        readme = commit["files"].get("README.md")
        text = self.store.object(readme["digest"]).read_bytes().decode(errors="replace") if readme else ""
        try:
            return ModelCard(text).data.to_dict() if text.startswith("---") else {}
        except ValueError:
            return {}

    def check(self, request: Request, owner: str, name: str, write: str = ""):
        self.repo(request, f"{owner}/{name}", write=bool(write), files=True)
        return {}

    def tree(self, request: Request, owner: str, name: str, rev: str):
        commit = self.revision(self.repo(request, f"{owner}/{name}"), rev)
        return [
            {"type": "file", "path": path, "size": entry["size"], "oid": entry["oid"]} | _lfs(entry)
            for path, entry in commit["files"].items()
        ]

    def resolve(self, request: Request, owner: str, name: str, rev: str, path: str):
        commit = self.revision(self.repo(request, f"{owner}/{name}", files=True), rev)
        entry = commit["files"].get(path)
        if entry is None:
            raise Refusal(404, "Entry not found", "EntryNotFound", {"X-Repo-Commit": commit["oid"]})
        headers = {"ETag": f'"{entry["digest"]}"', "X-Repo-Commit": commit["oid"]}
        return FileResponse(self.store.object(entry["digest"]), headers=headers)


def _lfs(entry: dict) -> dict:
    return {"lfs": entry["lfs"]} if "lfs" in entry else {}


class Faulty:
    """Lets requests fail as the rules say; a rule is used ``times`` times, or always without.

    A rule has ``match`` (a pattern for "METHOD /path") and either ``status`` with ``headers``, ``code`` and
    ``message``, or ``cut`` (bytes of the request after which the line is dropped); ``delay`` waits first.
    """

    def __init__(self, app, store: Store):
        self.app, self.store = app, store

    async def __call__(self, scope, receive, send):
        rule = self._rule(scope) if scope["type"] == "http" else None
        if scope["type"] != "http" or scope["path"].startswith("/_faults"):
            return await self.app(scope, receive, send)
        if rule and rule.get("delay"):
            await asyncio.sleep(rule["delay"])  # others are served meanwhile
        if rule and "cut" in rule:
            return await self._cut(rule["cut"], receive, send)
        if rule and "status" in rule:
            headers = {**rule.get("headers", {}), "X-Error-Code": rule.get("code", "")}
            body = {"error": rule.get("message", "as asked")}
            return await JSONResponse(body, rule["status"], headers)(scope, receive, send)
        return await self.app(scope, receive, send)

    def _rule(self, scope) -> dict | None:
        line = f"{scope['method']} {scope['path']}"
        with self.store.lock:
            hit = next((rule for rule in self.store.faults if re.search(rule["match"], line)), None)
            if hit and hit.get("times"):
                hit["times"] -= 1
                if not hit["times"]:
                    self.store.faults.remove(hit)
            self.store.log.append(
                {"line": line, "fault": {k: v for k, v in (hit or {}).items() if k != "match"}}
            )
        return hit

    @staticmethod
    async def _cut(after: int, receive, send) -> None:
        """Read some of the request, answer with less than is promised, and let the server drop the line."""
        read, more = 0, True
        while more and read < after:
            message = await receive()
            read, more = read + len(message.get("body", b"")), message.get("more_body", False)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"100")]})
        raise ConnectionResetError("cut as asked")


def build(store: Store):
    """Return the whole application."""
    hub, app = Hub(store), FastAPI(openapi_url=None)
    app.add_exception_handler(Refusal, _refused)
    one = "/{owner}/{name}"
    for method, path, route in (
        ("GET", "/api/whoami-v2", hub.whoami),
        ("POST", "/api/repos/create", hub.create),
        ("POST", "/api/validate-yaml", hub.validate),
        ("POST", f"/api/models{one}/preupload/{{rev}}", hub.preupload),
        ("POST", f"{one}.git/info/lfs/objects/batch", hub.batch),
        ("PUT", "/_objects/{oid}", hub.put),
        ("POST", f"/api/models{one}/commit/{{rev}}", hub.commit),
        ("GET", f"/api/models{one}/auth-check", hub.check),
        ("GET", f"/api/models{one}/auth-check/{{write}}", hub.check),
        ("GET", f"/api/models{one}/revision/{{rev}}", hub.info),
        ("GET", f"/api/models{one}/tree/{{rev}}", hub.tree),
        ("GET", f"/api/models{one}", hub.info),
        ("GET", "/api/models", hub.models),
    ):
        app.add_api_route(path, route, methods=[method], response_model=None)
    app.add_api_route(
        f"{one}/resolve/{{rev}}/{{path:path}}", hub.resolve, methods=["GET", "HEAD"], response_model=None
    )

    @app.post("/_faults")
    async def faults(request: Request):
        wanted = await request.json()
        store.faults[:] = wanted.get("rules", [])
        store.quota = wanted.get("quota", 0)
        return {}

    @app.get("/_log")
    def log():
        return store.log

    return Faulty(app, store)


def _refused(_request: Request, refusal: Refusal) -> JSONResponse:
    headers = {"X-Error-Code": refusal.code} if refusal.code else {}
    return JSONResponse({"error": refusal.message}, refusal.status, headers | refusal.headers)


class StandIn:
    """A running stand-in; ``url`` is what ``HF_ENDPOINT`` would be."""

    def __init__(self, root: Path, port: int = 0):
        self.store = Store(root)
        self._socket = socket.create_server(("127.0.0.1", port))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        config = uvicorn.Config(build(self.store), log_level="critical", access_log=False, lifespan="off")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        while not self._server.started:
            time.sleep(0.01)

    def fail(self, *rules: dict, quota: int = 0) -> None:
        """Switch faults on, replacing earlier ones."""
        import urllib.request

        body = json.dumps({"rules": rules, "quota": quota}).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/_faults", body, method="POST")).close()

    def lines(self) -> list[str]:
        """Return every request so far as "METHOD /path"."""
        return [entry["line"] for entry in self.store.log]

    def files(self, repo: str) -> dict:
        """Return path → content of a repository's newest commit."""
        files = self.store.repos[repo]["commits"][-1]["files"]
        return {path: self.store.object(entry["digest"]).read_bytes() for path, entry in files.items()}

    def close(self) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    running = StandIn(options.root, options.port)
    print(yaml.safe_dump({"HF_ENDPOINT": running.url, "tokens": list(USERS)}), flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
