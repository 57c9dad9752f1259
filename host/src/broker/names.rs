//! Which names a queue may have, and what a message loses on its way out. The same for both brokers.

use super::{BrokerError, Publication, Target};

/// Room for prefix, dots and suffixes within AMQP's 255 bytes.
const NAME_BYTES: usize = 120;

/// A prefix or a logical queue's name.
pub(super) fn check_name(setting: &str, name: &str) -> Result<(), BrokerError> {
    let refuse = |why: String| Err(BrokerError::Refused(format!("{setting}: {name:?} {why}")));
    if name.is_empty() || name.len() > NAME_BYTES {
        return refuse(format!("has {} bytes; allowed are 1 to {NAME_BYTES}", name.len()));
    }
    if let Some(c) = name.chars().find(|c| c.is_control() || c.is_whitespace()) {
        return refuse(format!("holds {c:?}; no white space and no control characters"));
    }
    // `x.dead` would be at once the tasks of `x.dead` and the dead letters of `x`.
    if let Some(suffix) = [".dead", ".returned", ".returned.v2"].iter().find(|s| name.ends_with(**s)) {
        return refuse(format!("ends with {suffix:?}, which is what a queue's companions are called"));
    }
    if name.starts_with("amq.") {
        return refuse("starts with \"amq.\", which RabbitMQ keeps for itself".into());
    }
    Ok(())
}

/// A publication as it may go out.
///
/// `user_id` stays behind (the broker checks it against the connection's own). The headers `CC` and `BCC` would route
/// copies (RabbitMQ's sender-selected distribution), back into a queue of ours at worst. And a dead letter must not
/// expire where it lies.
pub(super) fn prepared(mut publication: Publication) -> Publication {
    let message = &mut publication.message;
    message.other.remove("user_id");
    for (header, renamed) in [("CC", "agentry-cc"), ("BCC", "agentry-bcc")] {
        if let Some(value) = message.headers.remove(header) {
            message.headers.insert(renamed.into(), value);
        }
    }
    if matches!(publication.target, Target::Dead(_))
        && let Some(value) = message.other.remove("expiration")
    {
        message.headers.insert("agentry-expiration".into(), value);
    }
    publication
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Message;
    use serde_json::json;

    #[test]
    fn a_name_that_would_collide_is_refused() {
        for good in ["default", "gpu-high", "team.a", "dead"] {
            assert!(check_name("broker.queues", good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "x.dead", "x.returned", "x.returned.v2", "amq.x", "a\n", &"q".repeat(121)] {
            assert!(matches!(check_name("broker.queues", bad), Err(BrokerError::Refused(_))), "{bad}");
        }
    }

    #[test]
    fn a_dead_letter_neither_expires_nor_is_copied() {
        let mut message = Message::default();
        message.other.insert("expiration".into(), json!("1000"));
        message.other.insert("user_id".into(), json!("somebody"));
        message.headers.insert("CC".into(), json!(["default.returned"]));
        let dead = prepared(Publication { target: Target::Dead("q".into()), message: message.clone() }).message;
        assert!(dead.other.is_empty());
        assert_eq!(json!(dead.headers), json!({"agentry-cc": ["default.returned"], "agentry-expiration": "1000"}));
        let task = prepared(Publication { target: Target::Tasks("q".into()), message }).message;
        assert_eq!(json!(task.other), json!({"expiration": "1000"}));
    }
}
