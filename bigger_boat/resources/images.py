"""The two images, built by CodeBuild from what is committed: a laptop may have no Docker.

Belongs here: handing the sources over, following the build. What belongs elsewhere: the build's own steps
(``deploy/platform.yaml``), what is in an image (``deploy/Dockerfile``).

A tag is a commit and is written once, so that the same commit is built once. Whoever comes while its build is on its
way, follows that.
"""

import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigger_boat.errors import CloudError
from bigger_boat.resources.aws import aws_client, aws_in_words

REPOSITORIES = ("serving", "training")
VARIABLE = "IMAGE_TAG"
_TAG_LENGTH = 12
_TAIL = 15
"""Lines of the log that are told of a build that failed, and looked back at."""


@dataclass
class ImageBuild:
    """Builds of the images of the stack ``stack``, whose outputs are ``outputs``. ``tell`` gets the log's lines."""

    stack: str
    outputs: Mapping[str, str]
    tell: Callable[[str], None]
    poll_s: float = 5.0
    timeout_s: float = 3600.0
    builds: Any = field(default_factory=lambda: aws_client("codebuild"))
    logs: Any = field(default_factory=lambda: aws_client("logs"))

    def make(self, folder: Path) -> str:
        """Have what is committed in ``folder`` built and pushed, unless it is; return its tag.

        Raises CloudError with the log's end where the build failed.
        """
        tag = _git(folder, "rev-parse", "HEAD").decode().strip()[:_TAG_LENGTH]
        if _git(folder, "status", "--porcelain", "--untracked-files=no"):
            self.tell("What is not committed is not in the image.")
        if self.has(tag):
            self.tell(f"Both images of {tag} are there already.")
            return tag
        build = self._on_its_way(tag) or self._start(tag, self._hand_over(folder, tag))
        self.tell(f"Build {build} makes the images of {tag}.")
        self._follow(build)
        return tag

    def has(self, tag: str) -> bool:
        """Whether both images with this tag are there."""
        return all(self._is_there(f"{self.stack}/{name}", tag) for name in REPOSITORIES)

    def _is_there(self, repository: str, tag: str) -> bool:
        ecr = aws_client("ecr")
        with aws_in_words(f"Image {repository}:{tag} cannot be looked at"):
            try:
                return bool(
                    ecr.describe_images(repositoryName=repository, imageIds=[{"imageTag": tag}])["imageDetails"]
                )
            except ecr.exceptions.ImageNotFoundException:
                return False

    def _hand_over(self, folder: Path, tag: str) -> str:
        """Leave the sources in the bucket; return their address as CodeBuild wants it."""
        bucket, key = self.outputs["Bucket"], f"source/{tag}.zip"
        sources = _git(folder, "archive", "--format=zip", "HEAD")
        with aws_in_words(f"s3://{bucket}/{key} cannot be written"):
            aws_client("s3").put_object(Bucket=bucket, Key=key, Body=sources)
        return f"{bucket}/{key}"

    def _start(self, tag: str, source: str) -> str:
        with aws_in_words(f"A build of {self.outputs['ImageProject']} cannot be started"):
            return self.builds.start_build(
                projectName=self.outputs["ImageProject"],
                sourceLocationOverride=source,
                environmentVariablesOverride=[{"name": VARIABLE, "value": tag}],
            )["build"]["id"]

    def _on_its_way(self, tag: str) -> str | None:
        """Return a build of this tag that has not ended: what an earlier call, killed meanwhile, has started."""
        with aws_in_words(f"The builds of {self.outputs['ImageProject']} cannot be listed"):
            ids = self.builds.list_builds_for_project(projectName=self.outputs["ImageProject"])["ids"][:10]
            found = self.builds.batch_get_builds(ids=ids)["builds"] if ids else []
        running = [each for each in found if each["buildStatus"] == "IN_PROGRESS" and _tag_of(each) == tag]
        return running[0]["id"] if running else None

    def _follow(self, build: str) -> None:
        """Tell the log until the build has ended."""
        began, log = time.monotonic(), _Log(self.logs, self.tell)
        while True:
            with aws_in_words(f"Build {build} cannot be looked at"):
                state = self.builds.batch_get_builds(ids=[build])["builds"][0]
            log.tell_more(state.get("logs", {}))
            if state["buildStatus"] == "SUCCEEDED":
                return
            if state["buildStatus"] != "IN_PROGRESS":
                raise CloudError(
                    f"Build {build} ended as {state['buildStatus']}: {_reason(state)}\n{log.end()}",
                    "Correct what its log names, commit, and run again; its whole log is in CloudWatch.",
                )
            if time.monotonic() - began > self.timeout_s:
                raise CloudError(
                    f"Build {build} still runs after {self.timeout_s:.0f} s.", "Run again: it is followed on."
                )
            time.sleep(self.poll_s)


class _Log:
    """What a build writes, told as it comes."""

    def __init__(self, logs: Any, tell: Callable[[str], None]):
        self._logs, self._tell, self._token, self._told = logs, tell, None, []

    def tell_more(self, where: Mapping[str, Any]) -> None:
        if not where.get("streamName"):
            return  # it is queued
        while True:
            token = {"nextToken": self._token} if self._token else {"startFromHead": True}
            with aws_in_words("The build's log cannot be read"):
                page = self._logs.get_log_events(
                    logGroupName=where["groupName"], logStreamName=where["streamName"], **token
                )
            lines = [each["message"].rstrip() for each in page["events"]]
            for line in lines:
                self._tell(line)
            self._told = (self._told + lines)[-_TAIL:]
            if page["nextForwardToken"] == self._token:  # CloudWatch's way to say that this is the end, for now
                return
            self._token = page["nextForwardToken"]

    def end(self) -> str:
        return "\n".join(self._told)


def _tag_of(build: Mapping[str, Any]) -> str:
    variables = build.get("environment", {}).get("environmentVariables", [])
    return next((each["value"] for each in variables if each["name"] == VARIABLE), "")


def _reason(build: Mapping[str, Any]) -> str:
    """Return what CodeBuild says of the phase that failed."""
    said = [
        f"{phase['phaseType']}: {context['message']}"
        for phase in build.get("phases", [])
        for context in phase.get("contexts", [])
        if phase.get("phaseStatus") not in (None, "SUCCEEDED") and context.get("message")
    ]
    return said[0] if said else "it names no reason."


def _git(folder: Path, *arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=True).stdout
    except FileNotFoundError:
        raise CloudError("There is no git, which says what an image is made of.", "Install git.") from None
    except subprocess.CalledProcessError as error:
        raise CloudError(
            f"git {arguments[0]} failed in {folder}: {error.stderr.decode(errors='replace').strip()}",
            "An image is made of a commit: run this in a clone.",
        ) from None
