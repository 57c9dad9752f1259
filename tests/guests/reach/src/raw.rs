//! A request whose authority is passed on as it is, past the SDK that would refuse it.

use agentry_sdk::Failure;
use agentry_sdk::serde_json::Value;

#[cfg(target_family = "wasm")]
pub fn send(tls: bool, authority: &str, path: Option<&str>) -> Result<Value, Failure> {
    use agentry_sdk::glue::bindings::wasi::http::outgoing_handler;
    use agentry_sdk::glue::bindings::wasi::http::types::{ErrorCode, Fields, OutgoingRequest, Scheme};

    let invalid = |what: &str| Failure::permanent(what.to_owned()).with_code("invalid_request");
    let request = OutgoingRequest::new(Fields::new());
    let scheme = if tls { Scheme::Https } else { Scheme::Http };
    request.set_scheme(Some(&scheme)).map_err(|()| invalid("the scheme"))?;
    request.set_authority(Some(authority)).map_err(|()| invalid("the authority"))?;
    request.set_path_with_query(Some(path.unwrap_or("/"))).map_err(|()| invalid("the path"))?;
    let refused = |code: ErrorCode| Failure::permanent(format!("{code:?}")).with_code("refused");
    let waiting = outgoing_handler::handle(request, None).map_err(refused)?;
    waiting.subscribe().block();
    let response = waiting.get().ok_or_else(|| invalid("no response"))?;
    let response = response.map_err(|()| invalid("taken twice"))?.map_err(refused)?;
    Ok(response.status().into())
}

/// Several at once, which are begun, kept and never read. Gives back how many there were.
#[cfg(target_family = "wasm")]
pub fn hold(authority: &str, path: &str, count: usize, time: std::time::Duration) -> Result<Value, Failure> {
    use agentry_sdk::glue::bindings::wasi::http::outgoing_handler;
    use agentry_sdk::glue::bindings::wasi::http::types::{Fields, OutgoingRequest, Scheme};

    let mut held = Vec::new();
    for _ in 0..count {
        let invalid = |()| Failure::permanent("the request").with_code("invalid_request");
        let request = OutgoingRequest::new(Fields::new());
        request.set_scheme(Some(&Scheme::Http)).map_err(invalid)?;
        request.set_authority(Some(authority)).map_err(invalid)?;
        request.set_path_with_query(Some(path)).map_err(invalid)?;
        held.extend(outgoing_handler::handle(request, None));
    }
    std::thread::sleep(time);
    Ok(held.len().into())
}

#[cfg(not(target_family = "wasm"))]
pub fn hold(_: &str, _: &str, _: usize, _: std::time::Duration) -> Result<Value, Failure> {
    Err(Failure::permanent("outside a component there is no host"))
}

#[cfg(not(target_family = "wasm"))]
pub fn send(_: bool, _: &str, _: Option<&str>) -> Result<Value, Failure> {
    Err(Failure::permanent("outside a component there is no host"))
}
