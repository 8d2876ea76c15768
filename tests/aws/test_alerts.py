"""The SNS channel of alerts, published to a stand-in whose subscriber is a queue that is read."""

import json

import pytest

from bigger_boat.resources.alerts import LONGEST_SUBJECT, Alert, Alerts

ALERT = Alert("A run failed: Größe\nof the disk.", ("raw: the disk is full",), "http://127.0.0.1:3000/runs/1")


@pytest.fixture
def topic(aws):
    """An SNS topic with a queue behind it; calling it returns the next message."""
    arn = aws.client("sns").create_topic(Name="alerts")["TopicArn"]
    sqs = aws.client("sqs")
    queue = sqs.create_queue(QueueName="readers")["QueueUrl"]
    queue_arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    aws.client("sns").subscribe(TopicArn=arn, Protocol="sqs", Endpoint=queue_arn)

    def read() -> dict:
        [message] = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1)["Messages"]
        return json.loads(message["Body"])

    return arn, read


def test_the_topic_is_told_what_the_log_is_told(topic, caplog):
    arn, read = topic
    assert Alerts(sns_topic=arn).send(ALERT) == "Told the log and the SNS topic."
    message = read()
    assert message["Subject"] == "A run failed: Gr??e of the disk."
    assert message["Message"] == ALERT.text()
    assert "the disk is full" in caplog.text


def test_a_long_title_is_cut_for_the_subject_alone(topic):
    arn, read = topic
    Alerts(sns_topic=arn).send(Alert("long " * 60))
    message = read()
    assert len(message["Subject"]) == LONGEST_SUBJECT
    assert message["Message"].count("long") == 60


def test_a_topic_that_is_not_there_is_no_error(aws):
    told = Alerts(sns_topic="arn:aws:sns:eu-west-1:123456789012:gone").send(ALERT)
    assert told.startswith("Told the log; the SNS topic was not told: It cannot be published: AWS answered NotFound")
