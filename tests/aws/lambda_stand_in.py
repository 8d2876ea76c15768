"""API Gateway's and Lambda's part of the stand-in: a bare Python whose path is the zip and boto3.

What moto keeps as the function's code is what runs. In front of it stands a small HTTP server that makes API Gateway's
proxy events of requests.
"""

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import boto3

RUNTIME = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py")
"""What Lambda's Python runtime has beside the standard library."""

LOOP = """
import json, sys
sys.path[:0] = sys.argv[1:3]
from botocore.client import BaseClient
module, name = sys.argv[3].rsplit(".", 1)
handler = getattr(__import__(module, fromlist=[name]), name)
call = BaseClient._make_api_call
def note(client, operation, given):
    asked = {key: value for key, value in given.items() if key != "Body"}
    with open("calls", "a") as calls:
        calls.write(json.dumps([client.meta.service_model.signing_name, operation, asked]) + chr(10))
    return call(client, operation, given)
BaseClient._make_api_call = note
for line in sys.stdin:
    print(json.dumps(handler(json.loads(line), None)), flush=True)
"""


class Function:
    """A process that answers one event after the other, as a warm function does."""

    def __init__(self, package: bytes, handler: str, variables: dict[str, str], folder: Path):
        code, runtime = folder / "function.zip", folder / "runtime"
        code.write_bytes(package)
        runtime.mkdir(exist_ok=True)
        site = Path(boto3.__file__).parent.parent
        for name in RUNTIME:
            if not (runtime / name).exists():
                (runtime / name).symlink_to(site / name)
        command = [sys.executable, "-I", "-S", "-c", LOOP, str(code), str(runtime), handler]
        passed = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        self._calls = folder / "calls"
        self._process = subprocess.Popen(
            command, env={**passed, **variables}, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> dict[str, Any]:
        with self._lock:
            self._process.stdin.write(json.dumps(event) + "\n")
            self._process.stdin.flush()
            return json.loads(self._process.stdout.readline())

    @property
    def calls(self) -> list[tuple[str, str, dict[str, Any]]]:
        """What it has asked of AWS: service, operation and parameters."""
        return [tuple(json.loads(line)) for line in self._calls.read_text().splitlines()]

    def stop(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def deployed_function(name: str, folder: Path) -> Function:
    """Run a function as it was deployed: moto keeps the code that the stack named, its handler and its variables."""
    from moto.awslambda.models import lambda_backends

    backends = [region for account in lambda_backends.values() for region in account.values()]
    [found] = [each for backend in backends for each in backend.list_functions() if each.function_name == name]
    return Function(found.code_bytes, found.handler, found.environment_vars, folder)


def event(method: str, target: str, body: str | None = None, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """What API Gateway's REST API sends to a function for a request; without a query it sends null."""
    parts = urlsplit(target)
    return {
        "httpMethod": method,
        "path": parts.path,
        "queryStringParameters": dict(parse_qsl(parts.query, keep_blank_values=True)) or None,
        "headers": headers or None,
        "body": body,
        "isBase64Encoded": False,
        "requestContext": {"stage": "live", "requestId": str(uuid.uuid4())},
    }


@contextmanager
def gateway(function: Callable[[dict[str, Any]], dict[str, Any]], stage: str = "/live") -> Iterator[str]:
    """Serve a function over HTTP; yields the address of its stage."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

        def _answer(self, asked: str | None) -> None:
            answer = function(event(self.command, self.path.removeprefix(stage), asked, dict(self.headers)))
            body = answer["body"].encode()
            self.send_response(answer["statusCode"])
            for name, value in {**answer["headers"], "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}{stage}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def outputs_of_change_sets() -> Iterator[None]:
    """Let moto's stacks that a change set created have outputs: it looks for them in the template from before it."""
    from moto.cloudformation.models import CloudFormationBackend

    execute = CloudFormationBackend.execute_change_set

    def and_look_for_outputs(self: Any, change_set_name: str, stack_name: str | None = None) -> None:
        execute(self, change_set_name, stack_name)
        for stack in self.stacks.values():
            if stack_name in (stack.name, stack.stack_id):
                stack._parse_template()
                stack.output_map = stack._create_output_map()

    CloudFormationBackend.execute_change_set = and_look_for_outputs
    try:
        yield
    finally:
        CloudFormationBackend.execute_change_set = execute
