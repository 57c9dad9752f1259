"""What each provider's own SDK says of a request: its types take it, strictly, and its client sends the very same one."""

import collections.abc
import importlib
import json
import pkgutil
import typing
import warnings

import anthropic
import anthropic.types
import httpx2
import openai
import openai.types
import pydantic
import typing_extensions
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming
from google import genai
from google.genai import types
from openai.types.chat.completion_create_params import CompletionCreateParamsNonStreaming


# Google's SDK takes a value that its enumerations do not have, and warns.
warnings.filterwarnings("error", message=".* is not a valid ")


class Refused(Exception):
    """The request is not one that the provider has published."""


def members(annotation):
    """Those of a union, of the unions in it as well; or the annotation itself."""
    if hasattr(annotation, "__metadata__"):
        return members(annotation.__origin__)
    if typing.get_origin(annotation) is typing.Union:
        return [member for argument in typing.get_args(annotation) for member in members(argument)]
    return [annotation]


def is_model(annotation):
    return isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)


def listed(annotation):
    """The annotation with lists for whatever can be iterated: pydantic checks the items of the others only when somebody looks."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if hasattr(annotation, "__metadata__"):
        return listed(annotation.__origin__)
    if origin in (typing_extensions.Required, typing.Required):
        return typing_extensions.Required[listed(arguments[0])]
    if origin is typing.Union:
        known = [listed(member) for argument in arguments for member in members(argument)]
        # A caller may put a part of an answer there as it came, whose type takes any member.
        return typing.Union[tuple([member for member in known if not is_model(member)] or known)]
    if origin in (list, collections.abc.Iterable, collections.abc.Sequence) or "Sequence" in getattr(origin, "__name__", ""):
        return typing.List[listed(arguments[0])]
    if origin is dict:
        return typing.Dict[arguments[0], listed(arguments[1])]
    return annotation


def close(package):
    """Forbids members that nobody published in each dictionary of a package, except where its author allows them."""
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        module = importlib.import_module(module.name)
        for value in vars(module).values():
            if typing_extensions.is_typeddict(value) and value.__module__ == module.__name__:
                hints = typing_extensions.get_type_hints(value, include_extras=True)
                value.__annotations__ = {name: listed(hint) for name, hint in hints.items()}
                if "__pydantic_config__" not in vars(value):
                    value.__pydantic_config__ = pydantic.ConfigDict(extra="forbid")


close(importlib.import_module("openai.types.chat"))
close(importlib.import_module("openai.types.shared_params"))
close(anthropic.types)
CHAT = pydantic.TypeAdapter(CompletionCreateParamsNonStreaming)
MESSAGE = pydantic.TypeAdapter(MessageCreateParamsNonStreaming)

# The API still serves the version before today's, and only that one knows temperatures; its other members are the same.
EARLIER, TODAY = "2023-06-01", "2026-10-21"


def taken(adapter, body):
    try:
        adapter.validate_json(json.dumps(body), strict=True)
    except pydantic.ValidationError as error:
        # A union's errors are of all its members; the longest place is that of the member that was meant.
        faults = sorted(error.errors(include_url=False), key=lambda fault: -len(fault["loc"]))
        raise Refused("; ".join(f"{fault['loc']}: {fault['msg']}" for fault in faults[:3])) from None


def sends(call):
    """The request that a client of an SDK makes."""
    sent = []

    def handle(request):
        sent.append(request)
        return httpx2.Response(400, json={})

    try:
        call(httpx2.MockTransport(handle))
    except Exception as error:  # of the answer, or, if nothing was sent, of what there was to send
        if not sent:
            raise Refused(f"the SDK sends nothing: {error}") from None
    return sent[0]


def same(request, path, headers, body, wanted):
    """That a request is the SDK's own: its path, these of its headers, and its body."""
    if request.url.raw_path.decode() != path:
        raise Refused(f"the path is {path}; the SDK's is {request.url.raw_path.decode()}")
    for name in wanted:
        if headers.get(name) != request.headers.get(name):
            raise Refused(f"the header {name} is {headers.get(name)!r}; the SDK's is {request.headers.get(name)!r}")
    theirs = json.loads(request.content)
    if theirs != body:
        raise Refused(f"the SDK sends {json.dumps(theirs)}")


def of_openai(root, path, headers, body):
    taken(CHAT, body)
    key = headers.get("authorization", "").removeprefix("Bearer ")

    def call(transport):
        http = httpx2.Client(transport=transport)
        openai.OpenAI(api_key=key, base_url=root, max_retries=0, http_client=http).chat.completions.create(**body)

    same(sends(call), path, headers, body, ["authorization", "content-type", "accept"])


def of_anthropic(root, path, headers, body):
    known = dict(body)
    if headers.get("anthropic-version") == EARLIER and isinstance(known.get("temperature"), (int, float)):
        del known["temperature"]
    taken(MESSAGE, known)
    # The one reason to speak the earlier version is a temperature.
    version = TODAY if known == body else EARLIER
    if headers.get("anthropic-version") != version:
        raise Refused(f"the version is {headers.get('anthropic-version')!r}; {version!r} has these members")
    # The API takes the key in either header, and the SDK sends the other one.
    key = headers.get("x-api-key")
    if not key or "authorization" in headers:
        raise Refused("there is no one key")

    def call(transport):
        http = httpx2.Client(transport=transport)
        client = anthropic.Anthropic(api_key=key, base_url=root.removesuffix("/v1"), max_retries=0, http_client=http)
        client.messages.create(**known)

    sent = sends(call)
    if version == TODAY and sent.headers["anthropic-version"] != TODAY:
        raise Refused(f"the SDK speaks {sent.headers['anthropic-version']!r}")
    same(sent, path, headers, known, ["content-type", "accept"])


def parsed(model, value):
    """A value by its published names, those of JSON alone."""
    try:
        return model.model_validate_json(json.dumps(value), by_alias=True, by_name=False)
    except (pydantic.ValidationError, Warning) as error:
        raise Refused(str(error)) from None


def camel(value):
    """The SDK writes one member by its other name, which Google's JSON takes as well, and bytes for addresses."""
    if isinstance(value, list):
        return [camel(item) for item in value]
    if isinstance(value, dict):
        known = {"parameters_json_schema": "parametersJsonSchema"}
        return {known.get(name, name): camel(member) for name, member in value.items()}
    return value


def of_gemini(root, path, headers, body):
    model, _, method = path.rpartition("/")[2].partition(":")
    if method != "generateContent":
        raise Refused(f"there is no method {method!r}")
    top = {"contents", "systemInstruction", "tools", "toolConfig", "generationConfig"}
    if set(body) - top:
        raise Refused(f"{sorted(set(body) - top)} are not known")
    parsed(types.GenerationConfig, body.get("generationConfig", {}))
    config = types.GenerateContentConfig(
        **parsed(types.GenerateContentConfig, body.get("generationConfig", {})).model_dump(exclude_unset=True),
        system_instruction=parsed(types.Content, body["systemInstruction"]) if "systemInstruction" in body else None,
        tools=[parsed(types.Tool, tool) for tool in body["tools"]] if "tools" in body else None,
        tool_config=parsed(types.ToolConfig, body["toolConfig"]) if "toolConfig" in body else None,
    )
    contents = [parsed(types.Content, content) for content in body["contents"]]
    *_, version, _, _ = path.split("/")

    def call(transport):
        options = types.HttpOptions(
            base_url=root.removesuffix("/" + version), api_version=version, client_args={"transport": transport}
        )
        client = genai.Client(api_key=headers.get("x-goog-api-key", ""), http_options=options)
        client.models._generate_content(model=model, contents=contents, config=config)

    sent = sends(call)
    theirs = camel(json.loads(sent.content))
    sent = httpx2.Request(sent.method, sent.url, headers=sent.headers, json=theirs)
    same(sent, path, headers, body, ["x-goog-api-key", "content-type"])


CHECKS = {"openai": of_openai, "anthropic": of_anthropic, "gemini": of_gemini}
