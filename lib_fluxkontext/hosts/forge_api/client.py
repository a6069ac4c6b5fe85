"""The part of Forge's HTTP API that a batch needs, and what its failures mean."""

from __future__ import annotations

import socket
import threading
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection

from lib_fluxkontext.errors import KontextError
from lib_fluxkontext.settings import FIELD_NAMES

CONNECT_SECONDS = 10.0
LOOK_SECONDS = 20.0
"""Longest wait for an answer that takes no sampling."""

MAX_REASON = 300
"""Characters of a server's reason that are kept."""

_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 6}
"""A generation is one request that is silent for minutes: probes find a machine that is gone, and keep routers from
forgetting the connection. Systems know some of these names or none."""


class RequestRefused(Exception):
    """The server will not do this as it was asked, today or tomorrow: 422 and most other 4xx."""

    def __init__(self, reason: str, field: str | None = None) -> None:
        self.reason = reason
        self.field = field
        super().__init__(reason)


class ServerTrouble(Exception):
    """No answer, or one that another try may change: a lost connection, a timeout, 5xx, 408, 429."""


class NoAccess(ServerTrouble):
    """The server serves nothing of this: a wrong password, no API, another address. A server that has just started has
    no API for a moment."""


class ForgeClient:
    """One server. Every method but ``txt2img`` answers within seconds, and all may be called from any thread.

    All raise ``ServerTrouble`` or ``RequestRefused``, whose messages never hold the password.

    Args:
        url: such as ``http://127.0.0.1:7860``, with the server's ``--subpath`` if it has one.
        auth: ``user:password`` as in the server's ``--api-auth``.
        answer_seconds: longest wait for a picture, the server's queue included.

    Raises:
        KontextError: an address or credentials that cannot be.
    """

    def __init__(self, url: str, auth: str | None = None, answer_seconds: float = 3600.0) -> None:
        self.url = _checked(url)
        self.answer_seconds = answer_seconds
        self._auth = _credentials(auth)
        self._of_thread = threading.local()

    def scripts(self) -> list[str]:
        """Return the names of the scripts in txt2img, in lower case."""
        return list(self._get("/sdapi/v1/scripts")["txt2img"])

    def options(self) -> dict[str, Any]:
        """Return Forge's settings."""
        return dict(self._get("/sdapi/v1/options"))

    def checkpoints(self, refresh: bool = False) -> list[dict[str, Any]]:
        """Return the checkpoints; with ``refresh`` Forge reads its folders again."""
        if refresh:
            self._post("/sdapi/v1/refresh-checkpoints")
        return list(self._get("/sdapi/v1/sd-models"))

    def select(self, checkpoint: str) -> None:
        """Select a checkpoint by its title, as on Forge's page."""
        self._post("/sdapi/v1/options", {"sd_model_checkpoint": checkpoint})

    def loras(self, refresh: bool = False) -> list[dict[str, Any]]:
        """Return the LoRAs; with ``refresh`` Forge reads its folders again."""
        if refresh:
            self._post("/sdapi/v1/refresh-loras")
        return list(self._get("/sdapi/v1/loras"))

    def txt2img(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Generate. Takes as long as that takes."""
        return dict(self._post("/sdapi/v1/txt2img", payload, self.answer_seconds))

    def state(self) -> dict[str, Any]:
        """Return ``progress``, 0 to 1, and ``state``, whose ``job`` is empty where nothing runs."""
        return dict(self._get("/sdapi/v1/progress?skip_current_image=true"))

    def task(self, task: str) -> dict[str, Any]:
        """Return whether a task is ``active``, ``queued`` or ``completed``, and its ``progress``, 0 to 1.

        Raises:
            NoAccess: Forge was started without its page, which this belongs to.
        """
        return dict(self._post("/internal/progress", {"id_task": task, "live_preview": False}))

    def interrupt(self) -> None:
        """Stop what is running, whoever asked for it."""
        self._post("/sdapi/v1/interrupt")

    def _get(self, path: str) -> Any:
        return self._request("GET", path, None, LOOK_SECONDS)

    def _post(self, path: str, body: Any = None, seconds: float = LOOK_SECONDS) -> Any:
        return self._request("POST", path, body, seconds)

    def _request(self, method: str, path: str, body: Any, seconds: float) -> Any:
        timeout = (CONNECT_SECONDS, seconds)
        try:
            # A redirected POST would arrive as a GET, and elsewhere.
            answer = self._session().request(method, self.url + path, json=body, timeout=timeout, allow_redirects=False)
            if answer.status_code == 200:
                return answer.json()
        except requests.JSONDecodeError:
            raise NoAccess(f"{self.url} answers with something that is not Forge's API") from None
        except requests.Timeout:
            raise ServerTrouble(f"{self.url} did not answer in time") from None
        except requests.RequestException as error:
            raise ServerTrouble(f"{self.url} cannot be reached: {_cause(error)}") from None
        raise self._error(answer)

    def _error(self, answer: requests.Response) -> Exception:
        status = answer.status_code
        reason, field = _reason(answer)
        if status in (408, 429) or status >= 500:
            return ServerTrouble(f"{reason} ({status})")
        if status in (401, 403):
            return NoAccess(f"{self.url} refuses user and password ({status}); give those of its --api-auth by --auth")
        if status in (404, 405):
            return NoAccess(f"{self.url} has no API ({status}); start Forge with --api")
        if status < 400:
            target = answer.headers.get("Location", "another address")
            return NoAccess(f"{self.url} redirects to {target}; give that address")
        return RequestRefused(reason, field)

    def _session(self) -> requests.Session:
        """Return this thread's session: requests does not promise that threads can share one."""
        session: requests.Session | None = getattr(self._of_thread, "session", None)
        if session is None:
            session = self._of_thread.session = requests.Session()
            session.auth = self._auth
            for scheme in ("http://", "https://"):
                session.mount(scheme, _KeepAliveAdapter())
            if urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1"):
                session.trust_env = False  # no proxy leads to this machine
        return session


class _KeepAliveAdapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Add TCP keep-alive to every connection."""
        known = [(name, value) for name, value in _KEEPALIVE.items() if hasattr(socket, name)]
        probes = [(socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in known]
        keepalive = (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        kwargs["socket_options"] = [*HTTPConnection.default_socket_options, keepalive, *probes]
        super().init_poolmanager(*args, **kwargs)


def _checked(url: str) -> str:
    address = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(address)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise KontextError(f"got {url}; allowed: an address such as http://127.0.0.1:7860", "forge")
    if "@" in parts.netloc:  # addresses end up in logs and records
        raise KontextError("user and password belong into --auth, not into the address", "forge")
    return address.rstrip("/")


def _credentials(auth: str | None) -> tuple[str, str] | None:
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon):
        raise KontextError("allowed: user:password", "auth")
    return user, password


def _reason(answer: requests.Response) -> tuple[str, str | None]:
    """Return what the server says on one line, and the setting that the extension blames."""
    try:
        body = answer.json()
    except requests.JSONDecodeError:
        body = {}
    body = body if isinstance(body, dict) else {}
    detail = body.get("detail") or body.get("errors") or body.get("error") or answer.reason or "no reason given"
    if isinstance(detail, list):  # FastAPI's own validation
        detail = "; ".join(_invalid_value(item) for item in detail)
    line = " ".join(str(detail).split())
    field, colon, reason = line.partition(": ")
    if colon and field in FIELD_NAMES:
        return reason[:MAX_REASON], field
    return line[:MAX_REASON], None


def _invalid_value(item: Any) -> str:
    if not isinstance(item, dict):
        return str(item)
    place = ".".join(str(part) for part in item.get("loc", ()) if part != "body")
    return f"{place}: {item.get('msg')}"


def _cause(error: requests.RequestException) -> str:
    """Name the system's own reason, below the names of libraries and objects around it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror.lower()
        inner = cause.args[0] if cause.args and isinstance(cause.args[0], BaseException) else None
        cause = getattr(cause, "reason", None) or inner or cause.__cause__ or cause.__context__
    return type(error).__name__
