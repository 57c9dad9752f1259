//! What is loaded, and every refusal by name.

use std::time::Duration;

use agentry_sandbox::{Grants, Limits, LoadError, Outcome, Sandbox, SandboxConfig, digest};
use bytes::Bytes;

use crate::guest::{CONTEXT, ECHO, Guest, Import, LOGGING, SLEEP, STREAMS, handle};
use crate::house::*;

async fn refused(file: impl Into<Bytes>) -> LoadError {
    sandbox().load(file.into(), &Grants::default()).await.expect_err("it must be refused")
}

async fn refused_guest(guest: Guest) -> String {
    refused(guest.build()).await.to_string()
}

fn imports(text: &'static str) -> Guest {
    Guest::default().with(Import { text, functions: &[] })
}

#[tokio::test]
async fn a_plugin_tells_what_it_is() {
    let file = Guest { memory: "3".to_owned(), ..Guest::default() }.with(CONTEXT).with(LOGGING).build();
    let plugin = sandbox().load(file.clone(), &Grants::default()).await.unwrap();
    assert_eq!(plugin.digest(), digest(&file));
    assert_eq!(
        plugin.imports(),
        ["agentry:plugin/context@0.1.0", "agentry:plugin/types@0.1.0", "wasi:logging/logging@0.1.0-draft"]
    );
    assert_eq!(plugin.initial_memory(), 3 << 16);
}

#[test]
fn a_digest_is_written_as_oci_writes_it() {
    assert_eq!(digest(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

#[tokio::test]
async fn what_is_not_a_component_is_refused_by_what_it_is() {
    assert!(matches!(refused(wat::parse_str("(module)").unwrap()).await, LoadError::CoreModule));
    assert!(matches!(refused(Guest::default().text()).await, LoadError::Text));
    assert!(matches!(refused("\n  (component)").await, LoadError::Text));
    assert!(matches!(refused("#!/bin/sh").await, LoadError::NotWasm));
    assert!(matches!(refused(vec![0xa5; 100]).await, LoadError::NotWasm));
    assert!(matches!(refused("").await, LoadError::Truncated { .. }));
    assert!(matches!(refused("\0asm").await, LoadError::Truncated { .. }));
}

#[tokio::test]
async fn compiled_code_is_refused_in_place_of_a_component() {
    let engine = wasmtime::Engine::default();
    let code = engine.precompile_component(&Guest::default().build()).unwrap();
    assert!(matches!(refused(code).await, LoadError::Precompiled));
}

#[tokio::test]
async fn a_file_cut_anywhere_is_refused() {
    let whole = Guest::default().build();
    for length in (0..whole.len()).step_by(7) {
        let error = refused(whole.slice(..length)).await;
        let known = matches!(
            error,
            LoadError::Truncated { .. }
                | LoadError::Malformed { .. }
                | LoadError::NoHandler { .. }
                | LoadError::NotWasm
        );
        assert!(known, "{length}: {error}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_runs_as_what_it_says() {
    // Whatever a changed byte makes of it, nothing but an error or an outcome comes back.
    let whole = Guest::default().build().to_vec();
    for at in (8..whole.len()).step_by(5) {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        if let Ok(plugin) = sandbox().load(damaged.into(), &Grants::default()).await {
            let mut invocation = invocation("null");
            invocation.limits.cpu = Duration::from_millis(50);
            plugin.run(invocation).await;
        }
    }
    honest().await;
}

#[tokio::test]
async fn a_file_beyond_the_bound_is_refused_unread() {
    let sandbox =
        Sandbox::new(SandboxConfig { slots: 1, component_bytes: 1 << 20, ..SandboxConfig::default() }).unwrap();
    let error = sandbox.load(vec![0; (1 << 20) + 1].into(), &Grants::default()).await.unwrap_err();
    assert!(matches!(error, LoadError::TooLarge { bytes: 1_048_577, limit: 1_048_576 }));
    assert!(error.to_string().contains("component_mib = 1"), "{error}");
}

#[tokio::test]
async fn an_import_that_nobody_knows_is_refused_by_name() {
    let error =
        refused_guest(imports("(import \"acme:vault/secrets@1.0.0\" (instance (export \"get\" (func))))")).await;
    assert!(error.contains("acme:vault/secrets@1.0.0"), "{error}");
    let error = refused_guest(imports("(import \"get\" (func))")).await;
    assert!(error.contains("imports get"), "{error}");
}

#[tokio::test]
async fn what_a_component_calls_things_is_shown_on_one_line_and_in_short() {
    // No tool writes such names, and the format has room for them.
    let import = "(import \"acme:vault/secrets@1.0.0\" (instance (export \"get\" (func))))";
    let mut file = imports(import).build().to_vec();
    let at = file.windows(10).position(|bytes| bytes == b"acme:vault").unwrap();
    file[at..at + 4].copy_from_slice(b"\x1b[2J");
    let error = refused(file).await.to_string();
    assert!(error.contains(r"imports \u{1b}[2J:vault"), "{error:?}");
    let mut file = imports("(import \"wasi:cli/stdout@0.2.0\" (instance))").build().to_vec();
    let at = file.windows(12).position(|bytes| bytes == b"stdout@0.2.0").unwrap();
    file[at + 6] = b'\r';
    let error = refused(file).await.to_string();
    assert!(
        error.contains(r"wasi:cli/stdout\u{d}0.2.0; this host serves wasi:cli/stdout\u{d}0.2.0@0.2.x"),
        "{error:?}"
    );
    let long = format!("(import \"acme:{}/a@1.0.0\" (instance))", "v".repeat(50_000));
    let error = refused(wat::parse_str(format!("(component {long})")).unwrap()).await.to_string();
    assert!(error.contains("imports acme:vvv") && error.len() < 2_048, "{} bytes", error.len());
}

#[tokio::test]
async fn a_capability_is_refused_without_a_grant_and_linked_with_one() {
    let file = imports("(import \"wasi:keyvalue/store@0.2.0-draft\" (instance))").build();
    let error = refused(file.clone()).await.to_string();
    assert!(error.contains("wasi:keyvalue/store@0.2.0-draft") && error.contains("keyvalue = [\"cache\"]"), "{error}");
    let grants = Grants { capabilities: ["keyvalue".to_owned()].into() };
    sandbox().load(file, &grants).await.unwrap();
    let newer = imports("(import \"wasi:keyvalue/store@0.2.0-draft2\" (instance))").build();
    let error = sandbox().load(newer, &grants).await.unwrap_err().to_string();
    assert!(error.contains("this host serves wasi:keyvalue/store@0.2.0-draft"), "{error}");
}

#[tokio::test]
async fn an_interface_newer_than_the_host_is_refused() {
    let error = refused_guest(imports("(import \"agentry:plugin/context@0.1.1\" (instance))")).await;
    assert!(error.contains("agentry:plugin/context@0.1.1") && error.contains("@0.1.0"), "{error}");
    let error = refused_guest(Guest { export: "agentry:plugin/handler@0.1.1".to_owned(), ..Guest::default() }).await;
    assert!(error.contains("agentry:plugin/handler@0.1.1") && error.contains("@0.1.0 and older"), "{error}");
    let error = refused_guest(imports("(import \"wasi:cli/stdout@0.3.0\" (instance))")).await;
    assert!(error.contains("wasi:cli/stdout@0.2.x"), "{error}");
    let error = refused_guest(imports("(import \"wasi:logging/logging@0.1.0\" (instance))")).await;
    assert!(error.contains("wasi:logging/logging@0.1.0-draft"), "{error}");
}

#[tokio::test]
async fn a_component_that_is_no_plugin_is_refused() {
    let error = refused_guest(Guest { export: "acme:other/handler@0.1.0".to_owned(), ..Guest::default() }).await;
    assert!(error.contains("does not export agentry:plugin/handler@0.1.0"), "{error}");
}

#[tokio::test]
async fn more_exports_than_the_handler_are_ignored() {
    let guest = Guest { tail: "(instance $init) (export \"init\" (instance $init))".to_owned(), ..Guest::default() };
    assert_eq!(run(&guest).await.outcome, Outcome::Output("null".to_owned()));
}

#[tokio::test]
async fn another_shape_of_the_interface_is_refused() {
    let import =
        "(import \"agentry:plugin/context@0.1.0\" (instance (export \"remaining-ms\" (func (result string)))))";
    assert!(matches!(refused(imports(import).build()).await, LoadError::Mismatch { .. }));
    let import = "(import \"agentry:plugin/context@0.1.0\" (instance (export \"nonesuch\" (func))))";
    let error = refused(imports(import).build()).await;
    assert!(matches!(error, LoadError::Mismatch { .. }) && error.to_string().contains("nonesuch"), "{error}");
    let other = Guest::default().text().replace("(field \"attempt\" u32)", "(field \"attempt\" u64)");
    let other = other.replace("(param $attempt i32)", "(param $attempt i64)");
    assert!(matches!(refused(wat::parse_str(other).unwrap()).await, LoadError::Mismatch { .. }));
}

#[tokio::test]
async fn a_component_beyond_a_ceiling_is_refused_with_the_ceiling_to_raise() {
    let ceiling = async |guest: Guest, setting: &str| {
        let error = refused(guest.build()).await;
        assert!(matches!(error, LoadError::Ceiling { setting: named, .. } if named == setting), "{setting}: {error}");
        assert!(error.to_string().contains(&format!("limits.max.{setting}")), "{error}");
    };
    ceiling(Guest { memory: "2049".to_owned(), ..Guest::default() }, "memory_mib").await;
    ceiling(Guest { memory: "65536".to_owned(), ..Guest::default() }, "memory_mib").await;
    ceiling(Guest { core: "(memory 1) (memory 1) (memory 1) (memory 1)".to_owned(), ..Guest::default() }, "memories")
        .await;
    ceiling(Guest { core: "(table 100001 funcref)".to_owned(), ..Guest::default() }, "table_elements").await;
    let many = "(core module $e) ".to_owned() + &"(core instance (instantiate $e))".repeat(200);
    ceiling(Guest { tail: many, ..Guest::default() }, "instances").await;
}

#[tokio::test]
async fn a_proposal_that_no_plugin_needs_is_refused() {
    for core in
        ["(memory $shared 1 1 shared)", "(memory $wide i64 1)", "(type $s (struct))", "(tag $t) (func (throw $t))"]
    {
        let error = refused(Guest { core: core.to_owned(), ..Guest::default() }.build()).await;
        assert!(matches!(error, LoadError::Compile { .. } | LoadError::Malformed { .. }), "{core}: {error}");
    }
}

#[tokio::test]
async fn what_standard_libraries_bring_along_is_linked() {
    let guest = handle(ECHO).with(SLEEP).with(LOGGING).with(CONTEXT).with(STREAMS);
    assert_eq!(run(&guest).await.outcome, Outcome::Output("null".to_owned()));
}

#[tokio::test]
async fn a_compiler_that_takes_too_long_is_not_waited_for() {
    let config = SandboxConfig { slots: 1, compile_timeout: Duration::ZERO, ..SandboxConfig::default() };
    // Large enough that the compiler cannot be done before it is looked at for the first time.
    let guest = Guest { core: "(func (result i32) (i32.const 1))".repeat(5_000), ..Guest::default() };
    let error = Sandbox::new(config).unwrap().load(guest.build(), &Grants::default()).await.unwrap_err();
    assert!(matches!(error, LoadError::CompileTimeout { .. }), "{error}");
}

#[tokio::test]
async fn limits_beyond_the_ceilings_are_cut_to_them() {
    let ceilings = Limits { memory_bytes: 2 << 20, ..Limits::default() };
    let sandbox = Sandbox::new(SandboxConfig { slots: 1, ceilings, ..SandboxConfig::default() }).unwrap();
    let grows = handle("(loop $l (br_if $l (i32.ne (memory.grow (i32.const 1)) (i32.const -1)))) unreachable");
    let plugin = sandbox.load(grows.build(), &Grants::default()).await.unwrap();
    let ran = plugin.run(invocation("null")).await;
    assert_eq!(ran.usage.peak_memory, 2 << 20);
}
