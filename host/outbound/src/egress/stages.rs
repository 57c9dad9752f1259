//! How far an exchange is. reqwest tells neither its connector nor its resolver for which request they work, so both find the
//! exchange in the task that polls them; where there is none, nothing is resolved.

use super::{HttpError, Stage};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tower::{Layer, Service};

tokio::task_local! {
    static PASSAGE: Arc<Passage>;
}

/// One exchange on its way out.
#[derive(Debug)]
pub(super) struct Passage {
    /// The port that it goes to.
    pub port: u16,
    /// It goes only to what the operator opened.
    pub only_opened: bool,
    phase: watch::Sender<Phase>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Resolving,
    Connecting,
    /// On a connection, since then.
    Sent(Instant),
}

impl Passage {
    /// On a connection, until the connector is asked for one.
    pub fn new(port: u16, only_opened: bool) -> Arc<Passage> {
        Arc::new(Passage { port, only_opened, phase: watch::Sender::new(Phase::Sent(Instant::now())) })
    }

    /// That of the exchange that is polled.
    pub fn current() -> Option<Arc<Passage>> {
        PASSAGE.try_with(Arc::clone).ok()
    }

    /// Polls a future as this exchange.
    pub async fn cover<F: Future>(self: &Arc<Passage>, exchange: F) -> F::Output {
        PASSAGE.scope(self.clone(), exchange).await
    }

    pub fn resolving(&self) {
        self.phase.send_replace(Phase::Resolving);
    }

    pub fn connecting(&self) {
        self.phase.send_replace(Phase::Connecting);
    }

    fn sent(&self) {
        self.phase.send_replace(Phase::Sent(Instant::now()));
    }

    /// Ends when a stage has taken too long.
    pub async fn overdue(&self, began: Instant, connect: Duration, first_byte: Duration) -> HttpError {
        let mut phase = self.phase.subscribe();
        loop {
            let now = *phase.borrow_and_update();
            let (stage, since, limit) = match now {
                Phase::Resolving => (Stage::Resolve, began, connect),
                Phase::Connecting => (Stage::Connect, began, connect),
                Phase::Sent(at) => (Stage::FirstByte, at, first_byte),
            };
            tokio::select! {
                biased;
                // The sender is in `self`, so it is never gone.
                _ = phase.changed() => {}
                () = sleep_until(later(since, limit)) => return HttpError::TimedOut { stage, limit },
            }
        }
    }
}

/// A time that far ahead, or a century if it is beyond what the clock can say.
pub(super) fn later(from: Instant, by: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    from + by.min(CENTURY)
}

/// Tells the exchange that its connection is being made, and when it is there, TLS included.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watched;

/// See [`Watched`].
#[derive(Clone, Debug)]
pub(super) struct WatchedConnector<S>(S);

impl<S> Layer<S> for Watched {
    type Service = WatchedConnector<S>;

    fn layer(&self, connector: S) -> WatchedConnector<S> {
        WatchedConnector(connector)
    }
}

impl<S: Service<R>, R> Service<R> for WatchedConnector<S>
where
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, destination: R) -> Self::Future {
        let passage = Passage::current();
        if let Some(passage) = &passage {
            passage.connecting();
        }
        let connection = self.0.call(destination);
        Box::pin(async move {
            let connection = connection.await;
            if let (Some(passage), Ok(_)) = (&passage, &connection) {
                passage.sent();
            }
            connection
        })
    }
}
