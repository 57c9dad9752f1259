//! The revision of the protocol that a server and this host share.
//!
//! `initialize` comes first: servers of all revisions up to 2025-11-25 wait for it, and one that speaks the later ones alone has to
//! reject it. A probe with `server/discover` first would cost its whole time-out with servers that ignore unknown methods, and ends some
//! that do not. So a server that rejects `initialize` is asked with `server/discover`, and then with older revisions by name.

use super::intake;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The revision without a handshake: each request says its revision and the client's capabilities.
pub(super) const STATELESS: &str = "2026-07-28";
/// Revisions with a handshake, newest first.
pub(super) const HANDSHAKE: [&str; 5] = ["2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07"];
/// The most requests until a revision is found.
const REQUESTS: usize = 8;
/// How long a server may take that rejected `initialize`, and is asked in another way.
pub(super) const PROBE: Duration = Duration::from_secs(5);
/// Codes of errors that may mean another revision: without a code (an HTTP error), invalid request, unknown method, invalid parameters,
/// and those of revision 2026-07-28.
const OF_REVISION: [i64; 7] = [0, -32600, -32601, -32602, -32020, -32021, -32022];
/// The id of `server/discover`.
const DISCOVER: &str = "agentry-discover";

/// Whether a revision is spoken here.
pub(super) fn speaks(revision: &str) -> bool {
    revision == STATELESS || HANDSHAKE.contains(&revision)
}

/// The revisions that are spoken here, in words.
pub(super) fn spoken() -> String {
    format!("{STATELESS}, {}", HANDSHAKE.join(", "))
}

/// Search for a revision that both speak, from rejection to rejection.
pub(super) struct Negotiation {
    /// `initialize` as rmcp sent it.
    initialize: Value,
    step: Step,
    /// Revisions that are still to be tried, the next one first.
    revisions: Vec<&'static str>,
    has_discovered: bool,
    requests: usize,
    /// The first rejection, which is reported if all is in vain.
    first: Option<Value>,
    /// Revisions that the server names.
    supported: Vec<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Initialize(Option<&'static str>),
    Discover,
}

/// Result of a step.
pub(super) enum Verdict {
    /// The answer to `initialize` that rmcp is given.
    Done(Map<String, Value>),
    /// The next request is to be sent.
    Again,
}

impl Negotiation {
    /// Begins with `initialize` as it is.
    pub(super) fn new(initialize: Value) -> Negotiation {
        Negotiation {
            initialize,
            step: Step::Initialize(None),
            revisions: Vec::new(),
            has_discovered: false,
            requests: 1,
            first: None,
            supported: Vec::new(),
        }
    }

    /// The request to send.
    pub(super) fn request(&self) -> Value {
        match self.step {
            Step::Initialize(None) => self.initialize.clone(),
            Step::Initialize(Some(revision)) => {
                let mut request = self.initialize.clone();
                request["params"]["protocolVersion"] = revision.into();
                request
            }
            Step::Discover => {
                json!({"jsonrpc": "2.0", "id": DISCOVER, "method": "server/discover", "params": {"_meta": {
                    "io.modelcontextprotocol/protocolVersion": STATELESS,
                    "io.modelcontextprotocol/clientInfo": self.initialize["params"]["clientInfo"],
                    "io.modelcontextprotocol/clientCapabilities": {},
                }}})
            }
        }
    }

    /// `initialize` as it was at the beginning.
    pub(super) fn into_initialize(self) -> Value {
        self.initialize
    }

    /// The id of that request.
    pub(super) fn id(&self) -> Value {
        match self.step {
            Step::Discover => DISCOVER.into(),
            Step::Initialize(_) => self.initialize["id"].clone(),
        }
    }

    /// Whether that request is `server/discover`.
    pub(super) fn is_discovering(&self) -> bool {
        self.step == Step::Discover
    }

    /// Whether the server said which revisions it speaks.
    pub(super) fn knows_revisions(&self) -> bool {
        !self.supported.is_empty()
    }

    /// Whether the server rejected anything yet.
    pub(super) fn was_rejected(&self) -> bool {
        self.first.is_some()
    }

    /// Takes the answer to that request.
    pub(super) fn answered(&mut self, mut answer: Map<String, Value>) -> Verdict {
        if intake::is_error(&answer) {
            return self.rejected(answer.remove("error").unwrap_or_default());
        }
        if self.step != Step::Discover {
            return Verdict::Done(answer);
        }
        let result = answer.remove("result").unwrap_or_default();
        let supported = revisions(&result["supportedVersions"]);
        if supported.iter().any(|revision| revision == STATELESS) {
            let result = json!({"protocolVersion": STATELESS, "capabilities": result["capabilities"],
                "serverInfo": result["_meta"]["io.modelcontextprotocol/serverInfo"]});
            return Verdict::Done(Map::from_iter([("result".to_owned(), result)]));
        }
        self.next(supported)
    }

    /// Takes an error in place of an answer.
    pub(super) fn rejected(&mut self, error: Value) -> Verdict {
        let error = intake::error(error);
        let data = &error["data"];
        let supported = [&data["supported"], &data["supportedVersions"]].into_iter().flat_map(revisions).collect();
        self.first.get_or_insert(error);
        self.next(supported)
    }

    fn next(&mut self, supported: Vec<String>) -> Verdict {
        if !supported.is_empty() {
            self.supported = supported;
            let tried = self.tried();
            let both = HANDSHAKE.into_iter().filter(|known| self.supported.iter().any(|revision| revision == known));
            self.revisions = both.filter(|revision| Some(*revision) != tried).collect();
        } else if self.has_discovered && self.step == Step::Discover && self.is_about_revision() {
            self.revisions = HANDSHAKE[1..].to_vec();
        }
        self.requests += 1;
        if self.requests > REQUESTS {
            return self.failed();
        }
        if self.supported.is_empty() && !self.may_be_of_revision() {
            return self.failed();
        }
        let may_discover = self.supported.is_empty() || self.supported.iter().any(|revision| revision == STATELESS);
        if !self.has_discovered && may_discover {
            self.has_discovered = true;
            self.step = Step::Discover;
            return Verdict::Again;
        }
        if !self.revisions.is_empty() {
            self.step = Step::Initialize(Some(self.revisions.remove(0)));
            return Verdict::Again;
        }
        self.failed()
    }

    /// The first rejection, and the revisions of both sides.
    fn failed(&self) -> Verdict {
        let mut error = self.first.clone().unwrap_or_else(|| intake::error("it rejected initialize".into()));
        if !self.supported.is_empty() {
            let words = error["message"].as_str().unwrap_or_default();
            let remedy = format!(
                "{words}; it speaks the revisions {} of the protocol, and this host {}: update the older of both",
                self.supported.join(", "),
                spoken(),
            );
            error["message"] = remedy.into();
        }
        Verdict::Done(Map::from_iter([("error".to_owned(), error)]))
    }

    fn tried(&self) -> Option<&str> {
        match self.step {
            Step::Initialize(Some(revision)) => Some(revision),
            Step::Initialize(None) => self.initialize["params"]["protocolVersion"].as_str(),
            Step::Discover => None,
        }
    }

    /// Whether the first rejection may be that of a server of another revision.
    fn may_be_of_revision(&self) -> bool {
        let code = self.first.as_ref().and_then(|error| error["code"].as_i64());
        code.is_some_and(|code| OF_REVISION.contains(&code)) || self.is_about_revision()
    }

    /// Whether the first rejection speaks of revisions.
    fn is_about_revision(&self) -> bool {
        let words = self.first.as_ref().and_then(|error| error["message"].as_str()).unwrap_or_default().to_lowercase();
        words.contains("version") || words.contains("revision")
    }
}

/// Revisions of a list; at most as many as an error can show.
fn revisions(value: &Value) -> Vec<String> {
    let listed = value.as_array().map(Vec::as_slice).unwrap_or_default();
    listed.iter().filter_map(Value::as_str).filter(|text| text.len() <= 32).take(16).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Negotiation {
        Negotiation::new(json!({"jsonrpc": "2.0", "id": 0, "method": "initialize",
            "params": {"protocolVersion": HANDSHAKE[0], "clientInfo": {"name": "agentry", "version": "1"}}}))
    }

    fn rejection(message: &str, data: Value) -> Map<String, Value> {
        Map::from_iter([("error".to_owned(), json!({"code": -32602, "message": message, "data": data}))])
    }

    #[test]
    fn server_without_handshake_is_discovered() {
        let mut negotiation = begun();
        assert!(matches!(negotiation.answered(rejection("Method not found", Value::Null)), Verdict::Again));
        assert_eq!(negotiation.request()["method"], "server/discover");
        let found = json!({"result": {"supportedVersions": ["2027-01-01", STATELESS], "capabilities": {"tools": {}}}});
        let Value::Object(found) = found else { unreachable!() };
        let Verdict::Done(done) = negotiation.answered(found) else { panic!("it was asked again") };
        assert_eq!(done["result"]["protocolVersion"], STATELESS);
    }

    #[test]
    fn server_that_names_older_revisions_is_asked_in_the_newest_of_them() {
        let mut negotiation = begun();
        let data = json!({"supported": ["2024-11-05", "2025-03-26"]});
        assert!(matches!(negotiation.answered(rejection("Unsupported protocol version", data)), Verdict::Again));
        assert_eq!(negotiation.request()["params"]["protocolVersion"], "2025-03-26");
    }

    #[test]
    fn server_that_rejects_the_version_without_a_list_is_asked_in_each() {
        let mut negotiation = begun();
        let mut asked = Vec::new();
        while let Verdict::Again = negotiation.answered(rejection("bad protocol version", Value::Null)) {
            asked.push(negotiation.request()["params"]["protocolVersion"].as_str().unwrap_or("discover").to_owned());
        }
        assert_eq!(asked, ["discover", "2025-06-18", "2025-03-26", "2024-11-05", "2024-10-07"]);
    }

    #[test]
    fn later_revision_is_reported_with_the_remedy() {
        let mut negotiation = begun();
        let data = json!({"supported": ["2031-01-01"]});
        let Verdict::Done(done) = negotiation.answered(rejection("Unsupported", data)) else { panic!("asked again") };
        let words = done["error"]["message"].as_str().unwrap();
        assert!(words.contains("2031-01-01") && words.contains(STATELESS) && words.contains("update"), "{words}");
    }
}
