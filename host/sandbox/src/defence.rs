//! The defences by name, so that a test can take away one at a time and see that it is missed.
//!
//! In the build that is shipped, [`Defence::stands`] is a constant: nothing can turn a defence off. Only with the feature
//! `weakened`, in the tests' binary, it asks the variable `AGENTRY_WITHOUT` (names separated by commas; a name that is none
//! ends the process, and says which there are).

macro_rules! defences {
    ($( $(#[$doc:meta])* $defence:ident = $name:literal, )*) => {
        /// One line of code that keeps a guest within its bounds.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Defence { $( $(#[$doc])* $defence, )* }

        impl Defence {
            /// All of them.
            pub const ALL: &[Defence] = &[$( Defence::$defence, )*];

            /// Its name.
            pub const fn name(self) -> &'static str {
                match self { $( Defence::$defence => $name, )* }
            }
        }
    };
}

defences! {
    /// CPU time is compared with `cpu_seconds`.
    Cpu = "cpu",
    /// The wall clock is compared with `timeout_seconds`.
    WallClock = "wall_clock",
    /// A guest that computes yields to others.
    Yield = "yield",
    /// A task that is stopped ends, whatever its guest does.
    Stop = "stop",
    /// Linear memory is summed over all memories.
    Memory = "memory",
    /// What all guests together have is counted.
    Budget = "budget",
    /// Table elements are summed over all tables.
    Tables = "tables",
    /// What one host call may make the host allocate.
    Hostcall = "hostcall",
    /// Handles of the host's making.
    Handles = "handles",
    /// Handles of the guest's own making.
    GuestHandles = "guest_handles",
    /// Random bytes of one call.
    Random = "random",
    /// Bytes of the log.
    LogBytes = "log_bytes",
    /// Lines of the log.
    LogLines = "log_lines",
    /// Bytes of one line of the log.
    LogLine = "log_line",
    /// Standard output and standard error are the host's own streams, not the daemon's.
    OwnStreams = "own_streams",
    /// Bytes of the output.
    Output = "output",
    /// The output is JSON of bounded depth.
    OutputJson = "output_json",
    /// Sockets and name look-ups are refused.
    Network = "network",
    /// What is not linked, or not granted, is refused by name.
    Imports = "imports",
    /// A file that is no component is refused before the compiler sees it.
    FileKind = "file_kind",
    /// Bytes of a component's file.
    ComponentSize = "component_size",
    /// Modules and components within a component.
    Parts = "parts",
    /// Memory that a component begins with.
    InitialMemory = "initial_memory",
    /// Compiled code is taken only from files that are ours and whole.
    CompiledCode = "compiled_code",
    /// The compiler is ended after `compile_seconds`.
    CompileTime = "compile_time",
    /// The compiler has at most `compile_memory_mib`.
    CompileMemory = "compile_memory",
    /// A panic of the host while it serves a guest stays with that guest.
    Panics = "panics",
    /// Frames of a trap have names of bounded length.
    FrameNames = "frame_names",
}

impl Defence {
    /// Whether it stands: always, but for tests of what would happen without it.
    #[cfg(not(feature = "weakened"))]
    #[inline(always)]
    pub(crate) const fn stands(self) -> bool {
        true
    }

    /// Whether it stands, or `AGENTRY_WITHOUT` names it.
    #[cfg(feature = "weakened")]
    pub(crate) fn stands(self) -> bool {
        static WITHOUT: std::sync::OnceLock<Vec<Defence>> = std::sync::OnceLock::new();
        !WITHOUT.get_or_init(without).contains(&self)
    }
}

#[cfg(feature = "weakened")]
fn without() -> Vec<Defence> {
    let names = std::env::var("AGENTRY_WITHOUT").unwrap_or_default();
    let named = |name: &str| match Defence::ALL.iter().find(|defence| defence.name() == name) {
        Some(defence) => *defence,
        None => {
            let known: Vec<_> = Defence::ALL.iter().map(|defence| defence.name()).collect();
            // A test that takes away nothing must not pass for one that did.
            let text = format!("AGENTRY_WITHOUT={name:?} is no defence; known are {}\n", known.join(","));
            let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
            std::process::exit(2)
        }
    };
    names.split(',').filter(|name| !name.is_empty()).map(named).collect()
}
