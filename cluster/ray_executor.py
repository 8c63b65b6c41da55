"""Machine servers as Ray actors, one server an actor.

Ray starts a dead actor's process again by itself (``max_restarts=-1``) but never repeats a call
(``max_task_retries=0``: it may repeat two of them in the wrong order). The new process holds an empty server.
So whatever an error of Ray's means exactly, for us it means that the server was lost; whether the call had
been carried out does not matter, since the supervisor builds the members anew and replays.

Nothing of Ray's is shown on the terminal: it writes log files, and what it prints about dead workers
would spoil ``--json``.
"""

import contextlib
import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cluster.errors import InputError, RunFailed, one_line
from cluster.machine_server import MachineServer
from cluster.ray_config import RayConfig
from shared.constants import NS_PER_MS, NS_PER_S

_CODE: Final = Path(__file__).resolve().parent.parent
_DEFAULT_PORT: Final = 6379
_CLIENT: Final = "ray://"
_CONNECT_SECONDS: Final = 3.0
# RFC 9113: the preface, then an empty SETTINGS frame (length in 3 bytes, type, flags, stream in 4).
_HTTP2_GREETING: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
_FRAME_HEADER_BYTES: Final = 9
_FRAME_TYPE: Final = 3  # where a frame's type stands in its header
_SETTINGS: Final = 4
_OUR_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_REVIVE_PAUSE_SECONDS: Final = 0.1
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_USAGE_STATS_PROMPT_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AUTH_MODE": "token",  # Ray's default, said aloud so that it does not explain itself
}


class _Nowhere(io.TextIOBase):
    """A stream that forgets."""

    def write(self, text: str) -> int:
        return len(text)


class RayExecutor:
    """Actors on a local Ray, or on the running cluster at ``config.address``."""

    def __init__(self, config: RayConfig) -> None:
        self._config = config
        self._actors: list[Any] = []
        self._calls: dict[Any, int] = {}  # call in flight -> server
        self._deadlines: dict[int, float] = {}  # server -> when its call in flight counts as lost
        self._quiet = contextlib.ExitStack()
        self._ray: Any = None
        self._joined = False  # this process had a Ray before

    def start(self, nr_servers: int) -> None:
        """Start or join Ray and make the actors. Raises ``InputError`` if Ray is not to be had."""
        if self._config.address is not None:
            check_address(self._config.address)
        self._quiet.enter_context(contextlib.redirect_stdout(_Nowhere()))
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray = ray
        self._joined = ray.is_initialized()
        handlers = {number: signal.getsignal(number) for number in _OUR_SIGNALS}
        try:
            if not self._joined:
                ray.init(**self._init_options())
            _set_handlers(handlers)  # Ray has put its own in their places
            self._actors = [self._new_actor() for _ in range(nr_servers)]
            pings = [actor.__ray_ready__.remote() for actor in self._actors]
            ray.get(pings, timeout=self._config.start_timeout / NS_PER_S)
        except Exception as error:
            self.close()
            where = f"--address {self._config.address}" if self._config.address else "a local Ray"
            raise InputError(f"{where}: Ray does not start: {one_line(error)}") from None

    def submit(self, server: int, data: bytes) -> None:
        """Send a call."""
        self._calls[self._actors[server].call.remote(data)] = server
        self._deadlines[server] = time.monotonic() + self._config.call_timeout / NS_PER_S

    def wait(self) -> tuple[int, bytes | None]:
        """Return whichever call ends first."""
        while True:
            timeout = max(0.0, min(self._deadlines.values()) - time.monotonic())
            done, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=timeout)
            for call in done:
                server = self._calls.pop(call)
                del self._deadlines[server]
                return server, self._fetch(call)
            for call, server in list(self._calls.items()):
                if self._deadlines[server] <= time.monotonic():
                    del self._calls[call], self._deadlines[server]
                    self._kill(server)
                    return server, None

    def call(self, server: int, data: bytes) -> bytes | None:
        """Send a call and wait for it."""
        return self._fetch(self._actors[server].call.remote(data))

    def revive(self, server: int) -> None:
        """Wait until the actor answers again; after half of ``restart_timeout`` try with a new one."""
        timeout = self._config.restart_timeout / NS_PER_S
        begun = time.monotonic()
        replaced = False
        while time.monotonic() < begun + timeout:
            try:
                self._ray.get(self._actors[server].__ray_ready__.remote(), timeout=timeout / 2)
            except self._ray.exceptions.RayError:
                if not replaced and time.monotonic() > begun + timeout / 2:
                    self._actors[server] = self._new_actor()
                    replaced = True
                time.sleep(_REVIVE_PAUSE_SECONDS)
            else:
                return
        raise RunFailed(f"server {server}: its actor did not come back within {timeout:g} s")

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        if self._ray is not None:
            for server in range(len(self._actors)):
                self._kill(server, for_good=True)
            if not self._joined:
                self._ray.shutdown()
        self._actors.clear()
        self._calls.clear()
        self._quiet.close()

    def _init_options(self) -> dict[str, Any]:
        # Workers import MachineServer from this checkout, whatever their current folder: no pickled class.
        code = self._ray.job_config.JobConfig(code_search_path=[str(_CODE)])
        always = {"log_to_driver": False, "logging_level": "ERROR", "job_config": code}
        if self._config.address is not None:
            return {"address": self._config.address, **always}
        config = self._config
        return {
            "address": "local",
            "num_cpus": config.num_cpus,
            "object_store_memory": config.object_store_memory,
            "include_dashboard": config.include_dashboard,
            "_system_config": {
                "health_check_period_ms": config.health_check_period // NS_PER_MS,
                "health_check_timeout_ms": config.health_check_timeout // NS_PER_MS,
                "health_check_failure_threshold": config.health_check_failure_threshold,
            },
            **always,
        }

    def _new_actor(self) -> Any:
        make: Callable[..., Any] = (
            self._ray.remote(MachineServer)
            .options(
                num_cpus=self._config.actor_num_cpus,
                memory=self._config.actor_memory,
                max_restarts=self._config.max_restarts,
                max_task_retries=self._config.max_task_retries,
                enable_task_events=False,  # nobody looks at them, and they cost 6 % of a call
            )
            .remote
        )
        return make()

    def _fetch(self, call: Any) -> bytes | None:
        try:
            answer: bytes = self._ray.get(call, timeout=self._config.call_timeout / NS_PER_S)
        except self._ray.exceptions.RayTaskError:
            raise  # a fault in the server itself, which answers for its members' faults
        except self._ray.exceptions.RayError:
            return None
        return answer

    def _kill(self, server: int, *, for_good: bool = False) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(self._actors[server], no_restart=for_good)


def _set_handlers(handlers: dict[signal.Signals, Any]) -> None:
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            signal.signal(number, handler)


def check_address(address: str) -> None:
    """Find out in seconds that there is no Ray; Ray itself takes minutes to say so. Raises ``InputError``."""
    host, _, port = address.removeprefix(_CLIENT).rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise InputError(f"--address {address}: write it as HOST:PORT, such as 10.0.0.5:{_DEFAULT_PORT}")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS) as connection:
            speaks_grpc = _speaks_grpc(connection)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise InputError(f"--address {address}: cannot be reached: {reason}") from None
    if not speaks_grpc:
        raise InputError(f"--address {address}: something answers there, but it is not Ray")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Greet as an HTTP/2 client, which Ray's gRPC answers with its settings."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True  # the greeting would have to be encrypted
    connection.sendall(_HTTP2_GREETING)
    with contextlib.suppress(TimeoutError):
        answer = connection.recv(_FRAME_HEADER_BYTES)
        return len(answer) == _FRAME_HEADER_BYTES and answer[_FRAME_TYPE] == _SETTINGS
    return False
