"""Start a real Forge or Forge Neo on the CPU, in a data folder of its own, and use its API.

Models, settings and extensions come from a temporary data folder, so the user's own are neither used nor changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from PIL import Image

from tests.support import checkpoint_files
from tests.support.forge_install import (
    FORGE,
    REPO_ROOT,
    TEST_EXTENSION,
    WINDOWS,
    Host,
    free_port,
    link,
)
from tests.support.images import decode_image, encode_image
from tests.support.waiting import wait_until

SETTINGS: dict[str, Any] = {
    "forge_preset": "flux",
    "samples_save": False,
    "grid_save": False,
    "save_images_add_number": True,
    "show_progress_type": "Approx cheap",
    "control_net_unit_count": 1,
    "temp_dir": "",
    "flux_t2i_scheduler": "Simple",
    "flux_i2i_scheduler": "Simple",
    "flux_t2i_width": 256,
    "flux_t2i_height": 256,
    "flux_i2i_width": 256,
    "flux_i2i_height": 256,
}
"""Settings in the data folder, unless a test gives others."""

PAGE_DEFAULTS: dict[str, Any] = {
    "txt2img/Sampling steps/value": 4,
    "img2img/Sampling steps/value": 4,
}
"""Initial values of the page's inputs (``ui-config.json``)."""


@dataclass
class Result:
    """The answer to a generation request."""

    status: int
    reply: dict[str, Any]
    seconds: float

    @property
    def images(self) -> list[Image.Image]:
        """The pictures, decoded."""
        return [decode_image(text) for text in self.reply.get("images") or []]

    @property
    def info(self) -> dict[str, Any]:
        """The generation data, with ``infotexts`` among them."""
        return json.loads(self.reply.get("info") or "{}")

    @property
    def infotext(self) -> str:
        """The first picture's infotext."""
        return (self.info.get("infotexts") or [""])[0]


class ForgeServer:
    """A running Forge; use it in a ``with`` statement, or call :meth:`start` and :meth:`stop`."""

    def __init__(
        self,
        *,
        host: Host = FORGE,
        nowebui: bool = True,
        extensions: bool = True,
        checkpoint: str = checkpoint_files.FLUX,
        settings: dict[str, Any] | None = None,
        env: dict[str, str] | None = None,
        flags: list[str] | None = None,
        startup_timeout: float = 240,
    ) -> None:
        """Describe a server; nothing starts yet.

        Args:
            host: which WebUI.
            nowebui: without the page, the API alone.
            extensions: with the extension under test, and not the test-only one alone.
            checkpoint: the selected one.
            settings: more of Forge's settings.
            env: more environment variables.
            flags: more command-line flags.
            startup_timeout: in seconds.
        """
        self.host = host
        self.nowebui = nowebui
        self.extensions = extensions
        self.checkpoint = checkpoint
        selected = {"sd_model_checkpoint": checkpoint, "forge_checkpoint_flux": checkpoint}
        self.settings = {**SETTINGS, **selected, **(settings or {})}
        self.env = env or {}
        self.flags = flags or []
        self.startup_timeout = startup_timeout
        self.startup_seconds = 0.0
        self.port = 0
        self.process: subprocess.Popen[bytes] | None = None
        self.data = Path()

    @property
    def url(self) -> str:
        """The server's address, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> ForgeServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def prepare_data(self) -> None:
        """Make the data folder with settings, models and extensions."""
        # Neo takes a checkpoint for Kontext where its path contains the word.
        self.data = Path(tempfile.mkdtemp(prefix="small-flux-"))
        models = checkpoint_files.ensure_checkpoints(self.host.python)
        asked_for = checkpoint_files.ALIASES.get(self.checkpoint, self.checkpoint)
        if asked_for in checkpoint_files.ON_REQUEST:
            checkpoint_files.ensure_checkpoints(self.host.python, [asked_for])
        for name, folder in checkpoint_files.FOLDERS.items():
            if (models / folder / name).exists():
                link(models / folder / name, self.data / "models" / folder / name)
        for name, source in checkpoint_files.ALIASES.items():
            if checkpoint_files.checkpoint_path(source).exists():
                link(checkpoint_files.checkpoint_path(source), self.data / "models" / "Stable-diffusion" / name)
        link(TEST_EXTENSION, self.data / "extensions" / "small-flux")
        if self.extensions:
            link(REPO_ROOT, self.data / "extensions" / "flux-kontext")
        for name, content in (("config.json", self.settings), ("ui-config.json", PAGE_DEFAULTS)):
            (self.data / name).write_text(json.dumps(content, indent=4), encoding="utf-8")

    def start(self) -> ForgeServer:
        """Start Forge and wait until it answers and its extensions have been told so."""
        reason = self.host.unavailable()
        if reason:
            raise RuntimeError(reason)
        self.prepare_data()
        self.port = self.port or free_port()  # a restarted one keeps its address
        command = [str(self.host.python), "launch.py", *self.host.flags, *self.flags]
        command += ["--server-name", "127.0.0.1", "--port", str(self.port), "--data-dir", str(self.data)]
        # With a data folder elsewhere, Gradio would not serve the scripts of Forge's own page.
        command += ["--nowebui"] if self.nowebui else ["--gradio-allowed-path", str(self.host.root)]
        environment = {
            **os.environ,
            "COLUMNS": "250",  # Neo breaks the lines of its log there
            "GRADIO_ANALYTICS_ENABLED": "False",
            "GRADIO_TEMP_DIR": str(self.data / "gradio"),
            "HF_HUB_OFFLINE": "1",
            "PYTHONIOENCODING": "utf-8",
            "PYTHONUNBUFFERED": "1",
            "SD_WEBUI_RESTARTING": "1",  # opens no browser
            **self.env,
        }
        environment.pop("COMMANDLINE_ARGS", None)
        new_group: dict[str, Any] = {"start_new_session": True}
        if WINDOWS:
            new_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        begin = time.monotonic()
        with self.log_path.open("wb") as log:
            streams: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": log, "stderr": subprocess.STDOUT}
            self.process = subprocess.Popen(command, cwd=self.host.root, env=environment, **streams, **new_group)
        # Neo waits for Enter where it did not write the settings itself.
        with contextlib.suppress(OSError), self.process.stdin as keyboard:
            keyboard.write(b"\n")
        try:
            wait_until(self.is_ready, self.startup_timeout, lambda: f"Forge to start:\n{self.log_text()[-4000:]}")
        except BaseException:
            self.stop()
            raise
        self.startup_seconds = time.monotonic() - begin
        return self

    def is_ready(self) -> bool:
        """Return whether Forge answers and its extensions have been told so.

        Raises:
            RuntimeError: Forge has ended.
        """
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"Forge ended while starting:\n{self.log_text()[-4000:]}")
        if "Startup time:" not in self.log_text():
            return False
        with contextlib.suppress(OSError):
            return self.get("/sdapi/v1/options", timeout=10)[0] == 200
        return False

    def stop(self) -> None:
        """Kill Forge with all its children, and remove the data folder."""
        process, self.process = self.process, None
        if process is not None:
            if WINDOWS:
                command = ["taskkill", "/T", "/F", "/PID", str(process.pid)]
                subprocess.run(command, capture_output=True, check=False)
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        if self.data != Path():
            shutil.rmtree(self.data, ignore_errors=True)
            self.data = Path()

    @property
    def log_path(self) -> Path:
        """The file with all of Forge's output."""
        return self.data / "forge.log"

    def log_text(self) -> str:
        """Return Forge's output so far."""
        return self.log_path.read_text(encoding="utf-8", errors="replace") if self.log_path.exists() else ""

    def request(self, path: str, body: Any = None, timeout: float = 300) -> tuple[int, Any]:
        """Send a request, a POST when there is a body; return the status and the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=timeout) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, {"text": content.decode(errors="replace")}

    def get(self, path: str, timeout: float = 300) -> tuple[int, Any]:
        """Send a GET request; return the status and the decoded answer."""
        return self.request(path, timeout=timeout)

    def post(self, path: str, body: Any, timeout: float = 300) -> tuple[int, Any]:
        """Send a POST request; return the status and the decoded answer."""
        return self.request(path, body, timeout=timeout)

    def select(self, checkpoint: str, modules: list[str] | None = None) -> None:
        """Select the checkpoint, and the separate modules it needs, for the generations to come."""
        if modules is None:
            modules = checkpoint_files.GGUF_MODULES if checkpoint.endswith(".gguf") else []
        choice = {"sd_model_checkpoint": checkpoint, "forge_additional_modules": modules}
        status, reply = self.post("/sdapi/v1/options", choice)
        if status != 200:
            raise RuntimeError(f"Forge did not take {checkpoint}: {reply}")

    def generate(self, path: str, payload: dict[str, Any]) -> Result:
        """Generate through ``path``, with small defaults for what the payload leaves open."""
        defaults = {
            "prompt": "a red lighthouse on a cliff",
            "seed": 1,
            "steps": 4,
            "width": 256,
            "height": 256,
            "cfg_scale": 1.0,
            "distilled_cfg_scale": 3.5,
            "sampler_name": "Euler",
            "scheduler": "Simple",
        }
        begin = time.monotonic()
        status, reply = self.post(path, {**defaults, **payload})
        return Result(status, reply, time.monotonic() - begin)

    def txt2img(self, **payload: Any) -> Result:
        """Generate from text."""
        return self.generate("/sdapi/v1/txt2img", payload)

    def img2img(self, image: Image.Image, **payload: Any) -> Result:
        """Generate from a picture."""
        return self.generate("/sdapi/v1/img2img", {"init_images": [encode_image(image)], **payload})
