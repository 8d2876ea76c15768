"""Where a message goes when something broke: the log always, a Slack-compatible webhook where one is set."""

import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass

import dagster as dg

logger = logging.getLogger(__name__)

TRIES, BACK_OFF_S, TIMEOUT_S = 3, 1.0, 10.0
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
    """Sends alerts. The address of a webhook is a secret: it is in no log and no error."""

    webhook_url: str = ""

    def send(self, alert: Alert) -> str:
        """Send an alert; return in a sentence where it went. A webhook that does not take it is no error here."""
        logger.error(alert.text())
        if not self.webhook_url:
            return "Told the log; no webhook is set."
        body = json.dumps({"text": alert.text()}).encode()
        fault = ""
        for attempt in range(TRIES):
            time.sleep(attempt * BACK_OFF_S)
            try:
                request = urllib.request.Request(self.webhook_url, body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                    return "Told the log and the webhook."
            except urllib.error.HTTPError as error:
                fault = f"it answered {error.code}"
                if error.code < 500 and error.code != 429:
                    break  # what it refuses now, it refuses again
            except (OSError, ValueError) as error:
                fault = f"it cannot be reached ({type(error).__name__})"
        sentence = f"Told the log; the webhook was not told: {fault}."
        logger.error(sentence)
        return sentence
