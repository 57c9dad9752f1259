//! A rolling upgrade: the previous version beside this one, on one broker and one database.

use e2e::invariants::{self, Expected};
use e2e::{Mode, Site, eventually, probe, task, variables};

#[tokio::test]
#[ignore = "needs the previous version's binary, which `cargo xtask test --full` builds"]
async fn the_previous_version_and_this_one_work_side_by_side() {
    let site = Site::new(Mode::Services).await;
    let old = site.setup_named("old").binary(variables::previous_binary()).start().await;
    let mut ids = Vec::new();
    let publish = async |ids: &mut Vec<_>| {
        let tasks: Vec<_> = (0..80).map(|_| probe::sleep(100)).collect();
        site.publish(&tasks).await;
        ids.extend(task::ids(&tasks));
    };
    publish(&mut ids).await;
    site.ended_at_least(8).await;
    let version = "SELECT max(version)::bigint FROM agentry.schema_version";
    let before = site.database().await.number(version).await;
    let new = site.setup_named("new").start().await; // migrates under the old one's feet
    let after = site.database().await.number(version).await;
    assert!(before.is_ok() && before < after, "it migrated: {before:?}, then {after:?}");
    publish(&mut ids).await;
    let (old_pid, new_pid) = (old.pid(), new.pid());
    let database = site.database().await;
    eventually("both have settled tasks since", async || {
        for pid in [old_pid, new_pid] {
            let settled = format!(
                "SELECT count(*) FROM agentry.task_attempts a JOIN agentry.hosts h ON h.id = a.host WHERE h.name LIKE \
                 '%/{pid}' AND a.ended = 'completed' AND a.started_at > (SELECT max(started_at) FROM agentry.hosts)"
            );
            if database.number(&settled).await? == 0 {
                return Err(format!("{pid} has not"));
            }
        }
        Ok(())
    })
    .await;
    old.stop().await;
    publish(&mut ids).await;
    site.at_rest(&ids).await;
    for id in &ids {
        let attempts = new.http().attempts(*id).await;
        let completed = attempts.iter().filter(|attempt| attempt["ended"] == "completed").count();
        assert_eq!(completed, 1, "{id}: {attempts:?}");
    }
    invariants::hold(&site, new, &ids, Expected::default()).await;
}
