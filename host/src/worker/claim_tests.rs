//! Effects of the answer to a claim.

use super::*;
use crate::task::settle::Standing;
use crate::task::{Ended, Options};
use crate::worker::execute::tests::shared;
use crate::worker::flights::Begun;

#[tokio::test]
async fn copy_of_a_suspect_that_began_without_a_claim_is_stopped_and_runs_again_in_the_lane() {
    let shared = shared();
    let (ends, mut ended) = mpsc::channel(2);
    let ways = Ways { ends, acks: mpsc::channel(1).0, dead: mpsc::channel(1).0 };
    for (isolated, is_stopped) in [(false, false), (true, true)] {
        let id = uuid::Uuid::now_v7();
        let message = TaskMessage::assemble(Some(id), "prompt", "1", Options::default(), &Default::default()).unwrap();
        let Begun::Started(stop) = shared.flights.begin(id, message.fingerprint, "prompt".into()) else {
            panic!("busy")
        };
        let (unclaimed, answer) = Unclaimed::new(stop.clone());
        let arrival = Arrival {
            message: Arc::new(message),
            queue: "default".into(),
            runnable: execute::no_turn(),
            relayed: None,
        };
        let candidate = Candidate { unclaimed: Some(unclaimed), ..Candidate::of(arrival, None) };
        let standing = Standing { attempt: 2, max_attempts: 3, snoozes: 0, child_losses: 0, isolated };
        start(&shared, &ways, candidate, Claimed { fence: 4, standing, at: chrono::Utc::now() }).await;
        assert_eq!((stop.is_cancelled(), answer.await.is_err()), (is_stopped, is_stopped));
        if is_stopped {
            let settlement = ended.recv().await.unwrap().settlement;
            assert!(matches!(settlement.ended, Ended::Interrupted { .. }), "{:?}", settlement.ended);
            assert_eq!((settlement.id, settlement.fence, settlement.attempt), (id, 4, 2));
        }
    }
}
