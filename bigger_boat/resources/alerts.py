"""Where a message goes when something broke: the log always, a Slack-compatible webhook and SNS where they are set."""

import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import dagster as dg

from bigger_boat.errors import CloudError
from bigger_boat.settings import get_settings

logger = logging.getLogger(__name__)

TRIES, BACK_OFF_S, TIMEOUT_S = 3, 1.0, 10.0
LONGEST_SUBJECT = 100
"""SNS takes no longer one, and ASCII only."""
LONGEST_TEXT = 3_000
"""Slack cuts a text at 40,000 characters; a person stops reading long before."""


@dataclass(frozen=True)
class Alert:
    """A message for people: what happened in a line, what about it in the next ones, and where to look."""

    title: str
    lines: tuple[str, ...] = ()
    link: str = ""

    def text(self) -> str:
        """Return the whole message as plain text."""
        whole = "\n".join([self.title, *self.lines, *([self.link] if self.link else [])])
        return whole if len(whole) <= LONGEST_TEXT else f"{whole[:LONGEST_TEXT]} ..."


class Alerts(dg.ConfigurableResource):
    """Sends alerts. The address of a webhook is a secret: it is in no log, no error, and no field, which pages show."""

    sns_topic: str = ""

    def send(self, alert: Alert) -> str:
        """Send an alert; return in a sentence where it went. A channel that does not take it is no error here."""
        logger.error(alert.text())
        channels = [
            *([("webhook", _tell_webhook)] if get_settings().alert_webhook else []),
            *([("SNS topic", self._sns)] if self.sns_topic else []),
        ]
        if not channels:
            return "Told the log; no webhook and no SNS topic is set."
        faults = {name: tell(alert) for name, tell in channels}
        told = " and ".join(["the log", *(f"the {name}" for name, fault in faults.items() if not fault)])
        missed = "".join(f"; the {name} was not told: {fault}" for name, fault in faults.items() if fault)
        if missed:
            logger.error(missed.removeprefix("; "))
        return f"Told {told}{missed}."

    def _sns(self, alert: Alert) -> str:
        """Publish to the topic; return what went wrong, "" if nothing did. boto3 tries again where that can help."""
        from bigger_boat.resources.aws import aws_client, aws_in_words

        subject = " ".join(alert.title.split()).encode("ascii", "replace").decode()[:LONGEST_SUBJECT]
        try:
            with aws_in_words("It cannot be published"):
                aws_client("sns").publish(TopicArn=self.sns_topic, Subject=subject, Message=alert.text())
        except CloudError as error:
            return error.message
        return ""


def _tell_webhook(alert: Alert) -> str:
    """Post to the webhook of the settings; return what went wrong, "" if nothing did."""
    webhook, fault = get_settings().alert_webhook, ""
    body = json.dumps({"text": alert.text()}).encode()
    for attempt in range(TRIES):
        time.sleep(attempt * BACK_OFF_S)
        try:
            request = urllib.request.Request(webhook.get_secret_value(), body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                return ""
        except urllib.error.HTTPError as error:
            fault = f"it answered {error.code}"
            if error.code < 500 and error.code != 429:
                break  # what it refuses now, it refuses again
        except (OSError, ValueError) as error:
            fault = f"it cannot be reached ({type(error).__name__})"
    return fault
