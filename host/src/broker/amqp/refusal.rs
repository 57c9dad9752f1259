//! Why a connection cannot be opened: what cannot mend itself, and hints for what may.

use super::AmqpAddress;
use super::tls::Trust;
use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use rustls::{AlertDescription, CertificateError};

/// Beginning of what RabbitMQ itself refuses: users, virtual hosts, permissions.
pub(super) const BY_BROKER: &str = "RabbitMQ at ";
/// First byte of a TLS record that is an alert: a server's reply to what is not TLS.
const ALERT: u8 = 0x15;

/// The reason, if it is one that does not mend itself. `greeting`: the first bytes of the peer.
pub(super) fn refusal(
    address: &AmqpAddress,
    trust: &Trust,
    error: &lapin::Error,
    greeting: Option<&[u8]>,
) -> Option<String> {
    let by_peer = greeting.and_then(|bytes| other_protocol(address, bytes));
    by_peer.or_else(|| by_tls(address, trust, error)).or_else(|| by_broker(address, error))
}

/// Another protocol that answers at this port.
fn other_protocol(address: &AmqpAddress, greeting: &[u8]) -> Option<String> {
    let place = format!("what answers at {address} does not speak AMQP 0-9-1");
    match greeting {
        [ALERT, 3, ..] if !address.is_tls() => {
            Some(format!("{place} but TLS; write amqps:// in broker.url, or the port without TLS (5672)"))
        }
        [b'H', b'T', b'T', b'P', ..] => Some(format!(
            "{place} but HTTP; check host and port in broker.url: RabbitMQ's management plugin listens at 15672, AMQP at 5672 (TLS: 5671)"
        )),
        _ => None,
    }
}

/// The error of TLS in an error of lapin.
fn tls_error(error: &lapin::Error) -> Option<&rustls::Error> {
    match error.kind() {
        ErrorKind::IOError(error) => error.get_ref()?.downcast_ref(),
        _ => None,
    }
}

fn by_tls(address: &AmqpAddress, trust: &Trust, error: &lapin::Error) -> Option<String> {
    let error = tls_error(error)?;
    let text = error.to_string();
    let remedy = match error {
        // An authority that was made anew has the name of the former one, and not its key.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => match trust.ca() {
            Some(file) => format!("no authority in {} issued it; add its authority there", file.display()),
            None => "no authority of this machine issued it; name the PEM file of its authority in broker.ca_file".into(),
        },
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "write a name that it is for in broker.url (or in its parameter server_name_indication), or issue it for that one".into(),
        // These end with a renewal, or with the right time of day.
        rustls::Error::InvalidCertificate(
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. },
        ) => return None,
        rustls::Error::InvalidCertificate(_) if text.contains("CaUsedAsEndEntity") => {
            "it is the certificate of an authority; let that authority issue another one for the broker".into()
        }
        rustls::Error::InvalidCertificate(_) if text.contains("UnsupportedCertVersion") => {
            "issue it as X.509 version 3, which openssl does with extensions".into()
        }
        rustls::Error::InvalidCertificate(_) => "issue another one for the broker".into(),
        // A broker whose files are being replaced, or a load balancer without a backend, sends others, which end by themselves.
        rustls::Error::AlertReceived(alert) if !is_final(*alert) => return None,
        rustls::Error::AlertReceived(alert) if trust.has_certificate() => match alert {
            AlertDescription::UnknownCA => {
                "the broker does not know the authority of broker.cert_file; add it to the broker's cacertfile".into()
            }
            _ => "the broker rejected broker.cert_file, or has no version or cipher in common".into(),
        },
        rustls::Error::AlertReceived(_) => {
            "the broker asks for a client certificate (broker.cert_file, broker.key_file), or has no version or cipher in common".into()
        }
        rustls::Error::InvalidMessage(_) => {
            "what answers there does not speak TLS; write the port of amqps (5671) in broker.url, or amqp://".into()
        }
        rustls::Error::PeerIncompatible(_) => "the broker has no version or cipher in common; TLS 1.2 and 1.3 are spoken".into(),
        _ => return None,
    };
    Some(format!("TLS with {address} failed ({text}): {remedy}"))
}

/// Whether an alert says what only a change of settings ends.
fn is_final(alert: AlertDescription) -> bool {
    use AlertDescription::*;
    matches!(
        alert,
        UnknownCA
            | BadCertificate
            | UnsupportedCertificate
            | CertificateUnknown
            | CertificateRequired
            | DecryptError // the signature of a client certificate that another authority of the same name issued
            | HandshakeFailure
            | ProtocolVersion
            | InsufficientSecurity
            | AccessDenied
    )
}

fn by_broker(address: &AmqpAddress, error: &lapin::Error) -> Option<String> {
    let user = address.user();
    let vhost = address.vhost();
    Some(match error.kind() {
        ErrorKind::ProtocolError(e) => {
            let says = address.redact(e.get_message().as_str());
            match e.kind() {
                AMQPErrorKind::Soft(AMQPSoftError::ACCESSREFUSED) => format!(
                    "RabbitMQ at {address} refused the credentials of user {user:?}; check user and password in broker.url ({says})"
                ),
                // A limit on connections is one that others may go below.
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if says.contains("limit") => return None,
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) if says.contains("not found") => format!(
                    "RabbitMQ at {address} has no virtual host {vhost:?}; create it with `rabbitmqctl add_vhost`, or name another in broker.url ({says})"
                ),
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => format!(
                    "RabbitMQ at {address} does not let user {user:?} into virtual host {vhost:?}; grant it with `rabbitmqctl set_permissions` ({says})"
                ),
                _ => return None,
            }
        }
        ErrorKind::InvalidProtocolVersion(_) | ErrorKind::ParsingError(_) => {
            format!("what answers at {address} does not speak AMQP 0-9-1; check host and port in broker.url")
        }
        ErrorKind::AuthProviderError(e) => format!("cannot authenticate at {address}: {}", address.redact(e)),
        _ => return None,
    })
}

/// A hint for an error that may end by itself.
pub(super) fn hint(address: &AmqpAddress, error: &lapin::Error, greeting: Option<&[u8]>) -> &'static str {
    match tls_error(error) {
        Some(rustls::Error::InvalidCertificate(_)) => {
            "; renew the broker's certificate, or correct this machine's clock"
        }
        None if greeting.is_none()
            && !address.is_tls()
            && matches!(error.kind(), ErrorKind::IOError(e) if is_end(e)) =>
        {
            "; it hung up without a word: if that is the port of amqps, write amqps:// in broker.url"
        }
        _ => "",
    }
}

fn is_end(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe)
}
