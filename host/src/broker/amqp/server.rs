//! Properties of the server, as far as AMQP 0-9-1 shows them. Policies are not among them: only the management plugin and
//! `rabbitmqctl list_policies` show those.

use super::mend::Cursor;

/// Of a version that comes from another machine and goes to logs.
const LONGEST: usize = 40;

/// The version in a `connection.start`, whose payload this is.
pub(super) fn version(payload: &mut [u8]) -> Option<String> {
    let text = Cursor::new(payload).server_property(b"version")?;
    let plain = !text.is_empty() && text.len() <= LONGEST && text.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some(text)
}

/// Returned deliveries after which RabbitMQ takes a message out of a task queue, for the log of the start.
///
/// The default of RabbitMQ 4.0 and later is 20 ("Quorum queues": poison message handling); versions before it have none.
pub(super) fn limits(version: Option<&str>) -> String {
    let Some(version) = version else {
        return "the broker does not report its version; its delivery limit is unknown".into();
    };
    match version.split('.').next().and_then(|major| major.parse::<u32>().ok()) {
        Some(..4) => format!(
            "RabbitMQ {version} returns no message for the number of its deliveries, unless a policy sets delivery-limit"
        ),
        Some(_) => format!(
            "RabbitMQ {version} returns a message after 20 deliveries without an acknowledgement, unless a policy sets \
             another delivery-limit; the daemon consumes what is returned"
        ),
        None => format!("the version of the broker, {version}, is not a number; its delivery limit is unknown"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(properties: &[u8]) -> Vec<u8> {
        [&[0, 10, 0, 10, 0, 9], &(properties.len() as u32).to_be_bytes()[..], properties].concat()
    }

    #[test]
    fn version_is_read_from_connection_start() {
        let before = b"\x0ccapabilitiesF\0\0\0\x05\x02okt\x01\x07productS\0\0\0\x08RabbitMQ";
        let mut payload = start(&[&before[..], b"\x07versionS\0\0\0\x054.0.5"].concat());
        assert_eq!(version(&mut payload).as_deref(), Some("4.0.5"));
        for end in 0..payload.len() {
            version(&mut payload.clone()[..end]); // no panic
        }
        assert_eq!(version(&mut start(before)), None);
        assert_eq!(version(&mut start(b"\x07versionS\0\0\0\x034\n0")), None, "it goes to logs");
        assert_eq!(version(&mut [0, 10, 0, 11]), None);
    }

    #[test]
    fn delivery_limit_depends_on_the_version() {
        assert!(limits(Some("3.13.7")).contains("no message"));
        assert!(limits(Some("4.0.5")).contains("after 20 deliveries"));
        assert!(limits(Some("10.1")).contains("after 20 deliveries"));
        assert!(limits(None).contains("unknown") && limits(Some("x")).contains("unknown"));
    }
}
