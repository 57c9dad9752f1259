//! What is put where a plugin's files belong, and must be refused by name.

use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::attack;
use crate::guest::{Guest, Import};
use crate::install::{self, FILE, LIMITS, manifest};

/// The operator's ceilings here, below the engine's own.
pub const CEILINGS: &[(&str, u64)] =
    &[("limits.max.component_mib", 4), ("limits.max.instances", 100), ("limits.default.instances", 100)];

/// What is put there.
pub enum Put {
    /// A component's file.
    File(Vec<u8>),
    /// A `plugin.toml`, beside a component that is good.
    Manifest(Vec<u8>),
    /// Something else in the component's place.
    Odd(fn(&Path)),
}

/// One file that must not be loaded.
pub struct Refused {
    /// Its name, and its folder's.
    pub id: &'static str,
    /// What is put there.
    pub put: Put,
    /// What the cause must say.
    pub says: Vec<&'static str>,
    /// Defences without which this must turn red.
    pub shows: &'static [&'static str],
}

impl Refused {
    fn new(id: &'static str, put: Put, says: &[&'static str]) -> Self {
        Self { id, put, says: says.to_vec(), shows: &[] }
    }

    fn shows(self, shows: &'static [&'static str]) -> Self {
        Self { shows, ..self }
    }

    /// Puts it into a folder below `plugins`, under a version of its own.
    pub fn put(&self, plugins: &Path, name: &str, version: &str) {
        let folder = plugins.join(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let good = manifest(name, LIMITS).replace("0.1.0", version);
        let text = match &self.put {
            Put::File(bytes) => {
                install::replace(&folder, bytes);
                good.into_bytes()
            }
            Put::Manifest(bytes) => {
                install::replace(&folder, &wat::parse_str(Guest::default().text()).expect("a component"));
                replaced(bytes, name, version)
            }
            Put::Odd(put) => {
                let _ = std::fs::remove_file(folder.join(FILE)); // it may not be there yet
                put(&folder);
                good.into_bytes()
            }
        };
        std::fs::write(folder.join("plugin.toml"), text).expect("a manifest");
    }
}

/// A manifest with its name and version in it.
fn replaced(bytes: &[u8], name: &str, version: &str) -> Vec<u8> {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.replace("NAME", name).replace("VERSION", version).into_bytes(),
        Err(_) => bytes.to_vec(),
    }
}

/// Every file that must be refused. `compiled` is compiled code, as the daemon itself keeps it.
pub fn all(compiled: Vec<u8>) -> Vec<Refused> {
    let mut all = not_components(compiled);
    all.extend(wrong_components());
    all.extend(too_large());
    all.extend(odd());
    all.extend(manifests());
    all
}

fn good() -> Vec<u8> {
    wat::parse_str(Guest::default().text()).expect("a component")
}

fn file(id: &'static str, bytes: impl Into<Vec<u8>>, says: &[&'static str]) -> Refused {
    Refused::new(id, Put::File(bytes.into()), says)
}

fn guest(id: &'static str, guest: &Guest, says: &[&'static str]) -> Refused {
    file(id, wat::parse_str(guest.text()).unwrap_or_else(|error| panic!("{id}: {error}")), says)
}

fn not_components(compiled: Vec<u8>) -> Vec<Refused> {
    let noise: Vec<u8> = (0u32..10_000).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (whole, mut magic) = (good(), b"\0asm\x0d\0\x01\0".to_vec());
    magic.extend(&noise);
    vec![
        file("core-module", wat::parse_str("(module)").expect("a module"), &["core module"]).shows(&["file_kind"]),
        file("component-text", Guest::default().text(), &["text"]),
        file("random-bytes", noise, &["does not begin"]),
        file("random-bytes-after-the-magic", magic, &[]),
        file("empty-file", "", &["empty"]),
        file("cut-in-half", &whole[..whole.len() / 2], &["not whole"]),
        file("cut-by-a-byte", &whole[..whole.len() - 1], &["not whole"]),
        file("elf", b"\x7fELF\x02\x01\x01\0 and so on".to_vec(), &["ELF"]),
        file("compiled-code", compiled, &["compiled code"]),
        file("a-script", "#!/bin/sh\nrm -rf /\n", &["does not begin"]),
    ]
}

fn import(id: &'static str, text: &'static str, says: &[&'static str]) -> Refused {
    guest(id, &Guest::default().with(Import { text, functions: &[] }), says)
}

fn wrong_components() -> Vec<Refused> {
    let export = |name: &str| Guest { export: name.to_owned(), ..Guest::default() };
    vec![
        guest("wrong-world", &export("acme:other/handler@0.1.0"), &["does not export agentry:plugin/handler@0.1.0"]),
        guest("newer-handler", &export("agentry:plugin/handler@0.1.1"), &["agentry:plugin/handler@0.1.1"]),
        import(
            "extra-import",
            "(import \"acme:vault/secrets@1.0.0\" (instance (export \"get\" (func))))",
            &["acme:vault/secrets@1.0.0", "does not know"],
        )
        .shows(&["imports"]),
        import(
            "ungranted-import",
            "(import \"wasi:http/outgoing-handler@0.2.0\" (instance))",
            &["wasi:http/outgoing-handler@0.2.0", "without a grant", "http = ["],
        ),
        import(
            "newer-context",
            "(import \"agentry:plugin/context@0.1.1\" (instance))",
            &["agentry:plugin/context@0.1.1"],
        ),
        import("newer-wasi", "(import \"wasi:cli/stdout@0.3.0\" (instance))", &["wasi:cli/stdout@0.3.0"]),
        guest("shared-memory", &Guest { core: "(memory $s 1 1 shared)".to_owned(), ..Guest::default() }, &[]),
        guest("memory-of-64-bits", &Guest { core: "(memory $w i64 1)".to_owned(), ..Guest::default() }, &[]),
        guest("garbage-collection", &Guest { core: "(type $s (struct))".to_owned(), ..Guest::default() }, &[]),
        guest("exceptions", &Guest { core: "(tag $t) (func (throw $t))".to_owned(), ..Guest::default() }, &[]),
    ]
}

fn too_large() -> Vec<Refused> {
    let core = |text: &str| Guest { core: text.to_owned(), ..Guest::default() };
    let many = "(core module $e) ".to_owned() + &"(core instance (instantiate $e))".repeat(200);
    let mut oversize = good();
    oversize.resize((4 << 20) + 1, 0);
    vec![
        file("larger-than-allowed", oversize, &["component_mib"]),
        guest(
            "huge-from-the-start",
            &Guest { memory: "65536".to_owned(), ..Guest::default() },
            &["limits.max.memory_mib"],
        ),
        // Each fits, and all of them together do not.
        guest("huge-in-four-parts", &core("(memory 3000) (memory 3000) (memory 3000)"), &["limits.max.memory_mib"])
            .shows(&["initial_memory"]),
        guest("a-huge-table", &core("(table 1000001 funcref)"), &["limits.max.table_elements"]),
        guest("a-great-many-memories", &core(&"(memory 1)".repeat(20)), &["limits.max.memories"]),
        guest("a-great-many-instances", &Guest { tail: many, ..Guest::default() }, &["limits.max.instances"]),
        file("a-million-types", with_module(&types(1_000_001)), &[]),
        file("components-in-components", nested(100_000), &["made of more than"]).shows(&["parts"]),
        file("types-that-double", doubling(), &[]),
        file("lists-of-lists", deep_lists(), &[]),
    ]
}

fn odd() -> Vec<Refused> {
    let odd = |id, put, says: &[&'static str]| Refused::new(id, Put::Odd(put), says);
    vec![
        odd("a-link-outside", |folder| symlink("/etc/passwd", folder.join(FILE)).expect("a link"), &["outside"]),
        odd("a-link-to-nothing", |folder| symlink("nowhere", folder.join(FILE)).expect("a link"), &["missing"]),
        odd("a-link-to-itself", |folder| symlink(FILE, folder.join(FILE)).expect("a link"), &["cannot be read"]),
        odd("an-endless-device", |folder| symlink("/dev/zero", folder.join(FILE)).expect("a link"), &["outside"]),
        odd(
            "a-pipe-that-nobody-writes",
            |folder| mknodat(CWD, folder.join(FILE), FileType::Fifo, Mode::RWXU, 0).expect("a pipe"),
            &["not a file"],
        ),
        odd("a-folder", |folder| std::fs::create_dir_all(folder.join(FILE)).expect("a folder"), &["not a file"]),
    ]
}

fn manifests() -> Vec<Refused> {
    let text = |id, text: String, says: &[&'static str]| Refused::new(id, Put::Manifest(text.into_bytes()), says);
    let plugin = |component: &str, more: &str| {
        format!("manifest = 1\n[plugin]\nname = \"NAME\"\nversion = \"VERSION\"\ncomponent = \"{component}\"\n{more}")
    };
    vec![
        text("component-above", plugin("../../../../etc/passwd", ""), &["component"]),
        text("component-anywhere", plugin("/etc/passwd", ""), &["component"]),
        text("limits-beyond-the-ceiling", plugin(FILE, "[limits]\nmemory_mib = 4096\n"), &["limits.max.memory_mib"]),
        text("limits-beyond-numbers", plugin(FILE, "[limits]\nmemory_mib = 9223372036854775807\n"), &["memory_mib"]),
        text("limits-below-nothing", plugin(FILE, "[limits]\ncpu_seconds = -1\n"), &["cpu_seconds"]),
        text("limits-unknown", plugin(FILE, "[limits]\nunlimited = true\n"), &["unlimited"]),
        text("manifest-of-1-mb", "#".repeat(1 << 20), &["plugin.toml"]),
        text("manifest-nested-in-lists", format!("a = {}", "[".repeat(60_000)), &[]),
        text("manifest-nested-in-tables", format!("a = {}", "{a=".repeat(20_000)), &[]),
        text("manifest-nested-in-keys", format!("{}a = 1", "a.".repeat(30_000)), &[]),
        text("manifest-nested-in-headers", format!("[{}a]", "a.".repeat(30_000)), &[]),
        text(
            "manifest-with-an-escape",
            "manifest = 1\n[plugin]\nname = \"\\u001b[2J\\n1999-12-31T23:59:59.999999Z\"\n".to_owned(),
            &["name"],
        ),
        Refused::new("manifest-that-is-no-text", Put::Manifest(vec![0xff; 100]), &["UTF-8"]),
    ]
}

/// A good component with one more core module in it.
pub fn with_module(sections: &[u8]) -> Vec<u8> {
    let mut component = good();
    let module = [b"\0asm\x01\0\0\0", sections].concat();
    component.push(1);
    component.extend(leb(module.len()));
    component.extend(module);
    component
}

/// A type section of so many functions.
fn types(count: usize) -> Vec<u8> {
    let body = [leb(count), [0x60, 0, 0].repeat(count)].concat();
    [vec![1], leb(body.len()), body].concat()
}

/// Components within a component, so deep.
fn nested(depth: usize) -> Vec<u8> {
    let header = b"\0asm\x0d\0\x01\0";
    let (mut heads, mut length) = (Vec::new(), header.len());
    for _ in 0..depth {
        let head = [&header[..], &[4], &leb(length)].concat();
        length += head.len();
        heads.push(head);
    }
    let mut inner: Vec<u8> = heads.into_iter().rev().flatten().collect();
    inner.extend(header);
    let mut component = good();
    component.push(4);
    component.extend(leb(inner.len()));
    component.extend(inner);
    component
}

/// Tuples of two of the last, sixty times over: 2^60 numbers.
fn doubling() -> Vec<u8> {
    let mut tail = "(type $d0 (tuple u64 u64))".to_owned();
    for n in 1..60 {
        tail += &format!("(type $d{n} (tuple $d{0} $d{0}))", n - 1);
    }
    tail += "(type (func (param \"a\" $d59)))";
    wat::parse_str(Guest { tail, ..Guest::default() }.text()).expect("a component")
}

/// Lists of lists, a hundred thousand deep.
fn deep_lists() -> Vec<u8> {
    let mut tail = "(type $d0 (list u8))".to_owned();
    for n in 1..100_000 {
        tail += &format!("(type $d{n} (list $d{}))", n - 1);
    }
    wat::parse_str(Guest { tail, ..attack("") }.text()).expect("a component")
}

/// A number as the binary format writes it.
pub fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        if number == 0 {
            bytes.push(byte);
            return bytes;
        }
        bytes.push(byte | 0x80);
    }
}
