"""A visitor of the runs page who speaks the page's own protocol, and may send what no browser would."""

import json
import re
import secrets
import urllib.parse
import urllib.request

from tests.faults.clients import Client, Notes, Page


class Visitor:
    """Sends events of one page and reads what the page would show."""

    def __init__(self, url: str, page: str = "runs"):
        with urllib.request.urlopen(f"{url}/config?page={page}") as answer:
            config = json.load(answer)
        ids = {part["id"]: part["props"].get("elem_id") or part["type"] for part in config["components"]}
        self.events = {re.sub(r"_\d+$", "", str(d["api_name"])): d for d in config["dependencies"]}
        self.outputs = {
            name: [ids[number] for number in dependency["outputs"]]
            for name, dependency in self.events.items()
        }
        events = {name: dependency["id"] for name, dependency in self.events.items()}
        port = urllib.parse.urlsplit(url).port
        self._client = Client(Page(port, events, []), Notes(), 0.0, secrets.randbits(32))

    def send(self, event: str, view: object, *more: object) -> dict:
        """Send an event with the page's view and further inputs; return every component's new content."""
        shown = self._client._call(event, [view, None, *more])
        return dict(zip(self.outputs[event], shown, strict=True))

    def notice(self, event: str, view: object, *more: object) -> str:
        """Return what the page says to an event."""
        return self.send(event, view, *more)["runs-notice"]
