//! Starting with a hundred plugins whose compiled code is cached.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::daemon::Setup;
use super::row::{Row, median};
use super::stage::Stage;

/// How many plugins.
pub const PLUGINS: usize = 100;
const STARTS: usize = 3;

/// Measures starts after a first one, which compiles.
pub fn measure(stage: &Stage) -> anyhow::Result<Vec<Row>> {
    let plugins = hundred(stage)?;
    let database = stage.database()?;
    let setup = Setup::new(stage, &database, "one", &plugins)?;
    let cold = setup.start()?.took;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        times.push(setup.start()?.took.as_secs_f64());
    }
    stage.drop_database(&database)?;
    let warm = median(times.clone()).unwrap_or_default();
    Ok(vec![Row::new(
        "start with 100 plugins, compiled cache warm",
        "ready within 1 s",
        format!("{warm:.2} s (cold, compiling all: {:.1} s)", cold.as_secs_f64()),
        warm <= 1.0,
        json!({"seconds": times, "cold_seconds": cold.as_secs_f64()}),
    )])
}

/// A hundred plugins called `word-count-0` and so on. Each has bytes of its own, so that each is compiled and cached.
pub fn hundred(stage: &Stage) -> anyhow::Result<PathBuf> {
    let source = stage.plugins("plugins/word-count")?.join("word-count");
    let folder = stage.folder.path().join("hundred");
    let manifest = std::fs::read_to_string(source.join("plugin.toml")).context("failed to read plugin.toml")?;
    let component = std::fs::read(source.join("word_count.wasm")).context("failed to read the component")?;
    for number in 0..PLUGINS {
        write(&folder, &format!("word-count-{number}"), &manifest, &component)?;
    }
    Ok(folder)
}

fn write(folder: &Path, name: &str, manifest: &str, component: &[u8]) -> anyhow::Result<()> {
    let folder = folder.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let manifest = manifest.replace("\"word-count\"", &format!("\"{name}\""));
    std::fs::write(folder.join("plugin.toml"), manifest).context("failed to write plugin.toml")?;
    let bytes = [component, &custom_section(name)].concat();
    std::fs::write(folder.join("word_count.wasm"), bytes).context("failed to write a component")
}

/// A custom section, which every engine skips. Its lengths fit in one byte.
fn custom_section(text: &str) -> Vec<u8> {
    let name = text.as_bytes();
    let length = |bytes: usize| u8::try_from(bytes).unwrap_or(0) & 0x7f;
    [&[0, length(name.len() + 1), length(name.len())][..], name].concat()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_custom_section_has_its_length_and_its_name() {
        assert_eq!(super::custom_section("ab"), [0, 3, 2, b'a', b'b']);
    }
}
