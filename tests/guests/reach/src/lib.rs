//! Calls the capabilities that its input names, one after the other, and gives back what came of each:
//! `[{"get": {"key": "a"}}]` gives `[{"ok": "1"}]`, or `[{"error": {"kind": "denied", "message": "…"}}]`.

mod raw;
mod steps;

use agentry_sdk::keyvalue::Bucket;
use agentry_sdk::memory::Memory;
use agentry_sdk::serde_json::{Value, json};
use agentry_sdk::{Failure, Task, config, context, http, llm, log, plugin, tools};
use std::time::Duration;
use steps::Step;

fn handle(task: &Task, steps: Vec<Step>) -> Result<Vec<Value>, Failure> {
    log::log(log::Level::Info, "reach", format_args!("start {} {}", task.id, task.attempt));
    let mut results = Vec::new();
    for step in steps {
        let result = match step {
            Step::Tell {} => tell(&results),
            Step::Must(step) => json!({"ok": act(task, *step)?}),
            // Whatever the capability is, its failure says which it is.
            step => {
                act(task, step).map_or_else(|failure| json!({"error": error(failure)}), |value| json!({"ok": value}))
            }
        };
        results.push(result);
    }
    Ok(results)
}

fn act(task: &Task, step: Step) -> Result<Value, Failure> {
    match step {
        Step::Http { method, url, headers, body } => {
            let mut request = http::Request::new(method.unwrap_or_else(|| "GET".into()), url);
            request.headers.extend(headers);
            request.body = body.map(String::into_bytes);
            let response = request.send()?;
            Ok(json!({"status": response.status, "headers": response.headers, "body": response.text()}))
        }
        Step::RawHttp { tls, authority, path } => raw::send(tls.unwrap_or(false), &authority, path.as_deref()),
        Step::Hold { authority, path, count, ms } => raw::hold(&authority, &path, count, Duration::from_millis(ms)),
        Step::Chat { model, prompt, max_tokens, schema } => {
            let mut request = llm::Request { max_tokens, ..llm::Request::new(model).user(prompt) };
            if let Some(schema) = schema {
                request = request.json_schema("answer", &schema);
            }
            let reply = llm::chat(&request)?;
            let usage = (reply.usage.input_tokens, reply.usage.output_tokens);
            Ok(json!({"text": reply.text(), "model": reply.model, "usage": usage}))
        }
        Step::Tools {} => Ok(tools::list()?.into_iter().map(|tool| format!("{}.{}", tool.server, tool.name)).collect()),
        Step::Call { server, tool, arguments } => {
            let output = tools::call(&server, &tool, &arguments.unwrap_or_else(|| json!({})))?;
            Ok(json!({"text": output.text(), "failed": output.failed}))
        }
        Step::Set { bucket, key, value } => {
            open(bucket)?.set(&key, value.as_bytes())?;
            Ok(Value::Null)
        }
        Step::Get { bucket, key } => {
            Ok(open(bucket)?.get(&key)?.map_or(Value::Null, |value| String::from_utf8_lossy(&value).into()))
        }
        Step::GetMany { bucket, keys } => {
            let keys: Vec<String> = (0..keys).map(|n| n.to_string()).collect();
            let values = open(bucket)?.get_many(&keys.iter().map(String::as_str).collect::<Vec<_>>())?;
            Ok(json!(values.iter().flatten().count()))
        }
        Step::Increment { bucket, key, delta } => Ok(json!(open(bucket)?.increment(&key, delta.unwrap_or(1))?)),
        Step::Remember { memory, text } => Ok(json!(notes(memory).remember(&text, &json!({}))?)),
        Step::Search { memory, query } => {
            Ok(notes(memory).search(&query, 10)?.into_iter().map(|entry| entry.text).collect())
        }
        Step::Config(key) => Ok(json!(config::get(&key)?)),
        Step::Read(path) => Ok(json!(std::fs::read_to_string(path)?)),
        Step::ListDir(path) => {
            let names = std::fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
            let mut names = names.collect::<std::io::Result<Vec<_>>>()?;
            names.sort();
            Ok(json!(names))
        }
        Step::Write(path) => {
            std::fs::write(path, "written")?;
            Ok(Value::Null)
        }
        Step::SleepMs(ms) => {
            std::thread::sleep(Duration::from_millis(ms));
            Ok(Value::Null)
        }
        Step::RemainingMs {} => Ok(json!(u64::try_from(context::remaining().as_millis()).unwrap_or(u64::MAX))),
        Step::RetryUntilAttempt(n) if task.attempt < n => {
            Err(Failure::retry(format!("attempt {} of {n}", task.attempt)))
        }
        Step::RetryUntilAttempt(_) => Ok(json!(task.attempt)),
        Step::Repeat { times, step } => Ok(json!((0..times).filter(|_| act(task, (*step).clone()).is_ok()).count())),
        Step::Must(step) => act(task, *step),
        Step::Tell {} => Ok(Value::Null), // done by `handle`, which alone can
    }
}

#[expect(clippy::print_stdout, reason = "what a guest prints is what is tested")]
fn tell(results: &[Value]) -> Value {
    for result in results {
        log::info(result);
        println!("{result}");
        eprintln!("{result}");
    }
    json!({"ok": results.len()})
}

fn open(bucket: Option<String>) -> Result<Bucket, Failure> {
    Ok(Bucket::open(bucket.as_deref().unwrap_or("cache"))?)
}

fn notes(memory: Option<String>) -> Memory {
    Memory::open(memory.unwrap_or_else(|| "notes".into()))
}

fn error(failure: Failure) -> Value {
    match failure {
        Failure::Retry { message, code, .. } | Failure::Permanent { message, code, .. } => {
            json!({"kind": code.unwrap_or_else(|| "other".into()), "message": message})
        }
        Failure::InvalidInput { message, .. } => json!({"kind": "invalid_input", "message": message}),
        Failure::Snooze { message, .. } => json!({"kind": "snooze", "message": message}),
    }
}

plugin!(handle);
