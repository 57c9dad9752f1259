//! A plain AMQP producer: reads one message a line from a file, publishes each as it is, persistent and
//! `mandatory`, and writes its number when the broker has confirmed it. It knows nothing of Agentry but two names.
//!
//! `PLAIN_PUBLISH_URL=amqp://… plain-publish EXCHANGE ROUTING_KEY FILE`

#![allow(clippy::print_stdout, reason = "its output is its answer")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};

use anyhow::{Context, bail, ensure};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};

use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties, PublisherConfirm};

/// Messages that may be on their way at once.
const WINDOW: usize = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [exchange, key, file] = arguments.as_slice() else { bail!("usage: plain-publish EXCHANGE ROUTING_KEY FILE") };
    let messages = File::open(file).with_context(|| format!("failed to open {file}"))?;
    // In the environment: arguments can be read by everybody on the machine.
    let url = std::env::var("PLAIN_PUBLISH_URL").context("failed to read PLAIN_PUBLISH_URL")?;
    let connection = Connection::connect(&url, ConnectionProperties::default()).await;
    let connection = connection.context("failed to connect to the broker")?;
    let channel = connection.create_channel().await.context("failed to open a channel")?;
    channel.confirm_select(ConfirmSelectOptions::default()).await.context("failed to ask for confirms")?;

    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    let mut waiting: VecDeque<PublisherConfirm> = VecDeque::new();
    let mut confirmed = 0_usize;
    for line in BufReader::new(messages).lines() {
        let line = line.context("failed to read a message")?;
        let publish = channel.basic_publish(
            exchange.as_str().into(),
            key.as_str().into(),
            options,
            line.as_bytes(),
            properties.clone(),
        );
        waiting.push_back(publish.await.context("failed to publish")?);
        if waiting.len() >= WINDOW
            && let Some(oldest) = waiting.pop_front()
        {
            confirm(oldest, &mut confirmed).await?;
        }
    }
    for oldest in waiting {
        confirm(oldest, &mut confirmed).await?;
    }
    connection.close(200, "done".into()).await.context("failed to close the connection")
}

async fn confirm(publish: PublisherConfirm, confirmed: &mut usize) -> anyhow::Result<()> {
    match publish.await.context("failed to hear whether a message arrived")? {
        Confirmation::Ack(None) => {}
        Confirmation::Ack(Some(_)) => bail!("failed to publish: no queue is bound there"),
        other => ensure!(false, "failed to publish: the broker refused ({other:?})"),
    }
    *confirmed += 1;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{confirmed}").and_then(|()| stdout.flush()).context("failed to write")
}
