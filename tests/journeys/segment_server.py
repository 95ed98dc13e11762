"""Segment's tracker for Python, unmodified, told what to send by the test: one JSON line on stdin is one call,
{"flush": true} the end. It answers "sent N" for each line, and at the end one JSON line with what went wrong.
"""

import json
import re
import sys
from datetime import datetime

from segment.analytics.client import Client


def snake(name: str) -> str:
    """userId → user_id: the calls are written as in the spec."""
    return re.sub("([A-Z])", lambda match: "_" + match[1].lower(), name)


host, write_key, packed = sys.argv[1:4]
errors: list[str] = []
client = Client(
    write_key,
    host=host,
    on_error=lambda error, items: errors.append(repr(error)),
    upload_size=7,
    upload_interval=0.2,
    max_retries=100,
    gzip=packed == "gzip",
)
for count, line in enumerate(sys.stdin, 1):
    call = json.loads(line)
    if call.get("flush"):
        break
    method = call.pop("method")
    message = {snake(name): value for name, value in call.items()}
    message["timestamp"] = datetime.fromisoformat(message["timestamp"])
    getattr(client, method)(**message)
    print(f"sent {count}", flush=True)
client.flush()
client.join()
print(json.dumps({"errors": errors}), flush=True)
