"""A function that makes the AWS call it is asked for and says who it is."""

import boto3


def handler(event, context):
    identity = boto3.client("sts").get_caller_identity()["Arn"]
    client = boto3.client(event["service"])
    answer = getattr(client, event["call"])(**event.get("params", {}))
    answer.pop("ResponseMetadata", None)
    answer.pop("Body", None)
    return {"identity": identity, "answer": str(answer)}
