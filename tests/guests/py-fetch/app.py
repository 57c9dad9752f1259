"""Makes the request that its input names, through the SDK's one function: `{"url": …, "method"?: …, "body"?: …}`."""

import json

from agentry_http import HttpError, fetch
from componentize_py_types import Err
from wit_world.exports import Handler as Export
from wit_world.imports import agentry_plugin_types as types


class Handler(Export):
    def handle(self, task):
        asked = json.loads(task.input)
        try:
            got = fetch(asked["url"], asked.get("method", "GET"), body=asked.get("body", "").encode())
        except HttpError as error:
            raise Err(types.Failure_Permanent(types.Permanent(str(error), error.code.lower(), None))) from None
        return json.dumps({"status": got.status, "type": got.headers.get("content-type"), "body": got.text()})
