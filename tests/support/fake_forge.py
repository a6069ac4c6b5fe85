"""A stand-in for a Forge server: the routes that a batch uses, and failures on request."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_fluxkontext.batch.row import Row
from lib_fluxkontext.hosts.forge_api.worker import ForgeWorker
from lib_fluxkontext.settings import KontextSettings

CHECKPOINT = {
    "title": "flux/kontext.safetensors [0123456789]",
    "model_name": "flux_kontext",
    "filename": "/m/kontext.safetensors",
}
OTHER = {"title": "other.gguf", "model_name": "other", "filename": "D:\\models\\other.gguf"}

TXT2IMG = "/sdapi/v1/txt2img"
TRIES = 4

Failure = tuple[int, Any]
"""A status and a body to answer a generation with; status 0 drops the connection."""


class FakeForge:
    """The server, in a thread of its own. Attributes may be changed while it runs.

    Attributes:
        failures: taken one by one; when none is left, generations succeed.
        always: what every generation answers, if anything.
        requests: method and path of everything that was asked, in order.
        payloads: bodies of the generations.
        steps: sampler steps that are made, in place of those asked for; taken one by one.
        selected: checkpoints that were selected, in order.
        hold: generations wait for it.
    """

    def __init__(self, port: int = 0) -> None:
        self.failures: list[Failure] = []
        self.always: Failure | None = None
        self.requests: list[str] = []
        self.payloads: list[dict[str, Any]] = []
        self.steps: list[int] = []
        self.selected: list[str] = []
        self.authorizations: set[str | None] = set()
        self.hold = threading.Event()
        self.hold.set()
        self.generating = threading.Event()
        self.answers: dict[str, Any] = {
            "/sdapi/v1/scripts": {"txt2img": ["flux kontext", "x/y/z plot"], "img2img": []},
            "/sdapi/v1/options": {"samples_format": "png", "sd_model_checkpoint": CHECKPOINT["title"]},
            "/sdapi/v1/sd-models": [CHECKPOINT, OTHER],
            "/sdapi/v1/loras": [{"name": "ink", "alias": "Ink Style", "path": "/m/ink.safetensors"}],
            "/sdapi/v1/progress": {"progress": 0.5, "state": {"job": ""}},
        }
        self.statuses: dict[str, int] = {"/internal/progress": 404}
        self.password: str | None = None
        self.text_in_png = True
        self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def count(self, path: str) -> int:
        """Count the requests to a path."""
        return sum(request.endswith(path) for request in self.requests)

    def stop(self) -> None:
        """Close the port, and drop what is running."""
        self.always = (0, None)
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()

    def picture(self, payload: dict[str, Any]) -> bytes:
        """Return the PNG for a request."""
        metadata = PngInfo()
        if self.text_in_png:
            metadata.add_text("parameters", f"infotext of seed {payload['seed']}")
        data = io.BytesIO()
        colour = (payload["seed"] % 256, 0, 0)
        Image.new("RGB", (payload["width"], payload["height"]), colour).save(data, "PNG", pnginfo=metadata)
        return data.getvalue()

    def _generate(self, payload: dict[str, Any]) -> Failure:
        self.payloads.append(payload)
        self.generating.set()
        self.hold.wait(30)
        if self.always or self.failures:
            return self.always or self.failures.pop(0)
        steps = self.steps.pop(0) if self.steps else payload["steps"]
        title = payload["override_settings"]["sd_model_checkpoint"]
        if not payload["override_settings_restore_afterwards"]:  # as Forge: it stays selected
            self.answers["/sdapi/v1/options"]["sd_model_checkpoint"] = title
        info = {
            "infotexts": [f"infotext of seed {payload['seed']}"],
            "sd_model_name": "kontext" if title == CHECKPOINT["title"] else "other",
            "extra_generation_params": {
                "Kontext report": {"steps": steps, "passes": [{"references_encoded": 2}], "sampling_seconds": 1.0}
            },
        }
        return 200, {"images": [base64.b64encode(self.picture(payload)).decode()], "info": json.dumps(info)}

    def _answer(self, path: str, body: Any) -> Failure:
        if path in self.statuses:
            return self.statuses[path], {"detail": "Not Found"}
        if path == "/sdapi/v1/txt2img":
            return self._generate(body)
        if path == "/sdapi/v1/options" and body:
            self.selected.append(body["sd_model_checkpoint"])
        answer = self.answers.get(path, {})
        return 200, answer(body) if callable(answer) else answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.serve()

            def do_POST(self) -> None:
                self.serve()

            def serve(self) -> None:
                path = self.path.partition("?")[0]
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length) or "null")
                fake.requests.append(f"{self.command} {path}")
                header = self.headers.get("Authorization")
                fake.authorizations.add(header)
                if fake.password and header != f"Basic {base64.b64encode(fake.password.encode()).decode()}":
                    status, answer = 401, {"detail": "Incorrect username or password"}
                else:
                    status, answer = fake._answer(path, body)
                if status == 0:
                    self.close_connection = True
                    return
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                with suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        return Handler


def worker_of(fake: FakeForge, auth: str | None = None, wait_seconds: float = 30) -> ForgeWorker:
    """Return a worker that is not patient between its tries."""
    return ForgeWorker(fake.url, auth, wait_seconds=wait_seconds, tries=TRIES, pause=0.01)


def row(seed: int = 1, images: tuple[Path, ...] = (), **more: Any) -> Row:
    """Return a row of three steps."""
    values: dict[str, Any] = {"prompt": "make it blue", "settings": KontextSettings(enabled=True), "steps": 3} | more
    digests = tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in images)
    return Row(seed, seed, f"{seed:032x}", images=images, digests=digests, width=32, height=48, seed=seed, **values)
