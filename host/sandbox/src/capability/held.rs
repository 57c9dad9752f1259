//! What a guest's handles keep alive in the host's memory: bounded in each part, and in their sum.
//!
//! The engine counts handles, and what a call brings in; so a guest could put a long text behind each handle. The functions of
//! `wasi:http` that put something there are replaced here by the same ones with a check before them.

use agentry_defence::Defence;
use http::HeaderMap;
use wasmtime::component::{Linker, Resource, ResourceTable};
use wasmtime_wasi_http::p2::HeaderError;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self, Host as _, HostFields as _, HostOutgoingRequest as _, Method,
};
use wasmtime_wasi_http::p2::body::HostOutgoingBody;
use wasmtime_wasi_http::p2::types::{HostIncomingResponse, HostOutgoingRequest, HostOutgoingResponse};
use wasmtime_wasi_http::{FieldMap, WasiHttpView};

use super::http::CHUNK_BYTES;
use super::keyvalue::Bucket;
use crate::instance::State;

/// The most that the handles of one instance keep alive, in bytes.
const HELD_BYTES: u64 = 16 << 20;
/// The longest method, in bytes. The registered ones have at most 17.
const METHOD_BYTES: usize = 64;
/// The longest authority, in bytes: a name of DNS has at most 253, and a port 5.
const AUTHORITY_BYTES: usize = 300;
/// The longest name of a bucket, in bytes.
pub(super) const BUCKET_BYTES: usize = 128;
/// What the table of headers takes for each header that it has room for, in bytes.
const SLOT_BYTES: usize = 128;
/// What a handle takes at least, in bytes.
const HANDLE_BYTES: usize = 256;
/// A body that is being written: two pieces, one in the queue and one on its way there.
const BODY_BYTES: usize = 2 * CHUNK_BYTES;

/// The interface as the engine's crate links it. Guests may import any 0.2.
const TYPES: &str = "wasi:http/types@0.2.12";

/// The handles keep too much alive.
#[derive(Debug, thiserror::Error)]
#[error("handles keep {used} bytes alive, and {allowed} are allowed")]
pub(crate) struct TooMuchHeld {
    pub(crate) used: u64,
    pub(crate) allowed: u64,
}

type Answer<T> = wasmtime::Result<(Result<T, ()>,)>;
type HeaderAnswer<T> = wasmtime::Result<(Result<T, types::HeaderError>,)>;
type Request = Resource<HostOutgoingRequest>;
type Fields = Resource<FieldMap>;

/// Replaces the functions that let a handle keep more alive. The interface is linked before.
pub(super) fn link(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    linker.allow_shadowing(true);
    let mut types = linker.instance(TYPES)?;
    types.func_wrap("[constructor]fields", |mut store, (): ()| {
        let state: &mut State = store.data_mut();
        state.hold(HANDLE_BYTES)?;
        Ok((types::HostFields::new(&mut state.http())?,))
    })?;
    types.func_wrap("[static]fields.from-list", |mut store, (entries,): (Vec<(String, Vec<u8>)>,)| {
        let state: &mut State = store.data_mut();
        let texts: usize = entries.iter().map(|(name, value)| name.len() + value.len() + SLOT_BYTES).sum();
        state.hold(HANDLE_BYTES + texts)?;
        let answer = state.http().from_list(entries);
        headers(state, answer)
    })?;
    types.func_wrap("[method]fields.set", |mut store, (fields, name, values): (Fields, String, Vec<Vec<u8>>)| {
        let state: &mut State = store.data_mut();
        let texts: usize = values.iter().map(|value| value.len() + SLOT_BYTES).sum();
        state.grow(&fields, name.len() + texts)?;
        let answer = state.http().set(fields, name, values);
        headers(state, answer)
    })?;
    types.func_wrap("[method]fields.append", |mut store, (fields, name, value): (Fields, String, Vec<u8>)| {
        let state: &mut State = store.data_mut();
        state.grow(&fields, name.len() + value.len() + SLOT_BYTES)?;
        let answer = state.http().append(fields, name, value);
        headers(state, answer)
    })?;
    types.func_wrap("[method]fields.clone", |mut store, (fields,): (Fields,)| {
        let state: &mut State = store.data_mut();
        // It is copied when one of the two is changed.
        let held = held_by_headers(state.table.get(&fields)?);
        state.hold(held)?;
        Ok((types::HostFields::clone(&mut state.http(), fields)?,))
    })?;
    types.func_wrap("[method]outgoing-request.set-method", |mut store, (request, method): (Request, Method)| {
        let state: &mut State = store.data_mut();
        let length = if let Method::Other(name) = &method { name.len() } else { 0 };
        fits(length, METHOD_BYTES, || state.http().set_method(request, method))
    })?;
    types.func_wrap(
        "[method]outgoing-request.set-authority",
        |mut store, (request, text): (Request, Option<String>)| {
            let state: &mut State = store.data_mut();
            fits(length(&text), AUTHORITY_BYTES, || state.http().set_authority(request, text))
        },
    )?;
    // Its own length is bounded by what a URL may have at all.
    types.func_wrap(
        "[method]outgoing-request.set-path-with-query",
        |mut store, (request, text): (Request, Option<String>)| -> Answer<()> {
            let state: &mut State = store.data_mut();
            state.hold(length(&text))?;
            Ok((state.http().set_path_with_query(request, text)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-request.body",
        |mut store, (request,): (Request,)| -> Answer<Resource<HostOutgoingBody>> {
            let state: &mut State = store.data_mut();
            state.hold(BODY_BYTES)?;
            Ok((types::HostOutgoingRequest::body(&mut state.http(), request)?,))
        },
    )?;
    types.func_wrap(
        "[method]outgoing-response.body",
        |mut store, (response,): (Resource<HostOutgoingResponse>,)| -> Answer<Resource<HostOutgoingBody>> {
            let state: &mut State = store.data_mut();
            state.hold(BODY_BYTES)?;
            Ok((types::HostOutgoingResponse::body(&mut state.http(), response)?,))
        },
    )?;
    linker.allow_shadowing(false);
    Ok(())
}

fn length(text: &Option<String>) -> usize {
    text.as_ref().map_or(0, String::len)
}

/// An error that the guest sees, without words, for a text that is too long.
fn fits(length: usize, most: usize, set: impl FnOnce() -> wasmtime::Result<Result<(), ()>>) -> Answer<()> {
    if length > most && Defence::HeldBytes.stands() {
        return Ok((Err(()),));
    }
    Ok((set()?,))
}

fn headers<T>(state: &mut State, answer: Result<T, HeaderError>) -> HeaderAnswer<T> {
    match answer {
        Ok(value) => Ok((Ok(value),)),
        Err(error) => Ok((Err(state.http().convert_header_error(error)?),)),
    }
}

impl State {
    /// A handle is about to keep so many bytes more alive.
    fn hold(&mut self, bytes: usize) -> wasmtime::Result<()> {
        let bytes = bytes as u64;
        self.held = self.held.saturating_add(bytes);
        if self.held > HELD_BYTES && Defence::HeldBytes.stands() {
            // What was dropped since the last look is not counted any more.
            self.held = held(&mut self.table).saturating_add(bytes);
            if self.held > HELD_BYTES {
                return Err(TooMuchHeld { used: self.held, allowed: HELD_BYTES }.into());
            }
        }
        Ok(())
    }

    /// The same of headers. Their table doubles when it is full.
    fn grow(&mut self, fields: &Fields, bytes: usize) -> wasmtime::Result<()> {
        let fields = self.table.get(fields)?;
        let table = if fields.keys_len() == fields.capacity() { fields.capacity() * SLOT_BYTES } else { 0 };
        self.hold(bytes + table)
    }
}

/// What all handles keep alive.
fn held(table: &mut ResourceTable) -> u64 {
    let of = |entry: &mut (dyn std::any::Any + Send)| -> usize {
        if let Some(fields) = entry.downcast_ref::<FieldMap>() {
            return held_by_headers(fields);
        }
        if let Some(request) = entry.downcast_ref::<HostOutgoingRequest>() {
            let body = if request.body.is_some() { BODY_BYTES } else { 0 };
            let texts = length(&request.authority) + length(&request.path_with_query);
            return held_by_headers(&request.headers) + texts + body;
        }
        if let Some(response) = entry.downcast_ref::<HostOutgoingResponse>() {
            return held_by_headers(&response.headers) + if response.body.is_some() { BODY_BYTES } else { 0 };
        }
        if let Some(response) = entry.downcast_ref::<HostIncomingResponse>() {
            return held_by_headers(&response.headers);
        }
        if entry.is::<Bucket>() { HANDLE_BYTES + BUCKET_BYTES } else { HANDLE_BYTES }
    };
    table.iter_mut().map(of).map(|bytes| bytes as u64).sum()
}

fn held_by_headers(headers: &HeaderMap) -> usize {
    let texts: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    HANDLE_BYTES + headers.capacity() * SLOT_BYTES + texts
}
