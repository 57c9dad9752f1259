//! The faults that come from outside.

/// What the nemesis can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// `kill -9` of a host.
    Kill,
    /// A host is stopped for a while, which may be longer than its lease.
    Pause,
    /// A host is asked to end.
    Drain,
    /// A host's settlements hang, while it renews its lease; somebody kills it in the end.
    Wedge,
    /// The database is away.
    DatabaseDown,
    /// One host's way to the database is cut.
    DatabaseCut,
    /// The broker is restarted.
    BrokerRestart,
    /// One host's connection to the broker ends.
    ConnectionCut,
    /// The broker has given one host's connection up, which that does not know.
    HalfOpen,
    /// A binding is gone.
    Unbind,
    /// The broker throws a message out that nobody has taken.
    Expire,
}

impl Fault {
    /// All there are.
    pub const ALL: [Fault; 11] = [
        Fault::Kill,
        Fault::Pause,
        Fault::Drain,
        Fault::Wedge,
        Fault::DatabaseDown,
        Fault::DatabaseCut,
        Fault::BrokerRestart,
        Fault::ConnectionCut,
        Fault::HalfOpen,
        Fault::Unbind,
        Fault::Expire,
    ];

    /// As it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Fault::Kill => "host killed",
            Fault::Pause => "host paused",
            Fault::Drain => "host drained",
            Fault::Wedge => "host wedged",
            Fault::DatabaseDown => "database down",
            Fault::DatabaseCut => "database cut",
            Fault::BrokerRestart => "broker restarted",
            Fault::ConnectionCut => "connection cut",
            Fault::HalfOpen => "connection half open",
            Fault::Unbind => "binding gone",
            Fault::Expire => "message expired",
        }
    }
}
