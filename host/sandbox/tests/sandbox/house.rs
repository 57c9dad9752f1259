//! A sandbox for tests, and the ordinary ways to use it.

use std::sync::OnceLock;
use std::time::Duration;

use agentry_sandbox::{Fault, FaultKind, Grants, Invocation, Limits, Outcome, Plugin, Ran, Sandbox, SandboxConfig};
use tokio_util::sync::CancellationToken;

use crate::guest::Guest;

/// Longer than anything here takes on a slow machine; only a defect waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The slots of the shared sandbox.
pub const SLOTS: u32 = 256;

/// One sandbox for all tests, as in a daemon.
pub fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| {
        Sandbox::new(SandboxConfig { slots: SLOTS, compile_concurrency: 2, ..SandboxConfig::default() }).unwrap()
    })
}

/// Loads a guest without grants.
pub async fn load(guest: &Guest) -> Plugin {
    sandbox().load(guest.build(), &Grants::default()).await.unwrap()
}

/// An invocation with an input, and limits that end tests soon.
pub fn invocation(input: &str) -> Invocation {
    Invocation {
        task_id: "01920c3e-0000-7000-8000-000000000000".to_owned(),
        attempt: 1,
        max_attempts: 3,
        input: input.into(),
        plugin_name: "guest".into(),
        plugin_version: "0.1.0".into(),
        labels: Vec::new(),
        limits: Limits { cpu: Duration::from_secs(10), timeout: PATIENCE, ..Limits::default() },
        memory: None,
        turn: None,
        deadline: None,
        stop: CancellationToken::new(),
        on_log: None,
        access: agentry_sandbox::Access::default(),
        bodies: agentry_sandbox::Bodies::default(),
    }
}

/// Loads a guest and runs it once.
pub async fn run(guest: &Guest) -> Ran {
    run_with(guest, |_| {}).await
}

/// Loads a guest and runs it once with limits of its own.
pub async fn run_with(guest: &Guest, limits: impl FnOnce(&mut Limits)) -> Ran {
    let plugin = load(guest).await;
    let mut invocation = invocation("null");
    limits(&mut invocation.limits);
    plugin.run(invocation).await
}

/// The fault of a run that must have one of this kind. Afterwards the same sandbox still runs an honest guest.
pub async fn fault(ran: Ran, kind: FaultKind) -> Fault {
    let Outcome::Fault(fault) = ran.outcome else {
        panic!("wanted {kind:?}, got {:?}", ran.outcome);
    };
    assert_eq!(fault.kind, kind, "{fault:?}");
    assert!(!fault.message.is_empty());
    honest().await;
    fault
}

/// An honest guest is unharmed by whatever went before.
pub async fn honest() {
    let ran = load(&Guest::default()).await.run(invocation("{\"a\":1}")).await;
    assert_eq!(ran.outcome, Outcome::Output("{\"a\":1}".to_owned()));
}

/// The detail of a limit: its name, and more used than allowed.
pub fn over(fault: &Fault, limit: &str) {
    assert_eq!(fault.detail["limit"], limit, "{fault:?}");
    let used = fault.detail["used"].as_f64().unwrap();
    let allowed = fault.detail["allowed"].as_f64().unwrap();
    assert!(used > allowed, "{fault:?}");
}
