"""HTTP for a plugin in Python, through wasi:http: one function.

`requests`, `urllib` and `http.client` need sockets, which no plugin has. Build for the world `http-plugin`, and ask for the
grant in plugin.toml: `http = ["GET https://api.example.com"]`.
"""

from dataclasses import dataclass
from urllib.parse import urlsplit

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler, wasi_http_types as wasi
from wit_world.imports.streams import StreamError_Closed

# What wasi:io takes at once without waiting.
_PIECE = 4096

_METHODS = {
    "GET": wasi.Method_Get,
    "HEAD": wasi.Method_Head,
    "POST": wasi.Method_Post,
    "PUT": wasi.Method_Put,
    "DELETE": wasi.Method_Delete,
    "OPTIONS": wasi.Method_Options,
    "PATCH": wasi.Method_Patch,
}


class HttpError(Exception):
    """There is no response, or not all of it. `code` is the name of wasi:http's error, such as `HttpRequestDenied`."""

    def __init__(self, code: str, words: str):
        super().__init__(words)
        self.code = code


@dataclass
class Response:
    """A response, whatever its status. `headers` have lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def text(self) -> str:
        return self.body.decode("utf-8", "replace")


def fetch(
    url: str,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: bytes = b"",
    timeout: float | None = None,
    max_bytes: int = 1 << 20,
) -> Response:
    """Sends a request and waits for the whole response. Redirects are not followed.

    `timeout` is in seconds, to the response's head and between pieces of its body; the operator's is shorter if it is.
    Raises HttpError: without a grant, when the server cannot be reached, and for a body of more than `max_bytes`.
    """
    parts = urlsplit(url)
    fields = wasi.Fields.from_list([(name, value.encode()) for name, value in (headers or {}).items()])
    request = wasi.OutgoingRequest(fields)
    request.set_method(_METHODS[method]() if method in _METHODS else wasi.Method_Other(method))
    request.set_scheme(wasi.Scheme_Http() if parts.scheme == "http" else wasi.Scheme_Https())
    request.set_authority(parts.netloc)
    request.set_path_with_query((parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
    options = wasi.RequestOptions()
    if timeout is not None:
        options.set_first_byte_timeout(int(timeout * 1e9))
        options.set_between_bytes_timeout(int(timeout * 1e9))
    try:
        outgoing = request.body()
        future = outgoing_handler.handle(request, options)
        _write(outgoing, body)
        return _read(_response(future), max_bytes)
    except Err as error:
        raise _told(error.value, method, url) from None


def _write(outgoing, body: bytes) -> None:
    with outgoing.write() as stream:
        for at in range(0, len(body), _PIECE):
            stream.blocking_write_and_flush(body[at : at + _PIECE])
    wasi.OutgoingBody.finish(outgoing, None)


def _response(future):
    with future.subscribe() as ready:
        ready.block()
    answer = future.get()
    # The future is ready, and is asked once.
    inner = answer.value if isinstance(answer, Ok) else answer
    if isinstance(inner, Ok):
        return inner.value
    raise inner


def _read(response, max_bytes: int) -> Response:
    headers: dict[str, str] = {}
    for name, value in response.headers().entries():
        text = value.decode("latin-1")
        headers[name.lower()] = f"{headers[name.lower()]}, {text}" if name.lower() in headers else text
    body, incoming = bytearray(), response.consume()
    with incoming.stream() as stream:
        while True:
            try:
                body += stream.blocking_read(1 << 16)
            except Err as error:
                if isinstance(error.value, StreamError_Closed):
                    break
                code = wasi.http_error_code(error.value.value)
                raise Err(code) if code is not None else HttpError("Broken", "the body broke off") from None
            if len(body) > max_bytes:
                raise HttpError("HttpResponseBodySize", f"the body has more than {max_bytes} bytes")
    return Response(response.status(), headers, bytes(body))


def _told(code, method: str, url: str) -> Exception:
    if not type(code).__name__.startswith("ErrorCode_"):
        return HttpError("Invalid", f"{method} {url}: {code}")
    name = type(code).__name__.removeprefix("ErrorCode_")
    words = getattr(code, "value", None)
    parts = urlsplit(url)
    origin = f"{parts.scheme}://{parts.netloc}"
    if name == "HttpRequestDenied":
        line = f'http = ["{method} {origin}"]'
        return HttpError(name, f"{method} {origin} is not granted; ask for it in plugin.toml under [capabilities]: {line}")
    return HttpError(name, f"{method} {origin}: {name}{'' if words is None else f' ({words})'}")
