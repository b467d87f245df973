# /// script
# requires-python = ">=3.11"
# dependencies = ["botocore>=1.40", "requests>=2.32"]
# ///
"""Make the two users of versitygw: `uv run services/access/s3_users.py`, once, when the container `s3` runs.

The pipeline keeps the keys that it has, and may read and write the bucket; the reader may only read it. Both
are in `.env`, where services/access/prepare.py wrote what was missing.
"""

import json
import re
from pathlib import Path

import botocore.session
import requests
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def main() -> None:
    """Make the users, and say what they may do with the bucket."""
    values = dict(re.findall(r"^(\w+)=(.*)$", Path(".env").read_text("utf-8"), re.MULTILINE))
    endpoint, region = f"http://127.0.0.1:{values['S3_PORT']}", values.get("CASCADE_S3_REGION", "us-east-1")
    bucket = values.get("CASCADE_WAREHOUSE", "s3://warehouse").removeprefix("s3://").partition("/")[0]
    root, reader = (
        (values[f"ACCESS_S3_{who}_KEY"], values[f"ACCESS_S3_{who}_SECRET"]) for who in ("ROOT", "READER")
    )
    pipeline = values["CASCADE_S3_ACCESS_KEY"], values["CASCADE_S3_SECRET_KEY"]
    for access, secret in (pipeline, reader):
        body = f"<Account><Access>{access}</Access><Secret>{secret}</Secret><Role>user</Role></Account>"
        request = AWSRequest("PATCH", f"{endpoint}/create-user", data=body)
        S3SigV4Auth(Credentials(*root), "s3", region).add_auth(request)
        answer = requests.request("PATCH", request.url, data=body, headers=dict(request.headers), timeout=30)
        if not answer.ok and "UserAlreadyExists" not in answer.text and "exists" not in answer.text:
            raise SystemExit(f"versitygw does not make user {access}: {answer.text}")
    place = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allowed = {pipeline[0]: ["s3:*"], reader[0]: ["s3:GetBucketLocation", "s3:GetObject", "s3:ListBucket"]}
    statements = [
        {"Effect": "Allow", "Principal": {"AWS": [user]}, "Action": actions, "Resource": place}
        for user, actions in allowed.items()
    ]
    session = botocore.session.get_session()
    client = session.create_client(
        "s3", region, endpoint_url=endpoint, aws_access_key_id=root[0], aws_secret_access_key=root[1]
    )
    client.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": statements})
    )
    print(f"{bucket}: {pipeline[0]} reads and writes, {reader[0]} reads.")


if __name__ == "__main__":
    main()
