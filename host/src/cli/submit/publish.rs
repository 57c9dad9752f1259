//! `agentry submit --via amqp`: a task as any producer publishes it.

use super::super::client::Client;
use super::super::{Failed, escape, output, settings};
use super::{Submit, finish};
use crate::broker::{Message, Publication, PublishError, Target};
use crate::config::Services;
use crate::daemon;
use crate::task::message::{Envelope, TaskMessage};
use crate::task::{DEFAULT_QUEUE, TaskId, identity};
use reqwest::{Method, StatusCode};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long the broker may take to accept the connection, and to confirm.
const PATIENCE: Duration = Duration::from_secs(10);
/// The time that a polite end of the connection may take.
const CLOSE: Duration = Duration::from_secs(2);
/// Between two looks for a record that is not there yet.
const LOOK: Duration = Duration::from_millis(100);
/// The time without a record after which the daemon that is asked may be another one.
const STRANGE: Duration = Duration::from_secs(10);

pub async fn run(submit: Submit, config: Option<PathBuf>) -> Result<(), Failed> {
    let settings = settings(config, Vec::new())?;
    let id = match &submit.id {
        Some(text) => identity::uuid(text).ok_or_else(|| Failed::usage(format!("--id {text:?} is not a UUID")))?,
        None => TaskId::now_v7(),
    };
    // The daemon, which knows the queue of the plugin, is not asked.
    let queue = submit.queue.as_deref().unwrap_or(DEFAULT_QUEUE);
    let body = submit.body(Some(&id.to_string()), None)?;
    // What a daemon would refuse is refused here, and not as a dead letter.
    let envelope = Envelope { body: body.as_bytes(), ..Envelope::default() };
    TaskMessage::decode(&envelope, &settings.message_limits())
        .map_err(|rejection| Failed::usage(format!("{}: {}", rejection.code, rejection.detail)))?;
    let client = submit.wait.then(|| Client::new(&submit.server)).transpose()?;
    let Services::External { .. } = settings.services() else {
        return Err(Failed::usage(
            "--via amqp publishes to the broker of broker.url, which is not set; set it in agentry.toml or AGENTRY_BROKER_URL. The \
             queue of an embedded daemon is reached by its API alone (--via http)",
        ));
    };
    let late = |what: &str| Failed::unreachable(format!("failed to {what} within {} s", PATIENCE.as_secs()));
    let connecting = tokio::time::timeout(PATIENCE, daemon::publisher(&settings)).await;
    let broker = connecting.map_err(|_| late("connect to the broker of broker.url"))?.map_err(Failed::unreachable)?;
    let message = Message { body: body.into(), content_type: Some("application/json".into()), ..Message::default() };
    let publication = Publication { target: Target::Tasks(queue.to_owned()), message };
    let confirmed = tokio::time::timeout(PATIENCE, broker.publish(vec![publication])).await;
    let published = match confirmed {
        Ok(answers) => answers.into_iter().next().unwrap_or(Ok(())),
        Err(_) => Err(PublishError::Unconfirmed(format!("no confirm within {} s", PATIENCE.as_secs()))),
    };
    let closed = tokio::time::timeout(CLOSE, broker.close());
    match published {
        Ok(()) => {
            let _ = closed.await;
        }
        // The exchange, or its binding for this queue.
        Err(PublishError::Unroutable(_)) => return Err(missing(queue)),
        Err(PublishError::Unconfirmed(why)) if why.contains("does not exist") => return Err(missing(queue)),
        // It may have arrived: a new id would run it twice.
        Err(PublishError::Unconfirmed(why)) => {
            if submit.server.json {
                output::json(&json!({"id": id, "queue": queue, "confirmed": false}))?;
            }
            return Err(Failed::unreachable(format!(
                "the broker did not confirm task {id} ({why}); it may have arrived. Repeat with --id {id}, which cannot run it \
                 twice, or see `agentry task explain {id}`"
            )));
        }
    }
    let Some(client) = client else {
        return match submit.server.json {
            true => output::json(&json!({"id": id, "queue": queue, "confirmed": true})),
            false => output::data(&id.to_string()),
        };
    };
    output::say(&format!("task {id}"));
    recorded(&client, id).await?;
    finish(&client, &id.to_string(), submit.server.json).await
}

fn missing(queue: &str) -> Failed {
    Failed::unreachable(format!(
        "failed to publish the task: the broker has no queue {}; broker.url, broker.prefix and --queue must be those of a daemon that \
         has declared it",
        escape::line(queue)
    ))
}

/// Returns once the task has a record. Until a host has claimed it there is none.
async fn recorded(client: &Client, id: TaskId) -> Result<(), Failed> {
    let path = format!("/v1/tasks/{id}");
    let began = Instant::now();
    let (mut said, mut doubted) = (false, false);
    loop {
        match client.ask(Method::GET, &path, None, client.patience()).await? {
            Ok(_) => return Ok(()),
            Err(refused) if refused.status == StatusCode::NOT_FOUND => {}
            Err(refused) => return Err(super::super::client::refused(refused)),
        }
        if !said {
            output::say(&format!("published; no host has claimed it yet (agentry task explain {id})"));
            said = true;
        } else if !doubted && began.elapsed() > STRANGE {
            output::say(&format!(
                "still no record; the daemon at {} may use another database or broker",
                client.address()
            ));
            doubted = true;
        }
        tokio::time::sleep(LOOK).await;
    }
}
