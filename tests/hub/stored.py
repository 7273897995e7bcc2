"""What the stand-in for the Hub keeps: repositories as commits, contents as files named by digest."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from pathlib import Path

USERS = {
    "hf_annWrites": {"name": "ann", "role": "write", "orgs": ["shapes-club"]},
    "hf_annReads": {"name": "ann", "role": "read", "orgs": []},
    "hf_bobWrites": {"name": "bob", "role": "write", "orgs": []},
    "hf_cleReadsClub": {"name": "cle", "role": "write", "orgs": [], "reads": ["shapes-club"]},
    "hf_annFine": {"name": "ann", "role": "fineGrained", "orgs": [], "scopes": ["ann/one"]},
    "hf_annFineAll": {"name": "ann", "role": "fineGrained", "orgs": ["shapes-club"], "scopes": ["ann"]},
}


def may_write(user: dict, name: str) -> bool:
    """Whether a user's token may write to a repository, as the roles and scopes of the Hub have it."""
    owner = name.partition("/")[0]
    if "scopes" in user:
        return bool({owner, name} & set(user["scopes"]))
    return user["role"] == "write" and owner in (user["name"], *user["orgs"])


LARGE = (".safetensors", ".png", ".bin")
START = {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}


class Refusal(Exception):
    """An answer that is an error, as the Hub words it."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict | None = None):
        self.status, self.message, self.code, self.headers = status, message, code, headers or {}


class Store:
    """Everything below one folder; ``index.json`` lists the commits."""

    def __init__(self, root: Path):
        self.root = root
        (root / "objects").mkdir(parents=True, exist_ok=True)
        self.index = root / "index.json"
        self.repos: dict = json.loads(self.index.read_text()) if self.index.exists() else {}
        self.users = dict(USERS)
        self.faults: list[dict] = []
        self.log: list[dict] = []
        self.quota = 0
        self.lock = threading.Lock()

    def save(self) -> None:
        self.index.write_text(json.dumps(self.repos))

    def object(self, digest: str) -> Path:
        assert re.fullmatch(r"[0-9a-f]{40,64}", digest)
        return self.root / "objects" / digest

    def keep(self, content: bytes) -> dict:
        """Store a small file and return its entry."""
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        self.object(blob).write_bytes(content)
        return {"size": len(content), "oid": blob, "digest": blob}

    def large(self, oid: str) -> dict:
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\n".encode()
        blob = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
        size = self.object(oid).stat().st_size
        return {
            "size": size,
            "oid": blob,
            "digest": oid,
            "lfs": {"sha256": oid, "size": size, "pointerSize": 130},
        }

    def commit(self, repo: dict, files: dict, message: str) -> str:
        seed = json.dumps([len(repo["commits"]), files, message, time.time_ns()]).encode()
        oid = hashlib.sha1(seed).hexdigest()
        repo["commits"].append({"oid": oid, "files": files, "message": message})
        self.save()
        return oid

    def used(self) -> int:
        last = [repo["commits"][-1]["files"] for repo in self.repos.values()]
        return sum(entry["size"] for files in last for entry in files.values())
