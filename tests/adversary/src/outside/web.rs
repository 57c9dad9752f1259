//! Requests over HTTP that would lead elsewhere, carry more, or take longer than was meant.

use e2e::outside::reach::get;
use serde_json::{Value, json};

use super::Attack;
use super::names::{INSIDE, NOWHERE, REBOUND};
use super::world::{PLAIN_SECRET, WEB_SECRET};

fn raw(authority: &str, path: &str) -> Value {
    json!({"raw_http": {"authority": authority, "path": path}})
}

fn post(url: String, bytes: usize) -> Value {
    json!({"http": {"method": "POST", "url": url, "body": "x".repeat(bytes)}})
}

pub(super) fn all() -> Vec<Attack> {
    [leading_elsewhere(), of_its_own_making(), too_large(), too_slow()].into_iter().flatten().collect()
}

fn leading_elsewhere() -> Vec<Attack> {
    let free = |id, shows, steps, check| Attack::new(id, "free", shows, steps, check);
    vec![
        free(
            "an-address-inside",
            &["written_address"],
            |world| {
                vec![get(world.inside.url("/written")), raw(&format!("2130706433:{}", world.inside.port()), "/written")]
            },
            |judged| {
                let judged =
                    judged.completed().recorded(0, "forbidden_address", "").recorded(1, "forbidden_address", "");
                judged.heard(|world| &world.inside, "/written", 0)
            },
        ),
        free(
            "a-name-that-leads-inside",
            &["resolved_address"],
            |world| vec![get(format!("http://{INSIDE}:{}/resolved", world.inside.port()))],
            |judged| {
                judged.completed().recorded(0, "forbidden_address", "").heard(|world| &world.inside, "/resolved", 0)
            },
        ),
        free(
            "a-name-that-leads-elsewhere-when-asked-again",
            &["looked_up_once"],
            |world| vec![get(format!("http://{REBOUND}:{}/rebound", world.inside.port()))],
            |judged| judged.completed().refused(0).heard(|world| &world.inside, "/rebound", 0),
        ),
        free(
            "a-response-that-leads-inside",
            &["redirects"],
            |world| vec![get(world.web.url("/away"))],
            |judged| judged.completed().recorded(0, "ok", "302").heard(|world| &world.inside, "/redirected", 0),
        ),
        Attack::new(
            "a-path-that-leads-out",
            "narrow",
            &["path_spelling"],
            |world| vec![get(world.web.url("/public/..%2fsecret")), get(world.web.url("/public/..;/secret"))],
            |judged| {
                let judged = judged.completed().recorded(0, "denied", "").recorded(1, "denied", "");
                judged.heard(|world| &world.web, "/public/..", 0)
            },
        ),
        free(
            "a-user-who-looks-like-a-host",
            &["userinfo"],
            |world| vec![raw(&format!("example.com:80@127.0.0.1:{}", world.closed.port()), "/userinfo")],
            |judged| judged.completed().recorded(0, "invalid", "").heard(|world| &world.closed, "/userinfo", 0),
        ),
        free(
            "a-secret-for-another",
            &["secret_origin"],
            |world| vec![get(world.closed.url("/secret-for-another")), get(world.web.url("/secret-for-it"))],
            |judged| {
                let (theirs, its) = (judged.world.closed.requests(), judged.world.web.requests());
                let secret = |requests: &[e2e::outside::Request], path: &str| {
                    requests.iter().any(|r| r.target == path && !r.header("x-web").is_empty())
                };
                let (leaked, had) = (secret(&theirs, "/secret-for-another"), secret(&its, "/secret-for-it"));
                judged.completed().must(!leaked && had, || format!("another had it: {leaked}; its own had it: {had}"))
            },
        ),
        free(
            "a-secret-in-plain-text",
            &["plain_secret"],
            |_| vec![get(format!("http://[{NOWHERE}]/"))],
            |judged| judged.completed().recorded(0, "invalid", "plain text").unseen(PLAIN_SECRET),
        ),
        free(
            "a-secret-said-back",
            &["http_mask"],
            |world| vec![get(world.web.url("/public/echo"))],
            |judged| {
                let masked = judged.told.task.to_string().contains(&"*".repeat(WEB_SECRET.len()));
                judged.completed().unseen(WEB_SECRET).must(masked, || "its server did not have it".to_owned())
            },
        ),
    ]
}

fn of_its_own_making() -> Vec<Attack> {
    vec![
        Attack::new(
            "a-method-that-tells-headers",
            "free",
            &["http_methods"],
            |world| vec![json!({"http": {"method": "TRACE", "url": world.web.url("/trace")}})],
            |judged| judged.completed().refused(0).heard(|world| &world.web, "/trace", 0),
        ),
        Attack::new(
            "a-header-of-the-connections",
            "free",
            &["http_headers"],
            |world| vec![json!({"http": {"url": world.web.url("/expect"), "headers": {"expect": "100-continue"}}})],
            |judged| judged.completed().recorded(0, "invalid", "expect").heard(|world| &world.web, "/expect", 0),
        ),
        Attack::new(
            "a-head-of-70-kib",
            "free",
            &["http_head"],
            |world| {
                let (path, header) = (format!("/head/{}", "a".repeat(35 << 10)), "b".repeat(35 << 10));
                vec![json!({"http": {"url": world.web.url(&path), "headers": {"x-long": header}}})]
            },
            |judged| judged.completed().recorded(0, "invalid", "longer than").heard(|world| &world.web, "/head/", 0),
        ),
    ]
}

fn too_large() -> Vec<Attack> {
    let poor = |id, shows, steps, check| Attack::new(id, "poor", shows, steps, check);
    vec![
        poor(
            "a-request-of-2-kib",
            &["http_request_body"],
            |world| vec![post(world.web.url("/large-request"), 2_000)],
            |judged| {
                judged.completed().recorded(0, "request_too_large", "").heard(|world| &world.web, "/large-request", 0)
            },
        ),
        poor(
            "a-response-of-2-kib",
            &["http_response_body"],
            |world| vec![get(world.web.url("/large"))],
            |judged| judged.completed().failed(0, "too_large").recorded(0, "response_too_large", ""),
        ),
    ]
}

fn too_slow() -> Vec<Attack> {
    let free = |id, shows, steps, check| Attack::new(id, "free", shows, steps, check);
    vec![
        free(
            "a-handshake-without-end",
            &["http_connect_time"],
            |world| vec![get(format!("https://{}/", world.silent.local_addr().expect("its address")))],
            |judged| judged.completed().recorded(0, "timed_out", "no connection within"),
        ),
        free(
            "a-response-that-never-begins",
            &["http_first_byte_time"],
            |world| vec![get(world.web.url("/public/hang"))],
            |judged| judged.completed().recorded(0, "timed_out", "no response within"),
        ),
        free(
            "a-response-that-stops",
            &["http_idle_time"],
            |world| vec![get(world.web.url("/public/stall"))],
            |judged| judged.completed().recorded(0, "timed_out", "no further bytes within"),
        ),
        free(
            "a-response-that-drips",
            &["http_total_time"],
            |world| vec![get(world.web.url("/public/drip"))],
            |judged| judged.completed().recorded(0, "timed_out", "no end within"),
        ),
    ]
}
