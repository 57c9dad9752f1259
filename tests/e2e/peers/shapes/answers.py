"""What the providers may answer, made from the types that their SDKs read: every value of each enumeration, every kind of part."""

import datetime
import enum
import typing

import pydantic
from anthropic.types import ContentBlock, Message, RefusalStopDetails, StopReason
from anthropic.types.shared import error_type
from anthropic.types import shared as anthropic_shared
from anthropic import _exceptions as anthropic_exceptions
from google.genai import errors as gemini_errors
from google.genai import types
from openai.types import chat
from openai.types.shared.error_object import ErrorObject

SAID = "There was no error, only rain."


def variants(annotation):
    """The types, or values, of a union, an optional, or an enumeration."""
    if hasattr(annotation, "__metadata__"):
        return variants(annotation.__origin__)
    if typing.get_origin(annotation) is typing.Union:
        return [v for argument in typing.get_args(annotation) if argument is not type(None) for v in variants(argument)]
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    return [annotation]


def made(annotation, full, depth=0):
    """A value of a type; with all that is optional, or with nothing of it."""
    known = {str: "some", int: 3, float: 0.5, bool: False, bytes: b"some", dict: {}, object: {}, typing.Any: {}}
    annotation = variants(annotation)[0]
    if not isinstance(annotation, type) and typing.get_origin(annotation) is None and annotation not in known:
        return annotation
    origin = typing.get_origin(annotation)
    if annotation in known:
        return known[annotation]
    if origin is list:
        return [made(typing.get_args(annotation)[0], full, depth + 1)] if depth < 6 else []
    if origin is dict:
        return {}
    if annotation is datetime.datetime:
        return datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)
    if issubclass(annotation, enum.Enum):
        return list(annotation)[-1]
    fields = annotation.model_fields.items()
    wanted = {n: made(f.annotation, full, depth + 1) for n, f in fields if f.is_required() or (full and depth < 6)}
    return annotation.model_validate(wanted)


def told(model, nulls=False):
    return model.model_dump(mode="json", by_alias=True, exclude_none=not nulls)


# OpenAI

FUNCTION = {"id": "call_a", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}}


def completion(reason="stop", full=False, nulls=False, usage=None, **message):
    message = {"role": "assistant", "content": SAID, **message}
    choice = {"index": 0, "finish_reason": reason, "message": message}
    rest = {"id": "chatcmpl-1", "created": 1, "model": "model-1", "object": "chat.completion"}
    if full:
        kept = made(chat.ChatCompletion, True)
        rest = {**kept.model_dump(exclude={"choices"}), **rest}
        choice = {**kept.choices[0].model_dump(exclude={"message"}), **choice}
        choice["message"]["annotations"] = kept.choices[0].message.model_dump()["annotations"]
    rest["usage"] = usage or {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29}
    return 200, told(chat.ChatCompletion.model_validate({**rest, "choices": [choice]}, strict=False), nulls)


def of_openai():
    reasons = variants(chat.chat_completion.Choice.model_fields["finish_reason"].annotation)
    for reason in reasons:
        old = {"content": None, "function_call": FUNCTION["function"]}
        calls = {"tool_calls": {"tool_calls": [FUNCTION]}, "function_call": old}
        yield f"finish/{reason}", completion(reason, **calls.get(reason, {}))
        yield f"finish/{reason}/full", completion(reason, full=True, **calls.get(reason, {}))
        yield f"finish/{reason}/nulls", completion(reason, nulls=True, **calls.get(reason, {}))
    yield "usage/full", completion(usage=dict(made(chat.ChatCompletion.model_fields["usage"].annotation, True)))
    yield "refusal", completion(content=None, refusal="I cannot help with that.")
    yield "audio", completion(content=None, audio=made(chat.ChatCompletionAudio, True).model_dump())
    yield "calls/none", completion("tool_calls")
    for kind in variants(chat.chat_completion_message_tool_call.ChatCompletionMessageToolCallUnion):
        call = made(kind, True).model_dump()
        call.update(FUNCTION if call["type"] == "function" else {})
        yield f"call/{call['type']}", completion("tool_calls", tool_calls=[call])
        yield f"call/{call['type']}/mixed", completion("tool_calls", tool_calls=[FUNCTION, call])
    for status in [400, 401, 403, 404, 409, 422, 429, 500, 503]:
        error = ErrorObject(message="some words", type="some_error", code=None, param=None)
        yield f"error/{status}", (status, {"error": told(error, nulls=True)})
    error = made(ErrorObject, True)
    yield "error/misalignment", (400, {"error": told(error)})


# Anthropic

USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Oslo"}, "caller": {"type": "direct"}}
TEXT = {"type": "text", "text": SAID}


def message(reason="end_turn", nulls=False, usage=None, content=(TEXT,), **rest):
    usage = usage or {"input_tokens": 19, "output_tokens": 10}
    rest = {"id": "msg_1", "model": "model-1", "role": "assistant", "type": "message", "stop_reason": reason, **rest}
    return 200, told(Message.model_validate({**rest, "content": list(content), "usage": usage}), nulls)


def of_anthropic():
    for reason in variants(StopReason):
        content = (TEXT, USE) if reason == "tool_use" else (TEXT,)
        yield f"finish/{reason}", message(reason, content=content)
        yield f"finish/{reason}/nulls", message(reason, content=content, nulls=True)
    yield "finish/none", message(None)
    yield "usage/full", message(usage=made(Message.model_fields["usage"].annotation, True).model_dump())
    for category in variants(RefusalStopDetails.model_fields["category"].annotation):
        details = {"type": "refusal", "category": category}
        yield f"refusal/{category}", message("refusal", content=(), stop_details=details)
    yield "calls/none", message("tool_use")
    for kind in variants(ContentBlock):
        block = made(kind, True).model_dump()
        block.update(USE if block["type"] == "tool_use" else {})
        yield f"block/{block['type']}", message(content=(TEXT, block))
        yield f"block/{block['type']}/tool_use", message("tool_use", content=(TEXT, block))
    # By its type alone, at the status that the API documents for it.
    statuses = {"authentication_error": 401, "billing_error": 402, "permission_error": 403, "not_found_error": 404,
                "conflict_error": 409, "memory_path_conflict_error": 409, "memory_precondition_failed_error": 409,
                "rate_limit_error": 429, "api_error": 500, "timeout_error": 504, "overloaded_error": 529}
    for kind in variants(error_type.ErrorType):
        error = {"type": kind, "message": "some words"}
        yield f"error/{kind}", (statuses.get(kind, 400), {"type": "error", "error": error, "request_id": "req_1"})
    # By the code of its cause: those that any request may cause.
    kinds = {400: "invalid_request_error", 413: "request_too_large", 503: "api_error", **{s: k for k, s in statuses.items()}}
    for kind in vars(anthropic_shared).values():
        if isinstance(kind, type) and issubclass(kind, anthropic_exceptions.APIStatusError) and "error_code" in kind.__annotations__:
            [code] = typing.get_args(kind.__annotations__["error_code"])
            error = {"type": kinds[kind.status_code], "message": "some words", "details": {"error_code": code}}
            yield f"code/{code}", (kind.status_code, {"type": "error", "error": error})


# Google

CALL = {"functionCall": {"id": "f1", "name": "weather", "args": {"city": "Oslo"}}, "thoughtSignature": "-_8="}


def generated(reason="STOP", parts=({"text": SAID},), nulls=False, **rest):
    rest = {"modelVersion": "model-1", "responseId": "r1", "usageMetadata": {"promptTokenCount": 19, "candidatesTokenCount": 10}, **rest}
    if "candidates" not in rest:
        content = {"role": "model", "parts": list(parts)}
        rest["candidates"] = [{"index": 0, "finishReason": reason, "content": content}]
    response = types.GenerateContentResponse.model_validate(rest)
    # What the SDK adds for its own users is no part of the API.
    own = {"sdk_http_response", "automatic_function_calling_history", "parsed"}
    return 200, response.model_dump(mode="json", by_alias=True, exclude_none=not nulls, exclude=own)


def of_gemini():
    for reason in types.FinishReason:
        yield f"finish/{reason.value}", generated(reason)
        yield f"finish/{reason.value}/nulls", generated(reason, nulls=True)
        bare = {"finishReason": reason, "finishMessage": "some words"}
        yield f"finish/{reason.value}/bare", generated(candidates=[bare])
    for reason in types.BlockedReason:
        feedback = {"blockReason": reason, "blockReasonMessage": "some words"}
        yield f"blocked/{reason.value}", generated(candidates=None, promptFeedback=feedback)
    yield "candidates/none", generated(candidates=[])
    usage = made(types.GenerateContentResponseUsageMetadata, True)
    yield "usage/full", generated(usageMetadata=usage.model_dump(by_alias=True, mode="json"))
    for name, field in types.Part.model_fields.items():
        part = {field.alias: made(field.annotation, True)}
        if name == "function_call":
            part = CALL
        if name == "thought":
            part = {"text": "Hm.", "thought": True}
        if name.endswith(("_metadata", "_resolution", "_processing", "_signature")):
            part["text"] = ""
        yield f"part/{name}", generated(parts=({"text": SAID}, part))
    begun = {"functionCall": {**CALL["functionCall"], "willContinue": True}}
    yield "call/begun", generated(parts=(begun,))
    codes = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
             "PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429,
             "CANCELLED": 499, "INTERNAL": 500, "UNKNOWN": 500, "DATA_LOSS": 500, "UNIMPLEMENTED": 501,
             "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504}
    for code, status in codes.items():
        body = {"error": {"code": status, "message": "some words", "status": code}}
        read = gemini_errors.APIError(status, body)
        assert (read.status, read.message) == (code, "some words"), read
        yield f"error/{code}", (status, body)


ANSWERS = {"openai": dict(of_openai()), "anthropic": dict(of_anthropic()), "gemini": dict(of_gemini())}
# What tests of requests are answered with: a form, a call of a tool with what has to come back with it.
FORM = '{"answer": 42}'
THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "c2ln"}
VEILED = {"type": "redacted_thinking", "data": "ZGF0YQ=="}
ANSWERS["openai"].update({"form": completion(content=FORM), "calls": completion("tool_calls", content=None, tool_calls=[FUNCTION])})
ANSWERS["anthropic"].update({"form": message(content=({"type": "text", "text": FORM},)),
                             "calls": message("tool_use", content=(THOUGHT, VEILED, TEXT, USE))})
ANSWERS["gemini"].update({"form": generated(parts=({"text": FORM},)), "calls": generated(parts=(CALL,))})
